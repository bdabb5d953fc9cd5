"""How all figures look: sizes in inches, type in points, and one fixed style for each schedule."""

import functools
import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, ParamSpec, TypeAlias

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullFormatter

from fishlens.errors import InputError

from .fonts import readable, with_fallbacks

COLUMN = 3.3  # width of one column of a two-column paper, in inches
PAGE = 6.8  # width of both columns

# Colours that nothing else uses: a page may exchange them for its own (see `svg.inline_svg`).
INK = "#1b1c1d"
GRID = "#d9dadb"
PAPER = "#fefefd"

_TYPE = 7.0
_LOOK: dict[str, Any] = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.6,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.2,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "savefig.bbox": None,
    "svg.hashsalt": "fishlens",
    "pdf.fonttype": 42,  # whole letters, which journals ask for
    "ps.fonttype": 42,
}
# beside the size of type: what is a little larger or smaller
_SIZES = {
    "font.size": 0.0,
    "axes.titlesize": 0.5,
    "axes.labelsize": 0.0,
    "xtick.labelsize": -0.5,
    "ytick.labelsize": -0.5,
    "legend.fontsize": -0.5,
}
_PAPER: dict[str, Any] = {"font.family": ["STIXGeneral"], "mathtext.fontset": "stix", "font.size": 8.0}
STYLES = ("page", "paper")

_P = ParamSpec("_P")
LineStyle: TypeAlias = str | tuple[float, tuple[float, ...]]
_ONE_AT_A_TIME = threading.RLock()
_CHOSEN = ContextVar("fishlens figure style", default="page")


def styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Draw under the settings below, and leave the caller's matplotlib settings as they were."""

    @functools.wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with settings():
            return draw(*args, **kwargs)

    return drawn


@contextmanager
def style(name: str) -> Iterator[None]:
    """Draw and write figures as for a `page` on a screen (the default), or for a `paper`: serif letters of 8 points.

    Raises `InputError` for another name.
    """
    if name not in STYLES:
        raise InputError(f"there is no style of figures {name!r}; expected one of {', '.join(STYLES)}")
    before = _CHOSEN.set(name)
    try:
        yield
    finally:
        _CHOSEN.reset(before)


@contextmanager
def settings(**fixed: Any) -> Iterator[None]:
    """The settings of the chosen style for a while, and `fixed`. What the caller's own `matplotlib.rcParams` (or a
    style sheet, or a matplotlibrc) say otherwise than matplotlib's defaults goes before the style.

    matplotlib has one set of settings for the whole process: one thread at a time.
    """
    with _ONE_AT_A_TIME:
        own: dict[str, Any] = {
            str(key): value
            for key, value in matplotlib.rcParams.items()
            if key in _DEFAULTS and value != _DEFAULTS[key]
        }
        chosen: dict[str, Any] = {**_LOOK, "font.family": ["DejaVu Sans"], "font.size": _TYPE}
        if _CHOSEN.get() == "paper":
            chosen |= _PAPER
        size = float(own.get("font.size", chosen["font.size"]))
        chosen |= {key: size + more for key, more in _SIZES.items()}
        chosen |= own
        chosen["font.family"] = with_fallbacks(chosen["font.family"])
        settings: Any = {**chosen, **{key.replace("__", "."): value for key, value in fixed.items()}}
        with matplotlib.rc_context(settings):
            yield


_default: Any = matplotlib.rcParamsDefault
_DEFAULTS = {key: _default[key] for key in (*_LOOK, *_SIZES, "font.family", "mathtext.fontset")}


def canvas(ax: Axes | None, width: float, height: float) -> tuple[Figure, Axes]:
    """The caller's axes and their figure, or a new figure with one panel."""
    if ax is None:
        figure = new_figure(width, height)
        return figure, figure.subplots()
    return ax.figure.canvas.figure, ax  # of a subfigure too


def small(points: float = 1.0) -> float:
    """A size of type so many points below the text's."""
    return float(matplotlib.rcParams["font.size"]) - points


def new_figure(width: float, height: float) -> Figure:
    """An empty figure whose parts keep out of each other's way (constrained layout)."""
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.03, hspace=0.04)
    figure = Figure(figsize=(width, height), layout=layout)
    figure._fishlens = True  # type: ignore[attr-defined]  # ours as a whole: the legend may stand outside the panels
    return figure


@dataclass(frozen=True)
class SeriesStyle:
    color: str
    marker: str
    line: LineStyle
    hatch: str


_DASH = (0.0, (4.0, 1.5))
_DASH_DOT = (0.0, (5.0, 1.5, 1.0, 1.5))
_DOTS = (0.0, (1.0, 1.2))
_LONG_SHORT = (0.0, (7.0, 1.5, 2.5, 1.5))

# Okabe and Ito's colours without the yellow (too light on paper) and with a grey for the baseline.
_KNOWN = {
    "standard": SeriesStyle("#7a7f87", "o", "solid", ""),
    "lpft": SeriesStyle("#009e73", "v", _DASH_DOT, "xxx"),
    "gu": SeriesStyle("#0072b2", "s", _DASH, "///"),
    "gu-reverse": SeriesStyle("#56b4e9", "D", _DOTS, "\\\\\\"),
    "random": SeriesStyle("#cc79a7", "^", _LONG_SHORT, ".."),
    "fixed": SeriesStyle("#e69f00", "P", _DASH, "+++"),
    "fun": SeriesStyle("#d55e00", "X", "solid", "---"),
    "surgical": SeriesStyle("#56b4e9", "<", _DASH_DOT, "|||"),
    "auto-rgn": SeriesStyle("#009e73", ">", _DASH, "oo"),
    "full": SeriesStyle("#e69f00", "*", _DOTS, "OO"),
}
_COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a7f87"]
_MARKERS = ["o", "s", "^", "D", "v", "X", "P", "<", ">", "*"]
_LINES: list[LineStyle] = ["solid", _DASH, _DASH_DOT, _DOTS, _LONG_SHORT]
_HATCHES = ["", "///", "xxx", "..", "\\\\\\", "---", "+++", "|||"]


def schedule_order(names: Iterable[str]) -> list[str]:
    """Known schedules in the paper's order (baseline first), then all others by name; each once."""
    place = {name: i for i, name in enumerate(_KNOWN)}
    found = {str(name) for name in names}
    return sorted(found, key=lambda name: (place.get(name.split(" (")[0], len(place)), _natural(name)))


def _natural(name: str) -> list[tuple[bool, float, str]]:
    """A key that puts `every 5` before `every 20`."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdigit(), float(part) if part.isdigit() else 0.0, part) for part in parts]


def series_styles(names: Iterable[str]) -> dict[str, SeriesStyle]:
    """One style for each name. A known schedule looks the same in every figure, whatever stands beside it."""
    ordered = schedule_order(names)
    styles = {name: _KNOWN[name] for name in ordered if name in _KNOWN}
    taken = styles.values()
    colors = [color for color in _COLORS if color not in {style.color for style in taken}] or _COLORS
    markers = [marker for marker in _MARKERS if marker not in {style.marker for style in taken}] or _MARKERS
    for i, name in enumerate(name for name in ordered if name not in _KNOWN):
        line, hatch = _LINES[i % len(_LINES)], _HATCHES[(i + 1) % len(_HATCHES)]
        styles[name] = SeriesStyle(colors[i % len(colors)], markers[i % len(markers)], line, hatch)
    return styles


def legend_above(figure: Figure, axes: Axes, *, always: bool = False) -> None:
    """The legend of `axes` above everything, in as many columns as have room; the figure grows by it.

    In a figure that has other panels (the caller's) it stands above these axes.
    """
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) < (1 if always else 2):
        return
    width, height = figure.get_size_inches()
    size = float(matplotlib.rcParams["legend.fontsize"]) / (_TYPE - 0.5)
    column = (0.42 + 0.052 * max(map(len, labels))) * size
    columns = max(1, min(len(labels), int(width / column)))
    if not isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine) or not getattr(
        figure, "_fishlens", False
    ):
        axes.legend(
            handles, labels, loc="lower left", bbox_to_anchor=(0, 1.01), ncols=columns, borderaxespad=0
        )
        return
    figure.set_size_inches(width, height + 0.13 * size * -(-len(labels) // columns) + 0.05)
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, borderaxespad=0.1)


def log_axis(axis: Axis, low: float, high: float) -> None:
    """Numbers at 1, 2 and 5 of each decade where decades alone would leave an axis nearly without numbers."""
    decades = math.floor(math.log10(high)) - math.ceil(math.log10(low)) + 1
    if decades < 3:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(lambda value, _: f"{value:.3g}")
    axis.set_minor_formatter(NullFormatter())


def log_values(axes: Axes) -> None:
    """A logarithmic vertical axis that ends a decade below the lowest line: the band of a run that learnt nothing would
    take most of it otherwise."""
    axes.set_yscale("log")
    drawn = [np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()]
    heights = np.concatenate([y[np.isfinite(y) & (y > 0)] for y in drawn if len(y) > 2] or [np.empty(0)])
    low, high = axes.get_ylim()
    if len(heights) and low < heights.min() / 10:
        axes.set_ylim(heights.min() / 10, high)
    log_axis(axes.yaxis, *axes.get_ylim())


def block_labels(blocks: Sequence[str]) -> tuple[str, list[str]]:
    """Blocks as short labels and what was taken off all of them: `layer.0, layer.1` → `"layer."`, `0, 1`."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*blocks, strict=False))
    prefix = "".join(letters[0] for letters in alike) if len(blocks) > 1 else ""
    prefix = prefix[: max(prefix.rfind("."), prefix.rfind("_"), prefix.rfind("/")) + 1]
    return shortened(prefix), [shortened(block[len(prefix) :], 16) for block in blocks]


def shortened(name: str, room: int = 22) -> str:
    """A name as a figure shows it: one line, the middle of a long one left out, "$" a dollar sign; letters that no font
    here has, as their numbers."""
    name = " ".join(str(name).split())
    if len(name) > room:
        head = (room - 1) // 2
        name = f"{name[:head]}…{name[-(room - 1 - head) :]}"
    return readable(name).replace("$", r"\$")
