"""One coefficient of two columns with its interval and its p-value, honest about what is independent.

The interval: delete one unit at a time on Fisher's z scale, ± t (default), or the cluster bootstrap (BCa or
percentile). The p-value: whole units of y change places.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from fishlens.errors import InputError

from ..inference.bootstrap import bca, jackknife_t, percentile
from ..inference.clusters import codes_of, deletions, jackknife_error, resampled_counts
from ..inference.layout import Layout, informative, layout
from ..inference.permutation import Rearrangements, rearrange, rearrange_whole, strata_codes
from ..results import Estimate, NotEnough, not_enough
from .coefficients import METHODS, coefficient, weighted_ranks

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
NEEDED = 6  # clusters; of five, only |r| > 0.88 is distinguishable from zero
NEEDED_FREEDOM = 3  # degrees of freedom after strata, crossed units and controls
NEEDED_FOR_INTERVAL = 5
NEEDED_UNITS = 5  # crossed units from which on they are what the interval leaves out
FEW = 6  # clusters up to which t's quantile is too large for the jackknife's error
NEEDED_IN_STRATUM = 4  # rows of a stratum, on average, for ranks inside it to have an interval
_HOW = {
    "jackknife": "delete-one jackknife over {} on Fisher's z, t interval",
    "bca": "BCa bootstrap over {}",
    "percentile": "percentile bootstrap over {}",
}
_BY_PERMUTATION = "delete-one jackknife over {} on Fisher's z, as wide as its permutations spread"
INTERVALS = tuple(_HOW)
_EXACT_FIT = 1 - 1e-9
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Association:
    """Two columns made ready: the rows that say something, and what is left of them after everything held fixed.

    `x`, `y`: residuals (of ranks for Spearman) `[n]`. `values` are before the projection, `columns` as they came.
    """

    method: str
    columns: Array  # [n, 2 + controls]
    values: Array
    x: Array
    y: Array
    space: Layout
    clusters: Codes  # what is independent
    strata: Codes
    crossed: Codes | None
    across: bool  # clusters lie in several strata
    rows: NDArray[np.intp]  # which of those given, `[n]`
    left_out: int  # rows with values that say nothing: of strata in which x or y is constant
    value: float

    @property
    def coarse(self) -> bool:
        """Whether ranks are of so few rows of a stratum that they have no interval."""
        ranked = self.method != "pearson" and self.crossed is None and self.strata.max() > 0
        return bool(ranked and len(self.x) < NEEDED_IN_STRATUM * (self.strata.max() + 1))

    def moves(self, resamples: int, rng: np.random.Generator) -> Rearrangements:
        """Arrangements of whole units of y."""
        if self.crossed is not None:
            return rearrange_whole(self.strata, self.crossed, resamples, rng, strata_too=True)
        if self.across:
            return rearrange_whole(self.strata, self.clusters, resamples, rng)
        return rearrange(self.clusters, self.strata, resamples, rng)

    def permuted(self, index: NDArray[np.intp]) -> Array:
        """The coefficient for each arrangement `[number, n]` of y's residuals (Freedman & Lane 1983)."""
        if self.method == "kendall":
            return _permuted_kendall(self, index)
        x = self.x / np.linalg.norm(self.x)
        moved = np.r_[self.y, 0.0]
        found = []
        for part in np.array_split(index, 1 + index.size // 4_000_000):
            rows = self.space.residual(moved[part])
            length = np.sqrt((rows**2).sum(axis=1))
            found.append(rows @ x / np.where(length > 0, length, np.inf))
        return np.concatenate(found)

    def deleted(self, units: Codes) -> Array:
        """The coefficient with each unit left out, ranks kept; `[units]`."""
        if self.method != "kendall":
            return self.space.without_each(self.x, self.y, units)
        weights = deletions(int(units.max()) + 1)[:, units]
        return coefficient(self.values, weights, "kendall", _pairs_within(self))

    @property
    def few(self) -> bool:
        """Whether the interval is as wide as the permutations say, not Student's t."""
        if self.crossed is not None:
            return int(self.crossed.max()) + 1 < NEEDED_UNITS
        return not self.across and self.strata.max() == 0 and int(self.clusters.max()) < FEW

    def interval(self, level: float, moves: Rearrangements) -> tuple[float, float]:
        """Delete one unit at a time: seeds where they cross the strata and are at least five, else clusters.

        With `few` units the jackknife's error is far from Student's t over so many degrees of freedom (3 schedules × 4
        seeds: 97.8 % covered): the reach is then the largest |z*| / SE* but 1 − `level` of the arrangements `moves` of
        y, so that an interval leaves 0 out in that share of studies without a correlation. Elsewhere it is t's, and the
        levels of the other factor take up degrees of freedom, by which the jackknife's error would be too large:
        SE² = f Σ (z_(g) − z̄)² with f = (K−1)²/K² for K crossed units, (G−1)/G · freedom/(n−1) for clusters inside
        strata. NaN where Fisher's z is infinite or unknown.
        """
        units, share, freedom = self.clusters, 1.0, int(self.clusters.max())
        if self.crossed is not None and self.crossed.max() + 1 >= NEEDED_UNITS:
            units = self.crossed
            share, freedom = int(units.max()) / (units.max() + 1), int(units.max())
        elif self.crossed is not None:
            share, freedom = self.space.freedom / (len(self.x) - 1), self.space.freedom
        elif self.across:
            share = int(units.max()) / (units.max() + 1)
        elif self.strata.max() > 0:
            freedom = int(units.max() - self.strata.max())
            share = freedom / int(units.max())
        if freedom < 1 or self.space.freedom < NEEDED_FOR_INTERVAL:
            return math.nan, math.nan
        deleted = self.deleted(units)
        if not (np.abs(np.r_[self.value, deleted]) < _EXACT_FIT).all():
            return math.nan, math.nan
        error = float(jackknife_error(_fisher_z(deleted)))
        if self.few:
            reach = error * self._quantile(level, moves, units, error)
        else:
            reach = error * math.sqrt(share) * float(stats.t.ppf((1 + level) / 2, freedom))
        z = float(_fisher_z(self.value))
        return (math.tanh(z - reach), math.tanh(z + reach)) if math.isfinite(reach) else (math.nan, math.nan)

    def _quantile(self, level: float, moves: Rearrangements, units: Codes, error: float) -> float:
        """Of |z| / SE over the arrangements: the largest that more than 1 − `level` of them reach."""
        values = np.r_[self.y, 0.0][moves.index]
        if self.method == "kendall":
            columns = [
                np.column_stack([self.values[:, 0], own])
                for own in np.r_[self.values[:, 1], 0.0][moves.index]
            ]
            weights = deletions(int(units.max()) + 1)[:, units]
            deleted = np.array([coefficient(own, weights, "kendall", _pairs_within(self)) for own in columns])
        else:
            deleted = self.space.without_each(self.x, self.space.residual(values), units)
        value = np.abs(self.permuted(moves.index))
        known = (value < _EXACT_FIT) & (np.abs(deleted) < _EXACT_FIT).all(axis=1)
        errors = jackknife_error(_fisher_z(np.where(known[:, None], deleted, 0.0)))
        sizes = np.full(len(value), np.inf)
        alive = known & (errors > 0)
        sizes[alive] = _fisher_z(value[alive]) / errors[alive]
        if not moves.exact:
            sizes = np.r_[sizes, abs(_fisher_z(self.value)) / error]
        ordered = np.sort(sizes)[::-1]
        place = math.floor((1 - level) * len(ordered) + 1e-9)
        return float(ordered[place]) * (1 + 1e-9)


def associate(
    columns: Array,
    method: str,
    cluster: ArrayLike | None,
    strata: ArrayLike | None,
    crossed: ArrayLike | None,
) -> Association | None:
    """`columns` `[n, 2 + controls]`; rows with a NaN are left out. None when no row says anything."""
    there = np.flatnonzero(np.isfinite(columns).all(axis=1))
    columns = columns[there]
    layers = strata_codes(None if strata is None else np.asarray(strata)[there], len(there))
    across = None if crossed is None else codes_of(np.asarray(crossed)[there], len(there))
    groups = codes_of(None if cluster is None else np.asarray(cluster)[there], len(there))
    several = layers.max(initial=0) > 0 or across is not None
    keep = (
        informative(columns[:, 0], columns[:, 1], layers, across)
        if several
        else np.ones(len(there), dtype=bool)
    )
    if not keep.any():
        return None
    rows, kept = there[keep], columns[keep]
    layers, groups = codes_of(layers[keep], len(rows)), codes_of(groups[keep], len(rows))
    across = None if across is None else codes_of(across[keep], len(rows))
    spread = any(len(set(layers[groups == g].tolist())) > 1 for g in range(groups.max() + 1))
    values = _values(kept, method, layers, across)
    space = layout([layers] if across is None else [layers, across], values[:, 2:])
    left = space.residual(values[:, :2].T)
    size = np.sqrt((left**2).sum(axis=1))
    rounding = 1e-10 * np.sqrt((values[:, :2] ** 2).sum(axis=0))
    if method == "kendall":
        pairs = np.zeros_like(layers) if across is not None else layers
        value = float(coefficient(values, np.ones((1, len(rows))), method, pairs)[0])
    else:
        alive = (size > rounding).all()
        value = float(np.clip(left[0] @ left[1] / (size[0] * size[1]), -1, 1)) if alive else math.nan
    return Association(
        method, kept, values, left[0], left[1], space, groups, layers, across, spread, rows,
        len(there) - len(rows), value,
    )  # fmt: skip


def _values(columns: Array, method: str, strata: Codes, crossed: Codes | None) -> Array:
    """What is correlated: the columns (Pearson), their ranks inside strata (Spearman); with crossed units what is left
    of the columns after strata and units, and the ranks of that among all rows."""
    if crossed is None:
        if method != "spearman":
            return columns
        return weighted_ranks(columns, np.ones((1, len(columns))), strata)[0]
    left = layout([strata, crossed]).residual(columns.T)
    scale = np.abs(columns).max(axis=0)[:, None]
    left = np.where(np.abs(left) <= 1e-10 * scale, 0.0, left)
    if method == "pearson":
        return left.T
    left = np.round(left / np.where(scale > 0, scale, 1.0), 11)  # what differs by rounding is tied
    return stats.rankdata(left, axis=1).T if method == "spearman" else left.T


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
    strata, with their rows in all of them; crossed units likewise, and with fewer than four of them strata as well (the
    note says that this takes units to shift all strata alike). Few arrangements are all tried: then p is exact, however
    large it has to be. With controls y's residuals are permuted (Freedman & Lane 1983). Rows of different clusters
    correspond by their order (languages, seeds).
    Returns `NotEnough` with fewer than 6 clusters (plus one for each control), fewer than 3 degrees of freedom after
    strata, crossed units and controls, or when a column is constant.
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
        return not_enough(quantity, 1, 2, "different values", n=n, why="a column is constant")
    found = associate(columns, method, cluster, strata, crossed)
    if found is None:
        why = "in every stratum a column is constant"
        return not_enough(quantity, 1, 2, "different values", n=n, why=why)
    short = _shortage(found, quantity, unit, needed)
    if short is not None:
        return short
    units = found.crossed
    rng = np.random.default_rng(seed)
    mover = unit if units is None else crossed_unit
    moves = found.moves(resamples, rng)
    p, tested, few = _p_value(found, moves, level, mover)
    if interval == "jackknife":
        low, high = found.interval(level, moves)
    else:
        low, high = resampled_interval(
            found.columns, found.clusters, found.strata, method, found.value, interval, level, resamples, rng
        )
    if found.coarse:
        low = high = math.nan
    lane = ", Freedman–Lane" if controls is not None else ""
    who = crossed_unit if units is not None and units.max() + 1 >= NEEDED_UNITS else unit
    shape = _HOW[interval] if interval != "jackknife" or not found.few else _BY_PERMUTATION
    how = f"{shape.format(who)}; {tested}{lane}"
    left_out = f"{n_all - n} of {n_all} rows left out: no value" if n < n_all else ""
    same = f"{found.left_out} rows left out: in their stratum nothing varies" if found.left_out else ""
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
        why = f"{n} rows less {found.space.rank} levels and controls"
        return not_enough(quantity, found.space.freedom, NEEDED_FREEDOM, "degrees of freedom", n=n, why=why)
    if math.isnan(found.value):
        why = "the controls or the strata explain a column completely"
        return not_enough(quantity, 1, 2, "different values", n=n, why=why)
    return None


def _no_interval(found: Association, low: float, unit: str) -> str:
    if not math.isnan(low):
        return ""
    if found.space.freedom < NEEDED_FOR_INTERVAL:
        return f"no interval: {found.space.freedom} degrees of freedom are left"
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


def _p_value(found: Association, moves: Rearrangements, level: float, unit: str) -> tuple[float, str, str]:
    """The two-sided p-value, how it was got, and what is to be said when it cannot be small.

    Where clusters of unequal sizes leave too few arrangements for any p below 1 − `level` (schedules with different
    numbers of seeds), p is of the jackknife's t, which needs an agreement that is not perfect.
    """
    enough = 1 / (1 - level)  # possible is an int, maybe 300!: too large to become a float
    sizes = np.bincount(found.clusters)
    if moves.possible < enough and found.crossed is None and len(set(sizes.tolist())) > 1:
        z = _fisher_z(found.deleted(found.clusters))
        error = float(jackknife_error(z))
        if np.abs(found.value) < _EXACT_FIT and error > 0:
            p = float(2 * stats.t.sf(abs(_fisher_z(found.value)) / error, len(z) - 1))
            return p, f"jackknife t p ({moves.possible} permutations of unequal {unit} are too few)", ""
    p = moves.p_value(abs(found.value), np.abs(found.permuted(moves.index)))
    which = f"{'all' if moves.exact else 'random'} {len(moves.index)}"
    what = f"{unit} and whole strata" if moves.strata_move else unit
    return p, f"permutation p over {what}, {which}", moves.said(level, unit)


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
    arrangements for any p below 1 − `level` (schedules with different numbers of seeds), p is of the jackknife's t,
    unless the agreement is perfect and has no error.
    """
    moves = rearrange(groups, exchange, resamples, rng)
    if moves.possible < 1 / (1 - level):  # an int, maybe 300!: too large to become a float
        count = int(groups.max()) + 1
        z = _fisher_z(coefficient(columns, deletions(count)[:, groups], method, strata))
        error = float(jackknife_error(z))
        if abs(value) < _EXACT_FIT and error > 0:
            p = float(2 * stats.t.sf(abs(_fisher_z(value)) / error, count - 1))
            return p, f"jackknife t p ({moves.possible} permutations of unequal {{}} are too few)"
    p = moves.p_value(abs(value), np.abs(permuted_coefficients(columns, moves, method, strata)))
    return p, f"permutation p over {{}}, {'all' if moves.exact else 'random'} {len(moves.index)}"


def _fisher_z(r: Any) -> Any:
    return np.arctanh(np.clip(r, -_EXACT_FIT, _EXACT_FIT))


def permuted_coefficients(
    columns: Array, moves: Rearrangements, method: str, strata: NDArray[np.intp]
) -> Array:
    """The coefficient after each rearrangement of y, only differences inside strata counting; `[number]`."""
    values = _values(columns, method, strata, None)
    space = layout([strata], values[:, 2:])
    left = space.residual(values[:, :2].T)
    made = Association(
        method, columns, values, left[0], left[1], space, strata, strata, None, False,
        np.arange(len(columns)), 0, 0.0,
    )  # fmt: skip
    return made.permuted(moves.index)


def _pairs_within(found: Association) -> Codes:
    """Kendall's pairs are inside strata, or among all rows of what is left after strata and crossed units."""
    return np.zeros_like(found.strata) if found.crossed is not None else found.strata


def _permuted_kendall(found: Association, index: NDArray[np.intp]) -> Array:
    first, second = np.triu_indices(len(found.values), 1)
    groups = _pairs_within(found)
    same = groups[first] == groups[second]
    first, second = first[same], second[same]
    x, y = found.values[:, 0], np.r_[found.values[:, 1], 0.0]
    x_signs = np.sign(x[first] - x[second])
    sums = []
    for part in np.array_split(index, 1 + len(index) * len(first) // 4_000_000):
        signs = np.sign(y[part[:, first]] - y[part[:, second]])
        untied = np.abs(signs).sum(axis=1) * np.abs(x_signs).sum()
        sums.append(signs @ x_signs / np.sqrt(np.where(untied > 0, untied, np.inf)))
    return np.concatenate(sums)
