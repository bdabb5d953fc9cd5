"""In which order a schedule unfroze the blocks (the paper's Figure 5)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import (
    COLUMN,
    PAGE,
    block_labels,
    canvas,
    new_figure,
    schedule_order,
    series_styles,
    shortened,
    small,
    styled,
)


@styled
def unfreezing_order(
    order: pd.DataFrame, blocks: list[str], *, width: float = PAGE, ax: Axes | None = None
) -> Figure:
    """A grid of schedule × block: the place of the block in the order (1 = first), mean over runs.

    Args:
        order: columns `schedule`, `run`, `block`, `position` (1 for the first block unfrozen; blocks unfrozen
            together share the mean of their places).
        blocks: bottom to top.
    """
    schedules = schedule_order(order["schedule"].unique())
    means = order.groupby(["schedule", "block"])["position"].mean().unstack("block")
    grid = means.reindex(index=schedules, columns=blocks).to_numpy(dtype=float)
    figure, axes = canvas(ax, width, 0.21 * len(schedules) + 0.85)
    image = axes.imshow(grid, cmap="cividis_r", vmin=1, vmax=max(2, len(blocks)), aspect="auto")
    for i, j in np.ndindex(*grid.shape):
        if np.isfinite(grid[i, j]):
            dark = grid[i, j] > 0.5 * (1 + len(blocks))
            text = f"{grid[i, j]:.1f}".removesuffix(".0")
            axes.text(
                j, i, text, ha="center", va="center", fontsize=small(), color="#ffffff" if dark else "#000000"
            )
    axes.set_yticks(range(len(schedules)), [shortened(name) for name in schedules])
    _block_axis(axes, blocks)
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=12)
    bar.set_label("unfrozen as no.")
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


@styled
def order_against_top_down(order: pd.DataFrame, blocks: list[str], *, width: float = COLUMN) -> Figure:
    """Place of each block in a schedule's order against its place in the top-down order (the diagonal, `gu`).

    Mean over runs, bars from the lowest to the highest place that any run gave the block.

    Args:
        order: as for `unfreezing_order`.
        blocks: bottom to top.
    """
    schedules = schedule_order(order["schedule"].unique())
    styles = series_styles(schedules)
    count = len(blocks)
    columns = max(1, min(len(schedules), round(width / 1.65)))
    rows = -(-len(schedules) // columns)
    size = min(1.9, (width - 0.45) / columns)
    figure = new_figure(columns * size + 0.45, rows * (size + 0.1) + 0.4)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    top_down = {name: count - i for i, name in enumerate(blocks)}
    for axes, name in zip(panels.flat, schedules, strict=False):
        axes.plot([1, count], [1, count], color="#8a8d91", linewidth=0.7, linestyle=(0, (2, 2)))
        spread = order[order["schedule"] == name].groupby("block")["position"].agg(["mean", "min", "max"])
        spread = spread[spread.index.isin(top_down)]
        x = np.array([top_down[block] for block in spread.index], dtype=float)
        mean = spread["mean"].to_numpy()
        error = np.array([mean - spread["min"], spread["max"] - mean])
        style = styles[name]
        axes.errorbar(
            x,
            mean,
            error,
            fmt=style.marker,
            color=style.color,
            ecolor=style.color,
            elinewidth=0.7,
            capsize=1.5,
            mec="none",
        )
        axes.set_title(shortened(name), pad=2)
        ticks = np.unique(np.linspace(1, count, count if count <= 8 else 5).round().astype(int))
        axes.set_xticks(ticks)
        axes.set_yticks(ticks)
        axes.set_xlim(0.3, count + 0.7)
        axes.set_ylim(0.3, count + 0.7)
        axes.set_aspect("equal")
    for axes in list(panels.flat)[len(schedules) :]:
        axes.set_axis_off()
    figure.supxlabel("place in the top-down order", fontsize=small(0))
    figure.supylabel("place in this schedule", fontsize=small(0))
    return figure


def _block_axis(axes: Axes, blocks: list[str]) -> None:
    """Names along the horizontal axis, slanted where they are too long to stand side by side."""
    prefix, labels = block_labels(blocks)
    crowded = max(map(len, labels)) * len(labels) > 90
    axes.set_xticks(
        range(len(labels)),
        labels,
        rotation=40 if crowded else 0,
        ha="right" if crowded else "center",
        rotation_mode="anchor",
    )
    axes.set_xlabel(f"block {prefix}*, bottom to top" if prefix else "block, bottom to top")
