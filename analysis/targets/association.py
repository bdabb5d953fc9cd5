"""Within one run at one step, does a feature tell which languages do well? Alone, and beyond its rivals."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from .clustered import each_run, mean_correlation, units_of

Array = NDArray[np.float64]
FEATURES = (
    "trace",
    "ratio",
    "overlap",
    "rank_overlap",
    "drift",
    "cka",
    "entropy",
    "confidence",
    "atc",
    "distance",
)
RIVALS = ("entropy", "distance")
"""What needs no gradient, beside each other: the certainty of the predictions, and what was known before."""
NEEDED_LEFT = 3  # languages beyond what the rivals use up


def over_languages(
    points: pd.DataFrame,
    features: Sequence[str] = FEATURES,
    *,
    given: Sequence[str] = (),
    first_step: int = 1,
    level: float = 0.95,
) -> pd.DataFrame:
    """One row per feature: the mean over runs of its Spearman correlation with the score over the languages of a run.

    A run gives the mean over its steps from `first_step` on (before the first update all languages are at chance);
    runs are averaged by seed, and seeds are what is counted. `given`: rivals whose ranks are taken out of both sides
    first (partial Spearman). Languages that lack a value are left out of their step. Columns: feature, given, those
    of `Estimate`.
    """
    rows = []
    units = units_of(points)
    later = points[points["step"] >= first_step]
    for feature in features:
        others = [name for name in given if name != feature]

        def of_run(run: pd.DataFrame, feature: str = feature, others: Sequence[str] = others) -> float:
            found = [partial_spearman(at, feature, "score", others) for _, at in run.groupby("step")]
            there = [r for r in found if math.isfinite(r)]
            return (
                float(np.tanh(np.mean(np.arctanh(np.clip(there, -1 + 1e-9, 1 - 1e-9)))))
                if there
                else math.nan
            )

        found = mean_correlation("spearman over languages", each_run(later, of_run), units, level)
        rows.append({"feature": feature, "given": ", ".join(others), **found.as_row()})
    return pd.DataFrame(rows)


def partial_spearman(table: pd.DataFrame, x: str, y: str, given: Sequence[str] = ()) -> float:
    """Pearson's r of what is left of the ranks of x and y when the ranks of `given` are regressed out; NaN where too
    few rows are left or one of them is constant."""
    rows = table[[x, y, *given]].dropna()
    if len(rows) < len(given) + 2 + NEEDED_LEFT:
        return math.nan
    ranks = [stats.rankdata(rows[name]) for name in (x, y, *given)]
    around = np.column_stack([np.ones(len(rows)), *ranks[2:]])
    left = [values - around @ np.linalg.lstsq(around, values, rcond=None)[0] for values in ranks[:2]]
    sizes = [float(np.linalg.norm(values)) for values in left]
    if min(sizes) < 1e-9 * len(rows):
        return math.nan
    return float(left[0] @ left[1] / (sizes[0] * sizes[1]))
