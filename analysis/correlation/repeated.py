"""Repeated-measures correlation: the common slope within subjects, each with a level of its own."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ..inference.clusters import codes_of
from ..results import Estimate, NotEnough, not_enough
from .by_cluster import Clustered, no_interval_note
from .coefficients import coefficient
from .pair import NEEDED as NEEDED_CLUSTERS

Array = NDArray[np.float64]
NEEDED_SUBJECTS = 3


def repeated_measures(
    x: ArrayLike,
    y: ArrayLike,
    subject: ArrayLike,
    *,
    cluster: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 1999,
    seed: int = 0,
    unit: str = "runs",
) -> Estimate | NotEnough:
    """Bakdash & Marusich (2017): r_rm = sign(slope) sqrt(SS_x / (SS_x + SS_error)) of the analysis of covariance with
    one intercept per subject and one common slope; equally, Pearson's r of x and y centred within subjects.

    Without `cluster` it is the published statistic: N − k − 1 degrees of freedom for N rows of k subjects, t test,
    interval on Fisher's z. That takes rows as independent given their subject: right for subject = run and one row
    per probe, wrong for subject = language when x is one number per run. Then give `cluster` = run: whole runs are
    left out for the interval and permuted for the p-value (among runs scored in the same languages).

    Returns `NotEnough` with fewer than 3 subjects, no degrees of freedom for an interval, or fewer than 6 clusters.
    """
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    there = np.isfinite(a) & np.isfinite(b)
    subjects = codes_of(np.asarray(subject)[there], int(there.sum()))
    clusters = None if cluster is None else codes_of(np.asarray(cluster)[there], len(subjects))
    order = np.lexsort((subjects, clusters if clusters is not None else subjects))
    columns, subjects = np.column_stack([a, b])[there][order], subjects[order]
    n, count = len(subjects), len(set(subjects.tolist()))
    quantity = "repeated-measures correlation"
    if count < NEEDED_SUBJECTS:
        return not_enough(quantity, count, NEEDED_SUBJECTS, "subjects", n=n)
    freedom = n - count - 1
    if freedom < 2:
        return not_enough(quantity, n, count + 3, "rows", n=n, why=f"{count} subjects take a level each")
    r = float(coefficient(columns, np.ones((1, n)), "pearson", subjects)[0])
    if math.isnan(r):
        return not_enough(
            quantity, 1, 2, "different values", n=n, why="a column is constant within every subject"
        )
    if clusters is not None:
        return _clustered(columns, subjects, clusters[order], r, level, resamples, seed, unit)
    t = r * math.sqrt(freedom / max(1 - r**2, np.finfo(float).tiny))
    reach = float(stats.norm.ppf((1 + level) / 2)) / math.sqrt(freedom - 1)
    z = math.atanh(r) if abs(r) < 1 else math.copysign(math.inf, r)
    low, high = math.tanh(z - reach), math.tanh(z + reach)
    p = float(2 * stats.t.sf(abs(t), freedom))
    method = f"analysis of covariance, {freedom} degrees of freedom; rows independent given their subject"
    return Estimate(quantity, r, low, high, level, p, n, count, method)


def _clustered(
    columns: Array,
    subjects: NDArray[np.intp],
    clusters: NDArray[np.intp],
    r: float,
    level: float,
    resamples: int,
    seed: int,
    unit: str,
) -> Estimate | NotEnough:
    count = int(clusters.max()) + 1
    quantity = "repeated-measures correlation"
    if count < NEEDED_CLUSTERS:
        return not_enough(quantity, count, NEEDED_CLUSTERS, unit, n=len(columns))
    rng = np.random.default_rng(seed)
    # only clusters with the same subjects, here in the same order, may change places
    pattern = codes_of([repr(subjects[clusters == g].tolist()) for g in range(count)], count)
    found = Clustered(columns, clusters, subjects, "pearson", r)
    p, tested = found.p_value(pattern[clusters], level, resamples, rng)
    ends = found.interval("jackknife", level, resamples, rng)
    method = f"delete-one jackknife over {unit} on Fisher's z, t interval; {tested.format(unit)}"
    note = no_interval_note(ends[0], unit)
    return Estimate(quantity, r, *ends, level, p, len(columns), count, method, seed, note)
