"""Scores: schedules against a baseline (the paper's Figure 2), and every language under every schedule."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from .style import (
    COLUMN,
    INK,
    PAGE,
    canvas,
    legend_above,
    schedule_order,
    series_styles,
    shortened,
    small,
    styled,
)


@styled
def relative_performance(
    differences: pd.DataFrame, *, baseline: str, width: float = COLUMN, ax: Axes | None = None
) -> Figure:
    """Bars of the difference to the baseline in points, with intervals, grouped by outcome.

    Args:
        differences: columns `outcome`, `schedule`, `difference`, `low`, `high` (NaN: no interval is drawn).
        baseline: name of the schedule that the zero line stands for.
    """
    schedules = [name for name in schedule_order(differences["schedule"].unique()) if name != baseline]
    outcomes = list(dict.fromkeys(differences["outcome"]))
    styles = series_styles([*schedules, baseline])
    figure, axes = canvas(ax, width, 0.5 * width + 0.45)
    axes.axhline(0, color=INK, linewidth=0.6)
    breadth = 0.8 / max(1, len(schedules))
    for i, name in enumerate(schedules):
        rows = differences[differences["schedule"] == name].drop_duplicates("outcome").set_index("outcome")
        rows = rows.reindex(outcomes)
        x = np.arange(len(outcomes)) + (i - (len(schedules) - 1) / 2) * breadth
        height = rows["difference"].to_numpy(dtype=float)
        axes.bar(
            x,
            height,
            breadth * 0.92,
            label=shortened(name),
            facecolor=styles[name].color,
            edgecolor=INK,
            linewidth=0.4,
            hatch=styles[name].hatch,
            alpha=0.9,
        )
        error = np.array([height - rows["low"], rows["high"] - height], dtype=float)
        axes.errorbar(x, height, np.clip(error, 0, None), fmt="none", ecolor=INK, elinewidth=0.8, capsize=1.6)
    axes.set_xticks(range(len(outcomes)), outcomes)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(f"difference to {shortened(baseline, 16)} (points)")
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    legend_above(figure, axes)
    return figure


@styled
def language_grid(
    scores: pd.DataFrame, *, baseline: str | None = None, width: float = COLUMN, ax: Axes | None = None
) -> Figure:
    """A grid of language × schedule: mean score in points, shade = difference to the baseline's mean.

    Languages are sorted by the baseline's score, highest first. Without a baseline the shade is the score.

    Args:
        scores: columns `schedule`, `language`, `value` (points): one row per run and language; with `seed` the shade is
            the mean difference on the seeds that both have.
    """
    schedules = schedule_order(scores["schedule"].unique())
    means = (
        scores.groupby(["language", "schedule"])["value"]
        .mean()
        .unstack("schedule")
        .reindex(columns=schedules)
    )
    by = means[baseline] if baseline in means else means.mean(axis=1)
    means = means.loc[by.sort_values(ascending=False).index]
    grid = means.to_numpy(dtype=float)
    shade, norm, colors, label = _shades(means, baseline, _differences(scores, means, baseline))
    wanted = max(width, 0.9 + 0.42 * len(schedules))
    figure, axes = canvas(ax, min(wanted, PAGE), max(0.155 * len(means), 1.1) + 0.85)
    image = axes.imshow(shade, cmap=colors, norm=norm, aspect="auto")
    for i, j in np.ndindex(*grid.shape):
        if np.isfinite(grid[i, j]):
            axes.text(
                j,
                i,
                f"{grid[i, j]:.1f}",
                ha="center",
                va="center",
                fontsize=small(),
                color=_ink_on(image, shade[i, j]),
            )
    axes.set_xticks(
        range(len(schedules)),
        [shortened(s, 14) for s in schedules],
        rotation=30,
        ha="left",
        rotation_mode="anchor",
    )
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(means)), [shortened(str(language), 14) for language in means.index])
    axes.tick_params(length=0)
    for side in ("left", "bottom", "top"):
        axes.spines[side].set_visible(False)
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=25)
    bar.set_label(label)
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def _differences(scores: pd.DataFrame, means: pd.DataFrame, baseline: str | None) -> np.ndarray | None:
    """To the baseline, of each language and schedule; by seed where rows say theirs."""
    if baseline not in means or means.shape[1] < 2:
        return None
    if "seed" not in scores:
        return means.sub(means[baseline], axis=0).to_numpy(dtype=float)
    of_seed = scores.pivot(index=["language", "seed"], columns="schedule", values="value")
    apart = of_seed.sub(of_seed[baseline], axis=0).groupby(level="language").mean()
    return apart.reindex(index=means.index, columns=means.columns).to_numpy(dtype=float)


def _shades(
    means: pd.DataFrame, baseline: str | None, differences: np.ndarray | None
) -> tuple[np.ndarray, Normalize, str, str]:
    if differences is not None:
        shade = differences
        most = float(np.nanmax(np.abs(shade), initial=0.0)) or 1.0
        return shade, TwoSlopeNorm(0, -most, most), "PuOr_r", "difference (points)"
    shade = means.to_numpy(dtype=float)
    known = shade[np.isfinite(shade)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    return shade, Normalize(low, high if high > low else low + 1), "cividis", "score (points)"


def _ink_on(image: AxesImage, value: float) -> str:
    """Black or white, whichever can be read on the colour that stands for `value`."""
    if math.isnan(value):
        return "#000000"
    red, green, blue, _ = image.to_rgba(np.array([value]))[0]
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "#ffffff"
