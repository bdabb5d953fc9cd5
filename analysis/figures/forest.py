"""Coefficients with their intervals, one line each."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from .style import INK, PAGE, canvas, legend_above, shortened, styled

_MARKERS = ("s", "D", "o", "^")
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


@styled
def forest(
    rows: pd.DataFrame, *, label: str = "Spearman's ρ", width: float = PAGE * 0.75, ax: Axes | None = None
) -> Figure:
    """A point and an interval for each row, those of one label under one another.

    Args:
        rows: columns `label`, `series`, `estimate`, `low`, `high` (NaN: no interval is drawn), in the order shown. A
            series called like another and more, `within schedules, given the baselines`, is the other's with open
            points.
        label: of the horizontal axis.
    """
    labels = list(dict.fromkeys(rows["label"]))
    series = list(dict.fromkeys(rows["series"]))
    step = 0.8 / len(series)
    height = len(labels) * max(0.17, 0.1 * len(series) + 0.04) + 0.45
    figure, axes = canvas(ax, width, height)
    axes.axvline(0, color=INK, linewidth=0.6)
    place = {name: i for i, name in enumerate(labels)}
    for i, name in enumerate(series):
        part = rows[rows["series"] == name]
        y = part["label"].map(place).to_numpy(dtype=float) + (i - (len(series) - 1) / 2) * step
        x = part["estimate"].to_numpy(dtype=float)
        ends = np.array([x - part["low"], part["high"] - x], dtype=float)
        of = next((other for other in series if name.startswith(f"{other}, ")), name)
        look = {"marker": _MARKERS[series.index(of) % 4], "color": _COLORS[series.index(of) % 4]}
        look |= {} if of == name else {"markerfacecolor": "none"}
        axes.errorbar(
            x, y, xerr=np.clip(np.nan_to_num(ends), 0, None), fmt="none", ecolor=look["color"], elinewidth=0.9
        )
        axes.plot(x, y, linestyle="none", label=name, **look)  # type: ignore[arg-type]
    axes.set_yticks(range(len(labels)), [shortened(name, 30) for name in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(-1.05, 1.05)
    axes.xaxis.set_major_locator(MultipleLocator(0.5))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set_xlabel(label)
    legend_above(figure, axes, always=True)
    return figure
