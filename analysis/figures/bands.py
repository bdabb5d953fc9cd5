"""From many runs' curves to what a figure can show: one line and one band over seeds, on few points.

A curve of 1,000 probes has more points than a column of a paper has dots. Steps are put into equal bins, each
run is averaged inside each bin (so that no probe is dropped), and the runs are then put together bin by bin.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

POINTS = 160  # bins across the width of a figure
RANGE_UP_TO = 9  # with more runs than this the band is the 10th to the 90th percentile


@dataclass(frozen=True)
class Band:
    """`center`, `low` and `high` at `steps` (all `[points]`), of `runs` runs."""

    steps: np.ndarray
    center: np.ndarray
    low: np.ndarray
    high: np.ndarray
    runs: int


def binned(curves: pd.DataFrame, *, log: bool, points: int = POINTS) -> pd.DataFrame:
    """Every run of `curves` (columns `run`, `step`, `value`) on the same few steps.

    Returns a frame with one row per step and one column per run; NaN outside a run's own first and last
    step. Averages are of the logarithm where `log` is set, and are returned as logarithms. Values that are
    not finite (or, for logarithms, not positive) count as missing; gaps inside a run are bridged by straight
    lines.
    """
    value = curves["value"].to_numpy(dtype=float)
    good = np.isfinite(value) & (value > 0 if log else True)
    step = curves["step"].to_numpy(dtype=float)[good]
    run = curves["run"].to_numpy()[good]
    value = np.log(value[good]) if log else value[good]
    if not len(step):
        return pd.DataFrame()
    different = np.unique(step)
    if len(different) > points:
        edges = np.linspace(different[0], different[-1], points + 1)
        place = np.clip(np.searchsorted(edges, step, side="right") - 1, 0, points - 1)
        step = ((edges[:-1] + edges[1:]) / 2)[place]
        # the ends of a figure are where the runs begin and end, not half a bin inside
        step = np.where(place == 0, edges[0], np.where(place == points - 1, edges[-1], step))
    table = pd.DataFrame({"step": step, "run": run, "value": value})
    wide = table.pivot_table(index="step", columns="run", values="value", aggfunc="mean", observed=True)
    return wide.interpolate(method="index", limit_area="inside")


def band_over_runs(curves: pd.DataFrame, *, log: bool, points: int = POINTS) -> Band | None:
    """The mean over runs (geometric where `log`) and the spread over runs; None where no value can be drawn.

    The spread is the full range up to nine runs, and the 10th to the 90th percentile with more.
    """
    wide = binned(curves, log=log, points=points)
    if wide.empty:
        return None
    values = wide.to_numpy()
    if wide.shape[1] > RANGE_UP_TO:
        low, high = np.nanquantile(values, 0.1, axis=1), np.nanquantile(values, 0.9, axis=1)
    else:
        low, high = np.nanmin(values, axis=1), np.nanmax(values, axis=1)
    center = np.nanmean(values, axis=1)
    back = np.exp if log else np.asarray
    return Band(wide.index.to_numpy(dtype=float), back(center), back(low), back(high), wide.shape[1])


def drawable_as_log(values: pd.Series) -> bool:
    """Whether a logarithmic axis shows these values: nearly all of the finite ones are positive."""
    finite = values[np.isfinite(values)]
    return len(finite) > 0 and float((finite > 0).mean()) > 0.9
