"""tr(F) over the steps of training (the paper's Figures 3 and 4)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .bands import Band, band_over_runs, drawable_as_log
from .style import (
    PAGE,
    SeriesStyle,
    canvas,
    legend_above,
    log_values,
    new_figure,
    schedule_order,
    series_styles,
    shortened,
    styled,
)

MARKS = 7  # markers along a line


@styled
def trace_over_steps(
    curves: pd.DataFrame,
    unfreezing: pd.DataFrame | None = None,
    *,
    label: str = "tr(F)",
    width: float = PAGE,
    ax: Axes | None = None,
) -> Figure:
    """tr(F) over steps, one line and one band over seeds per schedule, and below when blocks were unfrozen.

    Args:
        curves: columns `schedule`, `run`, `step`, `value`: one value per run and probe.
        unfreezing: columns `schedule`, `step`: one row per unfreezing event of any run.
        label: of the vertical axis.
        width: in inches.
        ax: draw into these axes, without the strip of unfreezing below.
    """
    schedules = schedule_order(curves["schedule"].unique())
    styles = series_styles(schedules)
    marked = (
        []
        if unfreezing is None or ax is not None
        else [s for s in schedules if (unfreezing["schedule"] == s).any()]
    )
    strip = 0.16 * len(marked) + 0.15
    height = max(width * 0.34, 1.3)
    if marked:
        figure = new_figure(width, height + 0.35 + strip)
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=[height, strip])
    else:
        (figure, top), below = canvas(ax, width, height + 0.35), None
    log = drawable_as_log(curves["value"])
    for name in schedules:
        band = band_over_runs(curves[curves["schedule"] == name], log=log)
        if band is not None:
            _draw_band(top, band, styles[name], f"{shortened(name)} ({band.runs})")
    _value_axis(top, label, log)
    if below is None:
        top.set_xlabel("training step")
    else:
        assert unfreezing is not None
        _unfreezing_strip(below, unfreezing, marked, styles)
    legend_above(figure, top)
    return figure


@styled
def trace_with_validation(
    curves: pd.DataFrame,
    validation: pd.DataFrame,
    *,
    label: str = "tr(F) per trainable block",
    score: str = "validation score (points)",
    width: float = PAGE,
    ax: tuple[Axes, Axes] | None = None,
) -> Figure:
    """Normalised tr(F) above the validation curve, on one time axis; vertical lines stand at peaks of tr(F).

    A curve that is highest at its last probe has no peak yet: a triangle stands at its end instead. The axis of the
    scores begins where the lowest line of the second half is: the first scores, which all schedules share, would take
    most of it.

    Args:
        curves: columns `schedule`, `run`, `step`, `value`.
        validation: the same columns; `value` in points.
        ax: the upper and the lower axes.
    """
    schedules = schedule_order(curves["schedule"].unique())
    styles = series_styles([*schedules, *validation["schedule"].unique()])
    if ax is None:
        figure = new_figure(width, max(width * 0.46, 2.3) + 0.35)
        top, below = figure.subplots(2, 1, sharex=True)
    else:
        (top, below), figure = ax, canvas(ax[0], width, width)[0]
    lowest = np.inf
    log = drawable_as_log(curves["value"])
    for name in schedules:
        band = band_over_runs(curves[curves["schedule"] == name], log=log)
        if band is None:
            continue
        _draw_band(top, band, styles[name], f"{shortened(name)} ({band.runs})")
        _mark_peak((top, below), band, styles[name])
        scores = band_over_runs(validation[validation["schedule"] == name], log=False)
        if scores is not None:
            _draw_band(below, scores, styles[name], name)
            late = scores.steps >= (scores.steps[0] + scores.steps[-1]) / 2
            lowest = min(lowest, float(np.nanmin(scores.center[late])))
    _value_axis(top, label, log)
    below.set_ylabel(score)
    below.set_xlabel("training step")
    below.yaxis.set_major_locator(MaxNLocator(5))
    below.grid(axis="y")
    _begin_at(below, lowest)
    legend_above(figure, top)
    return figure


def _mark_peak(panels: tuple[Axes, Axes], band: Band, style: SeriesStyle) -> None:
    """A line where the curve is highest, or at its end a triangle where that is at the last probe."""
    at = int(np.nanargmax(band.center))
    last = int(np.flatnonzero(np.isfinite(band.center))[-1])
    if at == last and last > 0:
        panels[0].plot(
            band.steps[at],
            band.center[at],
            marker=(3, 0, -90),
            color=style.color,
            markersize=6,
            clip_on=False,
            zorder=5,
        )
        return
    for axes in panels:
        axes.axvline(band.steps[at], color=style.color, linewidth=0.7, linestyle=style.line, alpha=0.55)


def _begin_at(axes: Axes, lowest: float) -> None:
    """The vertical axis from just below `lowest`, where the values below it would take a third of it or more."""
    low, high = axes.get_ylim()
    if np.isfinite(lowest) and lowest - low > (high - low) / 3:
        axes.set_ylim(lowest - 0.05 * (high - lowest), high)


def _draw_band(axes: Axes, band: Band, style: SeriesStyle, label: str) -> None:
    if band.runs > 1:
        axes.fill_between(band.steps, band.low, band.high, color=style.color, alpha=0.16, linewidth=0)
    every = max(1, len(band.steps) // MARKS)
    # markers of different series stand at different steps, so that none hides another
    start = (sum(map(ord, style.color + style.marker)) % every) if every > 1 else 0
    axes.plot(
        band.steps,
        band.center,
        color=style.color,
        linestyle=style.line,
        marker=style.marker,
        markevery=(start, every),
        markeredgecolor="none",
        label=label,
    )


def _value_axis(axes: Axes, label: str, log: bool) -> None:
    axes.set_ylabel(label)
    axes.margins(x=0.01)
    axes.grid(axis="y")
    if not log:
        axes.yaxis.set_major_locator(MaxNLocator(5))
        return
    log_values(axes)


def _unfreezing_strip(
    axes: Axes, unfreezing: pd.DataFrame, schedules: list[str], styles: dict[str, SeriesStyle]
) -> None:
    """One row per schedule: a tick at each step at which a run of it unfroze something."""
    for row, name in enumerate(schedules):
        steps = np.unique(unfreezing.loc[unfreezing["schedule"] == name, "step"].to_numpy(dtype=float))
        axes.plot(steps, np.full(len(steps), row), "|", color=styles[name].color, markersize=5.5, mew=1.1)
    axes.set_yticks(range(len(schedules)), [shortened(name, 14) for name in schedules])
    axes.set_ylim(len(schedules) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("training step  (ticks: blocks unfrozen)")
