"""tr(F) over training as series: of one block, of all blocks together, and as the paper plots it.

The journal holds raw traces of every block, frozen or not. Three ways to make one curve of a run:

- `normalised`: the mean over the blocks that train from that probe on (the paper's plots: tr(F) of the trainable
  parameters divided by the number of trainable blocks). NaN while no block does.
- `trainable`: the sum over the blocks that train from that probe on. It jumps when a block is thawed.
- `all`: the sum over all blocks, frozen ones too. Nothing jumps because of the schedule alone.

A block that an event thaws at a step counts as trainable in the probe of that step: both are of the same weights, and
the trainer probes first and thaws then. The head is not a block of the adapter and is left out unless asked for. A
probe that lost a block it needs is NaN: a partial sum would look like a drop.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from fishlens.errors import InputError
from fishlens.journal import Runs

Array = NDArray[np.float64]
CURVES = ("normalised", "trainable", "all")
HEAD = "head"


@dataclass(frozen=True)
class BlockCurves:
    """The probes of one run: `steps` `[S]` rising, `trace` and `trainable` `[S, B]`, blocks bottom to top."""

    run: str
    blocks: tuple[str, ...]
    steps: NDArray[np.int64]
    trace: Array  # NaN where the block was not measured or its trace was lost
    trainable: NDArray[np.bool_]

    @property
    def layers(self) -> tuple[str, ...]:
        """The blocks that a schedule thaws, bottom to top: all but the head."""
        return tuple(block for block in self.blocks if block != HEAD)

    def series(self, curve: str = "normalised") -> Array:
        """One value per probe, `[S]`; `curve` is one of `CURVES`, in tr(F)'s own unit (per block if normalised)."""
        if curve not in CURVES:
            raise InputError(f"there is no curve {curve!r}; expected one of {', '.join(CURVES)}")
        if curve == "all":
            return self.trace.sum(axis=1)
        total = np.where(self.trainable, self.trace, 0.0).sum(axis=1)
        if curve == "trainable":
            return total
        count = self.trainable.sum(axis=1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def block_curves(
    fisher: pd.DataFrame, unfreezing: pd.DataFrame | None = None, *, head: bool = False
) -> Iterator[BlockCurves]:
    """The block curves of every run in a `Runs.fisher` frame, in the frame's order of runs.

    `unfreezing`: the events of the same runs, which say what trains from a probe's step on.

    Two probes of one block at one step (one to track, one to select): the one over more examples counts.
    """
    if not head:
        fisher = fisher[(fisher["block"] != HEAD).to_numpy()]
    run_codes, run_names = _codes(fisher["run"])
    block_codes, block_names = _codes(fisher["block"])
    steps = fisher["step"].to_numpy()
    trace = fisher["trace"].to_numpy(dtype=float)
    trainable = fisher["trainable"].to_numpy(dtype=bool)
    examples = fisher["examples"].to_numpy(dtype=float) if "examples" in fisher else np.zeros(len(fisher))
    order = np.lexsort((np.nan_to_num(examples), run_codes))  # later assignments win: more examples last
    bounds = np.searchsorted(run_codes[order], np.arange(len(run_names) + 1))
    events: dict[str, list[tuple[str, int]]] = {}
    if unfreezing is not None and len(unfreezing):
        of_events = (unfreezing[name].tolist() for name in ("run", "block", "step"))
        for run, block, step in zip(*of_events, strict=True):
            events.setdefault(str(run), []).append((str(block), step))
    for code, name in enumerate(run_names):
        rows = order[bounds[code] : bounds[code + 1]]
        if not len(rows):
            continue
        at, row = np.unique(steps[rows], return_inverse=True)
        present, column = np.unique(block_codes[rows], return_inverse=True)
        values = np.full((len(at), len(present)), np.nan)
        thawed = np.zeros(values.shape, dtype=bool)
        recorded = np.zeros(values.shape, dtype=bool)
        recorded[row, column] = True
        values[row, column] = np.where(np.isfinite(trace[rows]), trace[rows], np.nan)
        thawed[row, column] = trainable[rows]
        blocks = tuple(str(block_names[b]) for b in present)
        trains = _carry_forward(thawed, recorded)
        for block, step in events.get(str(name), ()):
            if block in blocks:
                trains[at >= step, blocks.index(block)] = True
        yield BlockCurves(str(name), blocks, at, values, trains)


def _carry_forward(flags: NDArray[np.bool_], recorded: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where a probe did not record a block, whether it was trainable is what the probe before said."""
    source = np.where(recorded, np.arange(len(flags))[:, None], 0)
    return np.take_along_axis(flags, np.maximum.accumulate(source, axis=0), axis=0)


def curves(runs: Runs, *, curve: str = "normalised", window: float = 0, head: bool = False) -> pd.DataFrame:
    """Tidy curves of all runs: run, step, value, smoothed (moving average over `window` steps), trainable_blocks."""
    found = list(block_curves(runs.fisher, runs.unfreezing, head=head))
    if not found:
        return pd.DataFrame(columns=["run", "step", "value", "smoothed", "trainable_blocks"])
    values = [one.series(curve) for one in found]
    smoothed = [moving_average(one.steps, own, window) for one, own in zip(found, values, strict=True)]
    return pd.DataFrame(
        {
            "run": np.repeat(np.array([one.run for one in found], object), [len(one.steps) for one in found]),
            "step": np.concatenate([one.steps for one in found]),
            "value": np.concatenate(values),
            "smoothed": np.concatenate(smoothed),
            "trainable_blocks": np.concatenate([one.trainable.sum(axis=1) for one in found]),
        }
    ).astype({"run": str})


def moving_average(steps: ArrayLike, values: ArrayLike, window: float) -> Array:
    """The mean of all finite values whose step lies within `window` / 2 of each step; 0 changes nothing.

    The window is in steps, not in probes, so that irregular probes are smoothed alike; at both ends it is cut off.
    A NaN stays NaN and enters no mean. `steps` must rise.
    """
    at, series = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    if window < 0:
        raise InputError(f"a smoothing window is {window} steps; expected 0 or more")
    if window == 0 or not len(at):
        return series.copy()
    there = np.isfinite(series)
    count = np.r_[0, np.cumsum(there)]
    total = np.r_[0.0, np.cumsum(np.where(there, series, 0.0))]
    first = np.searchsorted(at, at - window / 2, side="left")
    last = np.searchsorted(at, at + window / 2, side="right")
    inside = count[last] - count[first]
    return np.where(there, (total[last] - total[first]) / np.maximum(inside, 1), np.nan)


def _codes(names: pd.Series) -> tuple[NDArray[np.intp], list]:
    """Integer codes and names; a categorical's order is kept (bottom to top for blocks)."""
    if isinstance(names.dtype, pd.CategoricalDtype):
        return names.cat.codes.to_numpy().astype(np.intp), list(names.cat.categories)
    codes, found = pd.factorize(names)
    return codes, list(found)
