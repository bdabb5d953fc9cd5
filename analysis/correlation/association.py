"""Two columns made ready to be correlated: what is held fixed is taken away, and what is independent is known."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ..inference.clusters import codes_of, deletions, jackknife_error
from ..inference.layout import Layout, informative, layout
from ..inference.permutation import Rearrangements, rearrange, rearrange_whole, strata_codes
from .coefficients import coefficient, weighted_ranks

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
NEEDED_FOR_INTERVAL = 5
NEEDED_UNITS = 5  # crossed units from which on they are what the interval leaves out
FEW = 6  # clusters up to which t's quantile is too large for the jackknife's error
NEEDED_IN_STRATUM = 4  # rows of a stratum, on average, for ranks inside it to have an interval
EXACT_FIT = 1 - 1e-9


def fisher_z(r: Any) -> Any:
    """atanh r; of a perfect agreement a large number, so that it can be told apart."""
    return np.arctanh(np.clip(r, -EXACT_FIT, EXACT_FIT))


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
            return rearrange_whole(self.strata, self.crossed, resamples, rng)
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
            rows = moved[part]  # x is a residual already: only the length needs the projection
            explained = ((rows @ self.space.basis) ** 2).sum(axis=1)
            whole = (rows**2).sum(axis=1)
            left = np.where(whole - explained > 1e-12 * whole, whole - explained, np.inf)
            found.append(rows @ x / np.sqrt(left))
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
        if not (np.abs(np.r_[self.value, deleted]) < EXACT_FIT).all():
            return math.nan, math.nan
        error = float(jackknife_error(fisher_z(deleted)))
        if self.few:
            reach = error * self._quantile(level, moves, units, error)
        else:
            reach = error * math.sqrt(share) * float(stats.t.ppf((1 + level) / 2, freedom))
        z = float(fisher_z(self.value))
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
        known = (value < EXACT_FIT) & (np.abs(deleted) < EXACT_FIT).all(axis=1)
        errors = jackknife_error(fisher_z(np.where(known[:, None], deleted, 0.0)))
        sizes = np.full(len(value), np.inf)
        alive = known & (errors > 0)
        sizes[alive] = fisher_z(value[alive]) / errors[alive]
        if not moves.exact:
            sizes = np.r_[sizes, abs(fisher_z(self.value)) / error]
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
    values = values_of(kept, method, layers, across)
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


def values_of(columns: Array, method: str, strata: Codes, crossed: Codes | None) -> Array:
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
