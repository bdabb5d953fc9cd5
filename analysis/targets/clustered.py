"""One value per run → an estimate whose independent units are seeds: runs of one seed share weights, data and rows."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from ..inference.bootstrap import studentised
from ..results import Estimate, NotEnough, not_enough

NEEDED = 5  # seeds
_EXACT_FIT = 1 - 1e-9
Array = NDArray[np.float64]


def units_of(points: pd.DataFrame, cluster: str = "seed") -> pd.Series:
    """Run → the unit it belongs to: its seed, or the run itself where no run says one."""
    first = points.drop_duplicates("run").set_index("run")
    if cluster not in first or first[cluster].isna().any():
        return pd.Series(first.index, index=first.index)
    return first[cluster].astype(str)


def mean_correlation(
    quantity: str, of_run: pd.Series, units: pd.Series, level: float
) -> Estimate | NotEnough:
    """The mean of a correlation per run, on Fisher's z, with its t interval and t test over units.

    `of_run`: run → r; NaN is left out.
    """
    z = np.arctanh(of_run.dropna().clip(-_EXACT_FIT, _EXACT_FIT))
    values = z.groupby(units.reindex(z.index).to_numpy()).mean().to_numpy()
    if len(values) < NEEDED:
        return not_enough(quantity, len(values), NEEDED, "seeds", n=len(z))
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    reach = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, len(values) - 1)) if error > 0 else math.nan
    low, high = math.tanh(mean - reach), math.tanh(mean + reach)
    method = "mean on Fisher's z of runs, averaged by seed; t interval and test over seeds"
    return Estimate(quantity, math.tanh(mean), low, high, level, p, len(z), len(values), method)


def bootstrap_mean(
    quantity: str, of_run: pd.Series, units: pd.Series, level: float, resamples: int, seed: int
) -> Estimate | NotEnough:
    """The mean over units of the means of their runs, with the studentised interval of resampled units; no p."""
    there = of_run.dropna()
    values = there.groupby(units.reindex(there.index).to_numpy()).mean().to_numpy()
    if len(values) < NEEDED:
        return not_enough(quantity, len(values), NEEDED, "seeds", n=len(there))
    drawn = values[np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))]
    mean, size = float(values.mean()), math.sqrt(len(values))
    error, errors = float(values.std(ddof=1)) / size, drawn.std(axis=1, ddof=1) / size
    low, high = studentised(mean, error, drawn.mean(axis=1), errors, level)
    method = f"mean over seeds, studentised interval of {resamples} resamples of seeds"
    note = "no interval: too many seeds have the same value" if math.isnan(low) else ""
    return Estimate(
        quantity, mean, low, high, level, math.nan, len(there), len(values), method, seed, note
    )  # fmt: skip


def each_run(points: pd.DataFrame, value: Callable[[pd.DataFrame], float]) -> pd.Series:
    """Run → `value` of its rows."""
    return pd.Series({run: value(rows) for run, rows in points.groupby("run", sort=False)}, dtype=float)
