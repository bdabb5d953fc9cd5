"""One coefficient of two columns with its interval and its p-value, honest about clusters.

The interval: delete one cluster at a time on Fisher's z scale, ± t with G−1 degrees of freedom (default), or the
cluster bootstrap (BCa or percentile). The p-value: whole clusters of y change places, within strata.
"""

import math
from typing import Any

import numpy as np
from fishlens.analysis.correlate.coefficients import coefficient, weighted_ranks
from fishlens.analysis.inference.bootstrap import bca, jackknife_t, percentile
from fishlens.analysis.inference.clusters import codes_of, deletions, jackknife_error, resampled_counts
from fishlens.analysis.inference.permutation import Rearrangements, rearrange, strata_codes
from fishlens.analysis.results import Estimate, NotEnough, not_enough
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from fishlens.errors import InputError

Array = NDArray[np.float64]
NEEDED = 6  # clusters; of five, only |r| > 0.88 is distinguishable from zero
_HOW = {
    "jackknife": "delete-one jackknife over {} on Fisher's z, t interval",
    "bca": "BCa bootstrap over {}",
    "percentile": "percentile bootstrap over {}",
}
INTERVALS = tuple(_HOW)
_EXACT_FIT = 1 - 1e-9
_ROUNDING = 1e-12


def correlation(
    x: ArrayLike,
    y: ArrayLike,
    *,
    method: str = "spearman",
    controls: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    interval: str = "jackknife",
    level: float = 0.95,
    resamples: int = 1999,
    seed: int = 0,
    unit: str = "runs",
) -> Estimate | NotEnough:
    """The coefficient of x and y (`[n]` each) given `controls` (`[n, k]`), rows with a NaN left out and counted.

    `cluster` labels what is independent (runs, schedules; `unit` names it in sentences); None: every row. `strata`
    labels groups that must not be compared with each other (tasks, models): only differences inside a stratum count,
    and only permutations inside it are made. A cluster must lie in one stratum. Rows of different clusters of the
    same size correspond by their order (languages, seeds).

    The p-value permutes whole clusters of the same size (`cluster_p_value` says what happens when there are too few).
    With controls it is Freedman & Lane's (1983): y's residuals are permuted.
    Returns `NotEnough` with fewer than 6 clusters (plus one for each control), or when a column is constant.
    Raises `InputError` for an unknown method or interval, or columns of different lengths.
    """
    if interval not in INTERVALS:
        raise InputError(f"there is no interval {interval!r}: expected one of {', '.join(INTERVALS)}")
    columns = _columns(x, y, controls)
    n_all = len(columns)
    there = np.isfinite(columns).all(axis=1)
    columns = columns[there]
    groups = codes_of(None if cluster is None else np.asarray(cluster)[there], len(columns))
    layers = strata_codes(None if strata is None else np.asarray(strata)[there], len(columns))
    n, count = len(columns), len(set(groups.tolist()))
    quantity = method if columns.shape[1] == 2 else f"partial {method}"
    needed = NEEDED + columns.shape[1] - 2
    if count < needed:
        return not_enough(quantity, count, needed, unit, n=n)
    if _is_constant(columns):
        return not_enough(quantity, 1, 2, "different values", n=n, why="a column is constant")
    value = float(coefficient(columns, np.ones((1, n)), method, layers)[0])
    if math.isnan(value):
        why = "the controls or the strata explain a column completely"
        return not_enough(quantity, 1, 2, "different values", n=n, why=why)
    rng = np.random.default_rng(seed)
    p, tested = cluster_p_value(columns, groups, layers, layers, method, value, level, resamples, rng)
    low, high = resampled_interval(columns, groups, layers, method, value, interval, level, resamples, rng)
    lane = ", Freedman–Lane" if controls is not None else ""
    how = f"{_HOW[interval].format(unit)}; {tested.format(unit)}{lane}"
    left_out = f"{n_all - n} of {n_all} rows left out: no value" if n < n_all else ""
    note = "; ".join(filter(None, [left_out, no_interval_note(low, unit)]))
    return Estimate(quantity, value, low, high, level, p, n, count, how, seed, note)


def _columns(x: ArrayLike, y: ArrayLike, controls: ArrayLike | None) -> Array:
    parts = [np.asarray(x, dtype=float), np.asarray(y, dtype=float)]
    if controls is not None:
        extra = np.asarray(controls, dtype=float)
        parts += list(extra.reshape(len(extra), -1).T)
    if len({len(part) for part in parts}) > 1:
        raise InputError(f"columns differ in length: {', '.join(str(len(part)) for part in parts)}")
    return np.column_stack(parts)


def _is_constant(columns: Array) -> bool:
    """Whether the first or the second column does not vary beyond rounding: ranks of rounding errors mean nothing."""
    pair = columns[:, :2]
    return bool((np.ptp(pair, axis=0) <= _ROUNDING * np.abs(pair).max(axis=0)).any())


def resampled_interval(
    columns: Array,
    groups: NDArray[np.intp],
    strata: NDArray[np.intp],
    method: str,
    value: float,
    interval: str,
    level: float,
    resamples: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """The ends of the interval around `value`, by one of `INTERVALS`; `groups` are cluster codes.

    NaN for the jackknife where Fisher's z is infinite or unknown: the agreement is perfect, or becomes so (or a column
    constant) when one cluster is left out.
    """
    count = int(groups.max()) + 1
    deleted = coefficient(columns, deletions(count)[:, groups], method, strata)
    if interval == "jackknife":
        if not (np.abs(np.r_[value, deleted]) < _EXACT_FIT).all():
            return math.nan, math.nan
        low, high = np.tanh(jackknife_t(float(_fisher_z(value)), _fisher_z(deleted), level))
        return float(low), float(high)
    resampled = coefficient(columns, resampled_counts(count, resamples, rng)[:, groups], method, strata)
    return percentile(resampled, level) if interval == "percentile" else bca(value, resampled, deleted, level)


def no_interval_note(low: float, unit: str) -> str:
    """What is to be said of an interval that `resampled_interval` could not give."""
    perfect = f"no interval: agreement is perfect, or is with one of the {unit} left out"
    return perfect if math.isnan(low) else ""


def cluster_p_value(
    columns: Array,
    groups: NDArray[np.intp],
    strata: NDArray[np.intp],
    exchange: NDArray[np.intp],
    method: str,
    value: float,
    level: float,
    resamples: int,
    rng: np.random.Generator,
) -> tuple[float, str]:
    """The two-sided p-value of `value` and how it was got (`{}` in it stands for what the clusters are).

    Whole clusters change places among those of the same size and `exchange` code. Where that leaves too few
    arrangements for any p below 1 − `level` (schedules with different numbers of seeds), p is of the jackknife's t.
    """
    moves = rearrange(groups, exchange, resamples, rng)
    if moves.possible >= 1 / (1 - level):  # an int, maybe 300!: too large to become a float
        p = moves.p_value(abs(value), np.abs(permuted_coefficients(columns, moves, method, strata)))
        return p, f"permutation p over {{}}, {'all' if moves.exact else 'random'} {len(moves.index)}"
    count = int(groups.max()) + 1
    z = _fisher_z(coefficient(columns, deletions(count)[:, groups], method, strata))
    t = _fisher_z(value) / max(float(jackknife_error(z)), np.finfo(float).tiny)
    p = float(2 * stats.t.sf(abs(t), count - 1))
    return p, f"jackknife t p ({moves.possible} permutations of unequal {{}} are too few)"


def _fisher_z(r: Any) -> Any:
    return np.arctanh(np.clip(r, -_EXACT_FIT, _EXACT_FIT))


def permuted_coefficients(
    columns: Array, moves: Rearrangements, method: str, strata: NDArray[np.intp]
) -> Array:
    """The coefficient after each rearrangement of y; `[number]`."""
    if method == "kendall":
        return _permuted_kendall(columns, moves, strata)
    values = columns
    if method == "spearman":
        values = weighted_ranks(columns, np.ones((1, len(columns))), strata)[0]
    design = np.column_stack([strata[:, None] == np.arange(strata.max() + 1), values[:, 2:]])
    basis, sizes, _ = np.linalg.svd(design - 0.0, full_matrices=False)
    basis = basis[:, sizes > 1e-10 * sizes[0]]

    def residual(rows: Array) -> Array:
        return rows - (rows @ basis) @ basis.T

    x, y = residual(values[:, 0]), residual(values[:, 1])
    x /= np.linalg.norm(x)
    statistics = []
    for index in np.array_split(moves.index, 1 + moves.index.size // 4_000_000):
        moved = residual(y[index])
        statistics.append(moved @ x / np.linalg.norm(moved, axis=1))
    return np.concatenate(statistics)


def _permuted_kendall(columns: Array, moves: Rearrangements, strata: NDArray[np.intp]) -> Array:
    first, second = np.triu_indices(len(columns), 1)
    same = strata[first] == strata[second]
    first, second = first[same], second[same]
    x, y = columns[:, 0], columns[:, 1]
    x_signs = np.sign(x[first] - x[second])
    untied = np.abs(x_signs).sum() * np.abs(np.sign(y[first] - y[second])).sum()
    parts = np.array_split(moves.index, 1 + len(moves.index) * len(first) // 4_000_000)
    sums = [np.sign(y[index[:, first]] - y[index[:, second]]) @ x_signs for index in parts]
    return np.concatenate(sums) / math.sqrt(untied)
