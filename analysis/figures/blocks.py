"""tr(F) of every block at every step, as a map: where in the network the information sits, and when."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from fishlens.errors import InputError

from .bands import drawable_as_log
from .style import (
    COLUMN,
    PAGE,
    block_labels,
    canvas,
    legend_above,
    log_values,
    new_figure,
    schedule_order,
    series_styles,
    shortened,
    small,
    styled,
)

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
    ax: Axes | None = None,
) -> Figure:
    """One panel per schedule: blocks from bottom to top against steps, shade = mean tr(F) over the runs.

    Frozen blocks are measured too. White bars stand where a run unfroze a block.

    Args:
        fisher: columns `schedule`, `step`, `block`, `trace`.
        blocks: their order, bottom to top.
        thawed: columns `schedule`, `block`, `step`: when each run unfroze each block.
        ax: for one schedule. Raises `InputError` for several.
    """
    schedules = schedule_order(fisher["schedule"].unique())
    if ax is not None and len(schedules) > 1:
        raise InputError(f"ax is one panel, and these are {len(schedules)} schedules: give the rows of one")
    columns = min(3, len(schedules))
    rows = -(-len(schedules) // columns)
    if ax is None:
        figure = new_figure(width, rows * (0.085 * max(len(blocks), 9) + 0.45) + 0.35)
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    else:
        figure, panels = canvas(ax, width, width)[0], np.array([[ax]])
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
    named = f"block {prefix}*" if prefix else "block"
    if ax is None:
        figure.supylabel(named, fontsize=small(0))
        figure.supxlabel("training step", fontsize=small(0))
    else:
        ax.set_ylabel(named)
        ax.set_xlabel("training step")
    if image is not None:
        bar = figure.colorbar(image, ax=panels if ax is None else ax, shrink=0.9, pad=0.015, aspect=30)
        bar.set_label(label)
        bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


@styled
def blocks_at_the_end(
    traces: pd.DataFrame,
    blocks: list[str],
    *,
    label: str = "tr(F) of the block",
    width: float = COLUMN,
    ax: Axes | None = None,
) -> Figure:
    """tr(F) of every block at the end of training: one line per schedule over the blocks, one band over its runs.

    Args:
        traces: columns `schedule`, `run`, `block`, `trace`: one row per run and block, of its last probe.
        blocks: bottom to top.
    """
    figure, axes = canvas(ax, width, max(width * 0.5, 1.4) + 0.3)
    styles = series_styles(traces["schedule"].unique())
    place = {name: i for i, name in enumerate(blocks)}
    rows = traces.assign(place=traces["block"].astype(str).map(place), value=traces["trace"].astype(float))
    rows = rows[rows["place"].notna() & np.isfinite(rows["value"])]
    log = drawable_as_log(rows["value"])
    rows = rows[rows["value"] > 0].assign(value=lambda r: np.log(r["value"])) if log else rows
    back = np.exp if log else np.asarray
    for name in schedule_order(rows["schedule"].unique()):
        part = rows[rows["schedule"] == name]
        found = part.groupby("place")["value"].agg(["mean", "min", "max"])
        x, look = found.index.to_numpy(dtype=float), styles[name]
        if part["run"].nunique() > 1:
            low, high = back(found["min"].to_numpy()), back(found["max"].to_numpy())
            axes.fill_between(x, low, high, color=look.color, alpha=0.13, linewidth=0)
        axes.plot(
            x, back(found["mean"].to_numpy()), color=look.color, linestyle=look.line, marker=look.marker,
            markeredgecolor="none", label=f"{shortened(name)} ({part['run'].nunique()})",
        )  # fmt: skip
    prefix, labels = block_labels(blocks)
    every = max(1, -(-len(blocks) // 12))
    axes.set_xticks(range(0, len(blocks), every), labels[::every])
    axes.set_xlabel(f"block {prefix}*, bottom to top" if prefix else "block, bottom to top")
    axes.set_ylabel(label)
    axes.grid(axis="y")
    if log:
        log_values(axes)
    legend_above(figure, axes)
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
