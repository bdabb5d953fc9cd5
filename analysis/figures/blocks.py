"""tr(F) of every block at every step, as a map: where in the network the information sits, and when."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from .bands import drawable_as_log
from .style import PAGE, block_labels, new_figure, schedule_order, shortened, styled

BINS = 120
NOT_MEASURED = "#c9ccd0"


@styled
def block_heat_map(
    fisher: pd.DataFrame,
    blocks: list[str],
    thawed: pd.DataFrame | None = None,
    *,
    label: str = "tr(F) of the block",
    width: float = PAGE,
) -> Figure:
    """One panel per schedule: blocks from bottom to top against steps, shade = mean tr(F) over the runs.

    Frozen blocks are measured too. White bars stand where a run unfroze a block.

    Args:
        fisher: columns `schedule`, `step`, `block`, `trace`.
        blocks: their order, bottom to top.
        thawed: columns `schedule`, `block`, `step`: when each run unfroze each block.
    """
    schedules = schedule_order(fisher["schedule"].unique())
    columns = min(3, len(schedules))
    rows = -(-len(schedules) // columns)
    figure = new_figure(width, rows * (0.085 * max(len(blocks), 9) + 0.45) + 0.35)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    log = drawable_as_log(fisher["trace"])
    steps = fisher["step"].to_numpy(dtype=float)
    edges = _edges(np.unique(steps))
    maps = {name: _map_of(fisher[fisher["schedule"] == name], blocks, edges, log) for name in schedules}
    shown = np.concatenate([m[np.isfinite(m)] for m in maps.values()])
    norm = _norm(shown, log)
    image = None
    for axes, name in zip(panels.flat, schedules, strict=False):
        image = axes.imshow(
            maps[name],
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            extent=(edges[0], edges[-1], -0.5, len(blocks) - 0.5),
            cmap="viridis",
            norm=norm,
        )
        axes.set_title(shortened(name), pad=2)
        axes.set_facecolor(NOT_MEASURED)
        if thawed is not None:
            _mark_thawing(axes, thawed[thawed["schedule"] == name], blocks)
    for place, axes in enumerate(panels.flat):
        axes.set_xlim(edges[0], edges[-1])
        axes.tick_params(axis="x", labelbottom=place + columns >= len(schedules))
        if place >= len(schedules):
            axes.set_axis_off()
    prefix = _label_blocks(panels, blocks)
    figure.supylabel(f"block {prefix}*" if prefix else "block", fontsize=7)
    figure.supxlabel("training step", fontsize=7)
    if image is not None:
        bar = figure.colorbar(image, ax=panels, shrink=0.9, pad=0.015, aspect=30)
        bar.set_label(label)
        bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def _edges(steps: np.ndarray) -> np.ndarray:
    """Edges of equal bins around the steps: one a probe where there is room, `BINS` otherwise."""
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    half = (steps[-1] - steps[0]) / (len(steps) - 1) / 2
    return np.linspace(steps[0] - half, steps[-1] + half, min(len(steps), BINS) + 1)


def _map_of(fisher: pd.DataFrame, blocks: list[str], edges: np.ndarray, log: bool) -> np.ndarray:
    """Mean trace per block and bin, `[blocks, bins]`: geometric where `log`, NaN where empty."""
    place = {name: i for i, name in enumerate(blocks)}
    row = fisher["block"].map(place).to_numpy(dtype=float)
    value = fisher["trace"].to_numpy(dtype=float)
    good = np.isfinite(row) & np.isfinite(value) & (value > 0 if log else True)
    row, value = row[good].astype(int), value[good]
    column = np.clip(
        np.searchsorted(edges, fisher["step"].to_numpy(dtype=float)[good], side="right") - 1,
        0,
        len(edges) - 2,
    )
    flat = row * (len(edges) - 1) + column
    size = len(blocks) * (len(edges) - 1)
    total = np.bincount(flat, weights=np.log(value) if log else value, minlength=size)
    count = np.bincount(flat, minlength=size)
    with np.errstate(invalid="ignore"):
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    shown = (np.exp(mean) if log else mean).reshape(len(blocks), -1)
    return _bridged(shown, edges, np.unique(fisher["step"].to_numpy(dtype=float)[good]))


def _bridged(shown: np.ndarray, edges: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Bins that fall between two probes of this panel (others were probed at more steps) show the nearer one."""
    if len(steps) < 2:
        return shown
    centers = (edges[:-1] + edges[1:]) / 2
    nearest = steps[np.abs(centers[:, None] - steps).argmin(axis=1)]
    source = np.clip(np.searchsorted(edges, nearest, side="right") - 1, 0, len(centers) - 1)
    between = np.isnan(shown).all(axis=0) & (np.abs(centers - nearest) <= np.median(np.diff(steps)))
    return np.where(between, shown[:, source], shown)


def _norm(shown: np.ndarray, log: bool) -> Normalize:
    """From the 1st percentile up: one block that is nearly zero at one step must not flatten all others."""
    if not len(shown):
        return Normalize(0, 1)
    low, high = float(np.quantile(shown, 0.01)), float(shown.max())
    if log:
        return LogNorm(low, high if high > low else low * 1.01)
    return Normalize(low, high if high > low else low + 1)


def _mark_thawing(axes: Axes, thawed: pd.DataFrame, blocks: list[str]) -> None:
    place = {name: i for i, name in enumerate(blocks)}
    when = thawed[thawed["block"].isin(place)][["block", "step"]].drop_duplicates()
    rows = when["block"].map(place).to_numpy(dtype=float)
    steps = when["step"].to_numpy(dtype=float)
    axes.vlines(steps, rows - 0.42, rows + 0.42, color="#000000", linewidth=1.6)
    axes.vlines(steps, rows - 0.42, rows + 0.42, color="#ffffff", linewidth=0.8)


def _label_blocks(panels: np.ndarray, blocks: list[str]) -> str:
    """Puts labels beside the first panel of each row; returns what they have in common and do not show."""
    every = max(1, -(-len(blocks) // 8))
    prefix, labels = block_labels(blocks)
    for axes in panels[:, 0]:
        axes.set_yticks(range(0, len(blocks), every), labels[::every])
    for axes in panels.flat:
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(axis="x", length=1.5)
        axes.tick_params(axis="y", length=0)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
    return prefix
