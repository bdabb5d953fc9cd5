"""One coefficient of two columns, with its interval and its p-value by what is independent.

The interval: delete one unit at a time on Fisher's z scale, ± t (default), or the cluster bootstrap (BCa or
percentile). The p-value: whole units of y change places.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from fishlens.errors import InputError
from fishlens.names import counted

from ..inference.clusters import jackknife_error
from ..inference.permutation import Rearrangements
from ..results import Estimate, NotEnough, not_enough
from .association import (
    EXACT_FIT,
    NEEDED_FOR_INTERVAL,
    NEEDED_IN_STRATUM,
    NEEDED_UNITS,
    Array,
    Association,
    associate,
    fisher_z,
)
from .by_cluster import Clustered, no_interval_note
from .coefficients import METHODS

NEEDED = 6  # clusters; of five, only |r| > 0.88 is distinguishable from zero
NEEDED_FREEDOM = 3  # degrees of freedom after strata, crossed units and controls
_HOW = {
    "jackknife": "delete-one jackknife over {} on Fisher's z, t interval",
    "bca": "BCa bootstrap over {}",
    "percentile": "percentile bootstrap over {}",
}
_BY_PERMUTATION = "delete-one jackknife over {} on Fisher's z, as wide as its permutations spread"
INTERVALS = tuple(_HOW)
_ROUNDING = 1e-12


def correlation(
    x: ArrayLike,
    y: ArrayLike,
    *,
    method: str = "spearman",
    controls: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    crossed: ArrayLike | None = None,
    interval: str = "jackknife",
    level: float = 0.95,
    resamples: int = 1999,
    seed: int = 0,
    unit: str = "runs",
    crossed_unit: str = "seeds",
) -> Estimate | NotEnough:
    """The coefficient of x and y (`[n]` each) given `controls` (`[n, k]`), rows with a NaN left out and counted.

    `cluster` labels what is independent (runs, schedules; `unit` names it in sentences); None: every row. `strata`
    labels groups that must not be compared with each other (tasks, schedules): only differences inside a stratum count.
    `crossed` labels units that run through the strata and shift their rows in all of them (seeds in schedules): they
    too have a level each, and they are what is independent; `cluster` is then not to be given. Strata in which x or y
    is constant say nothing, and are left out of n.

    The p-value lets whole units of y change places: clusters of the same size and stratum; clusters that lie in several
    strata, with their rows in all of them; crossed units likewise. Few arrangements are all tried: then p is exact,
    however large it has to be. With controls y's residuals are permuted (Freedman & Lane 1983). Rows of different
    clusters correspond by their order (languages, seeds).
    Returns `NotEnough` with fewer than 6 clusters (plus one for each control), fewer than 4 crossed units, fewer than 3
    degrees of freedom after strata, crossed units and controls, or when a column is constant.
    Raises `InputError` for an unknown method or interval, or columns of different lengths.
    """
    _check(method, interval, controls, cluster, crossed)
    columns = _columns(x, y, controls)
    there = np.isfinite(columns).all(axis=1)
    n_all, n = len(columns), int(there.sum())
    quantity = method if columns.shape[1] == 2 else f"partial {method}"
    given = n if cluster is None else len(set(np.asarray(cluster)[there].tolist()))
    needed = NEEDED + columns.shape[1] - 2
    if given < needed:
        return not_enough(quantity, given, needed, unit, n=n)
    if _is_constant(columns[there]):
        return not_enough(quantity, 1, 2, "different values", n=n, why="one of the two does not vary")
    found = associate(columns, method, cluster, strata, crossed)
    if found is None:
        why = "in every stratum one of the two does not vary"
        return not_enough(quantity, 1, 2, "different values", n=n, why=why)
    short = _shortage(found, quantity, unit, needed)
    if short is not None:
        return short
    units = found.crossed
    rng = np.random.default_rng(seed)
    mover = unit if units is None else crossed_unit
    moves = found.moves(resamples, rng)
    few_units = None if units is None else moves.too_few(quantity, crossed_unit, len(found.x))
    if few_units is not None:
        return few_units
    p, tested, few = _p_value(found, moves, level, mover)
    if interval == "jackknife":
        low, high = found.interval(level, moves)
    else:
        clustered = Clustered(found.columns, found.clusters, found.strata, method, found.value)
        low, high = clustered.interval(interval, level, resamples, rng)
    if found.coarse:
        low = high = math.nan
    lane = ", Freedman–Lane" if controls is not None else ""
    who = crossed_unit if units is not None and units.max() + 1 >= NEEDED_UNITS else unit
    shape = _HOW[interval] if interval != "jackknife" or not found.few else _BY_PERMUTATION
    how = f"{shape.format(who)}; {tested}{lane}"
    left_out = f"{n_all - n} of {counted(n_all, 'rows')} left out: no value" if n < n_all else ""
    same = (
        f"{counted(found.left_out, 'rows')} left out: in their stratum nothing varies"
        if found.left_out
        else ""
    )
    note = "; ".join(filter(None, [left_out, same, few, _no_interval(found, low, unit)]))
    count = int((found.clusters if found.crossed is None else found.crossed).max()) + 1
    return Estimate(quantity, found.value, low, high, level, p, len(found.x), count, how, seed, note)


def _check(
    method: str,
    interval: str,
    controls: ArrayLike | None,
    cluster: ArrayLike | None,
    crossed: ArrayLike | None,
) -> None:
    if method not in METHODS:
        raise InputError(f"there is no coefficient {method!r}; expected one of {', '.join(METHODS)}")
    if method == "kendall" and controls is not None:
        raise InputError(
            "a partial Kendall coefficient is not offered: use pearson or spearman with controls"
        )
    if interval not in INTERVALS:
        raise InputError(f"there is no interval {interval!r}; expected one of {', '.join(INTERVALS)}")
    if crossed is not None and cluster is not None:
        raise InputError(
            "cluster and crossed are both given: crossed units are what is independent, give one"
        )
    if crossed is not None and interval != "jackknife":
        raise InputError(f"the interval {interval!r} is not offered with crossed units; expected 'jackknife'")


def _shortage(found: Association, quantity: str, unit: str, needed: int) -> NotEnough | None:
    """Too few clusters, or too few degrees of freedom after everything that is held fixed."""
    count, n = int(found.clusters.max()) + 1, len(found.x)
    if count < needed:
        return not_enough(quantity, count, needed, unit, n=n, why="in the other strata nothing varies")
    if found.space.freedom < NEEDED_FREEDOM:
        why = f"{counted(n, 'rows')} less {found.space.rank} levels and controls"
        return not_enough(quantity, found.space.freedom, NEEDED_FREEDOM, "degrees of freedom", n=n, why=why)
    if math.isnan(found.value):
        why = "the controls or the strata explain a column completely"
        return not_enough(quantity, 1, 2, "different values", n=n, why=why)
    return None


def _no_interval(found: Association, low: float, unit: str) -> str:
    if not math.isnan(low):
        return ""
    if found.space.freedom < NEEDED_FOR_INTERVAL:
        return f"no interval: {counted(found.space.freedom, 'degrees of freedom')} left"
    if found.coarse:
        return f"no interval: ranks inside strata of fewer than {NEEDED_IN_STRATUM} rows are too coarse"
    return no_interval_note(low, unit)


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


def _p_value(found: Association, moves: Rearrangements, level: float, unit: str) -> tuple[float, str, str]:
    """The two-sided p-value, how it was got, and what is to be said when it cannot be small.

    Where clusters of unequal sizes leave too few arrangements for any p below 1 − `level` (schedules with different
    numbers of seeds), p is of the jackknife's t, which needs an agreement that is not perfect.
    """
    enough = 1 / (1 - level)  # possible is an int, maybe 300!: too large to become a float
    sizes = np.bincount(found.clusters)
    if moves.possible < enough and found.crossed is None and len(set(sizes.tolist())) > 1:
        z = fisher_z(found.deleted(found.clusters))
        error = float(jackknife_error(z))
        if np.abs(found.value) < EXACT_FIT and error > 0:
            p = float(2 * stats.t.sf(abs(fisher_z(found.value)) / error, len(z) - 1))
            return p, f"jackknife t p ({moves.possible} permutations of unequal {unit} are too few)", ""
    p = moves.p_value(abs(found.value), np.abs(found.permuted(moves.index)))
    which = f"{'all' if moves.exact else 'random'} {len(moves.index)}"
    return p, f"permutation p over {unit}, {which}", moves.said(level)
