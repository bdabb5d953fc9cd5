"""One point per run: a feature of its Fisher curve against how well it transferred."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import (
    COLUMN,
    INK,
    legend_above,
    log_axis,
    new_figure,
    schedule_order,
    series_styles,
    shortened,
    styled,
)


@styled
def correlation_scatter(
    points: pd.DataFrame,
    *,
    feature: str,
    outcome: str,
    summary: str = "",
    log: bool = False,
    width: float = COLUMN,
) -> Figure:
    """A scatter of runs, coloured by schedule, with the least-squares line and the coefficient in words.

    Args:
        points: columns `schedule`, `x`, `y`: one row per run. Rows with NaN are left out.
        feature, outcome: axis labels, with units.
        summary: the coefficient with its interval, as computed elsewhere; shown inside the figure's title.
        log: draw (and fit) over the logarithm of `x`.
    """
    points = points[np.isfinite(points["x"]) & np.isfinite(points["y"])]
    if log:
        points = points[points["x"] > 0]
    figure = new_figure(width, width * 0.66 + 0.3)
    axes = figure.subplots()
    styles = series_styles(points["schedule"].unique())
    for name in schedule_order(points["schedule"].unique()):
        part = points[points["schedule"] == name]
        axes.scatter(
            part["x"],
            part["y"],
            s=13,
            marker=styles[name].marker,
            color=styles[name].color,
            linewidths=0,
            alpha=0.85,
            label=f"{shortened(name)} ({len(part)})",
        )
    if log:
        axes.set_xscale("log")
        log_axis(axes.xaxis, *axes.get_xlim())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    x = np.log(points["x"].to_numpy(dtype=float)) if log else points["x"].to_numpy(dtype=float)
    if len(points) > 2 and np.ptp(x) > 0:
        slope, intercept = np.polyfit(x, points["y"].to_numpy(dtype=float), 1)
        ends = np.array([x.min(), x.max()])
        axes.plot(np.exp(ends) if log else ends, intercept + slope * ends, color=INK, linewidth=0.8, zorder=1)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(feature)
    axes.set_ylabel(outcome)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    if summary:
        axes.set_title(summary, loc="left", fontsize=6.5, pad=3)
    legend_above(figure, axes)
    return figure
