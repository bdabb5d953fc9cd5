"""One point per run: a feature of its Fisher curve against how well it transferred."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import (
    COLUMN,
    INK,
    SeriesStyle,
    canvas,
    legend_above,
    log_axis,
    schedule_order,
    series_styles,
    shortened,
    small,
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
    within: bool = False,
    width: float = COLUMN,
    ax: Axes | None = None,
) -> Figure:
    """A scatter of runs, coloured by schedule, with least-squares lines and the coefficient in words.

    Args:
        points: columns `schedule`, `x`, `y`: one row per run. Rows with NaN are left out.
        feature, outcome: axis labels, with units.
        summary: the coefficient with its interval, as computed elsewhere; shown above the figure.
        log: draw (and fit) over the logarithm of `x`.
        within: one slope for all schedules and a level for each, instead of one line for all runs; crosses at means.
    """
    points = points[np.isfinite(points["x"]) & np.isfinite(points["y"])]
    if log:
        points = points[points["x"] > 0]
    figure, axes = canvas(ax, width, width * 0.66 + 0.3)
    schedules = schedule_order(points["schedule"].unique())
    styles = series_styles(schedules)
    for name in schedules:
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
    _lines(axes, points, styles if within else {}, log)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(feature)
    axes.set_ylabel(outcome)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    if summary and ax is None:
        axes.set_title(summary, loc="left", fontsize=small(0.5), pad=3)
    legend_above(figure, axes)
    return figure


def _lines(axes: Axes, points: pd.DataFrame, styles: dict[str, SeriesStyle], log: bool) -> None:
    """Least-squares lines: one of all points, or with `styles` one a schedule, all of one slope."""
    x = np.log(points["x"].to_numpy(dtype=float)) if log else points["x"].to_numpy(dtype=float)
    y = points["y"].to_numpy(dtype=float)
    back = np.exp if log else np.asarray
    if len(points) < 3 or np.ptp(x) == 0:
        return
    if not styles:
        slope, intercept = np.polyfit(x, y, 1)
        ends = np.array([x.min(), x.max()])
        axes.plot(back(ends), intercept + slope * ends, color=INK, linewidth=0.8, zorder=1)
        return
    frame = pd.DataFrame({"x": x, "y": y, "schedule": points["schedule"].to_numpy()})
    means = frame.groupby("schedule")[["x", "y"]].transform("mean")
    inside = frame[["x", "y"]] - means
    spread = float((inside["x"] ** 2).sum())
    slope = float((inside["x"] * inside["y"]).sum()) / spread if spread > 0 else np.nan
    for name, part in frame.groupby("schedule"):
        look = styles[str(name)]
        middle, level = part["x"].mean(), part["y"].mean()
        ends = np.array([part["x"].min(), part["x"].max()])
        if len(part) > 1 and np.isfinite(slope):
            axes.plot(back(ends), level + slope * (ends - middle), color=look.color, linewidth=0.9, zorder=1)
        axes.plot(back(middle), level, "+", color=look.color, markersize=6, markeredgewidth=1.0, zorder=3)
