"""How all figures look: sizes in inches, type in points, and one fixed style for each schedule."""

import functools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, ParamSpec, TypeAlias

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullFormatter

COLUMN = 3.3  # width of one column of a two-column paper, in inches
PAGE = 6.9  # width of both columns

# Colours that nothing else uses: a page may exchange them for its own (see `svg.inline_svg`).
INK = "#1b1c1d"
GRID = "#d9dadb"
PAPER = "#fefefd"

_TYPE = 7.0
_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": _TYPE,
    "axes.titlesize": _TYPE + 0.5,
    "axes.labelsize": _TYPE,
    "xtick.labelsize": _TYPE - 0.5,
    "ytick.labelsize": _TYPE - 0.5,
    "legend.fontsize": _TYPE - 0.5,
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
    "svg.fonttype": "path",
    "svg.hashsalt": "fishlens",
    "axes.unicode_minus": True,
}

_P = ParamSpec("_P")
LineStyle: TypeAlias = str | tuple[float, tuple[float, ...]]
_ONE_AT_A_TIME = threading.RLock()


def styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Draw under the settings above, and leave the caller's matplotlib settings as they were."""

    @functools.wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with settings():
            return draw(*args, **kwargs)

    return drawn


@contextmanager
def settings() -> Iterator[None]:
    """The settings above for a while. matplotlib has one set for the whole process: one thread at a time."""
    with _ONE_AT_A_TIME, matplotlib.rc_context(_RC):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure whose parts keep out of each other's way (constrained layout)."""
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.03, hspace=0.04)
    return Figure(figsize=(width, height), layout=layout)


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
    found = {str(name) for name in names}
    known = [name for name in _KNOWN if name in found]
    return known + sorted(found - set(known))


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


def legend_above(figure: Figure, axes: Axes) -> None:
    """The legend of `axes` above everything, in as many columns as have room; the figure grows by it."""
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) < 2:
        return
    width, height = figure.get_size_inches()
    column = 0.42 + 0.052 * max(map(len, labels))
    columns = max(1, min(len(labels), int(width / column)))
    figure.set_size_inches(width, height + 0.13 * -(-len(labels) // columns) + 0.05)
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, borderaxespad=0.1)


def log_axis(axis: Axis, low: float, high: float) -> None:
    """Numbers at 1, 2 and 5 of each decade where decades alone would leave an axis nearly without numbers."""
    decades = math.floor(math.log10(high)) - math.ceil(math.log10(low)) + 1
    if decades < 3:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(lambda value, _: f"{value:.3g}")
    axis.set_minor_formatter(NullFormatter())


def block_labels(blocks: Sequence[str]) -> tuple[str, list[str]]:
    """Blocks as short labels and what was taken off all of them: `layer.0, layer.1` → `"layer."`, `0, 1`."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*blocks, strict=False))
    prefix = "".join(letters[0] for letters in alike) if len(blocks) > 1 else ""
    prefix = prefix[: max(prefix.rfind("."), prefix.rfind("_"), prefix.rfind("/")) + 1]
    return shortened(prefix), [shortened(block[len(prefix) :], 16) for block in blocks]


def shortened(name: str, room: int = 22) -> str:
    """A name as a figure shows it: one line, the middle of a long one left out, "$" a dollar sign."""
    name = " ".join(str(name).split())
    if len(name) > room:
        head = (room - 1) // 2
        name = f"{name[:head]}…{name[-(room - 1 - head) :]}"
    return name.replace("$", r"\$")
