"""Intervals and p-values of a coefficient whose rows are independent only between clusters."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..inference.bootstrap import bca, jackknife_t, percentile
from ..inference.clusters import deletions, jackknife_error, resampled_counts
from ..inference.layout import layout
from ..inference.permutation import Rearrangements, rearrange
from .association import EXACT_FIT, Array, Association, fisher_z, values_of
from .coefficients import coefficient


@dataclass(frozen=True)
class Clustered:
    """A coefficient `value` of two `columns`, and what is independent in them: `groups` are the codes of clusters."""

    columns: Array
    groups: NDArray[np.intp]
    strata: NDArray[np.intp]
    method: str
    value: float

    @property
    def count(self) -> int:
        return int(self.groups.max()) + 1

    def deleted(self) -> Array:
        """The coefficient with each cluster left out."""
        return coefficient(self.columns, deletions(self.count)[:, self.groups], self.method, self.strata)

    def interval(
        self, kind: str, level: float, resamples: int, rng: np.random.Generator
    ) -> tuple[float, float]:
        """The ends of the interval around the value, by one of `INTERVALS`.

        NaN for the jackknife where Fisher's z is infinite or unknown: the agreement is perfect, or becomes so (or a
        column constant) when one cluster is left out.
        """
        deleted = self.deleted()
        if kind == "jackknife":
            if not (np.abs(np.r_[self.value, deleted]) < EXACT_FIT).all():
                return math.nan, math.nan
            low, high = np.tanh(jackknife_t(float(fisher_z(self.value)), fisher_z(deleted), level))
            return float(low), float(high)
        weights = resampled_counts(self.count, resamples, rng)[:, self.groups]
        resampled = coefficient(self.columns, weights, self.method, self.strata)
        return (
            percentile(resampled, level)
            if kind == "percentile"
            else bca(self.value, resampled, deleted, level)
        )

    def p_value(
        self, exchange: NDArray[np.intp], level: float, resamples: int, rng: np.random.Generator
    ) -> tuple[float, str]:
        """The two-sided p-value and how it was got (`{}` in it stands for what the clusters are).

        Whole clusters change places among those of the same size and `exchange` code. Where that leaves too few
        arrangements for any p below 1 − `level` (schedules with different numbers of seeds), p is of the jackknife's
        t, unless the agreement is perfect and has no error.
        """
        moves = rearrange(self.groups, exchange, resamples, rng)
        if moves.possible < 1 / (1 - level):  # an int, maybe 300!: too large to become a float
            error = float(jackknife_error(fisher_z(self.deleted())))
            if abs(self.value) < EXACT_FIT and error > 0:
                p = float(2 * stats.t.sf(abs(fisher_z(self.value)) / error, self.count - 1))
                return p, f"jackknife t p ({moves.possible} permutations of unequal {{}} are too few)"
        permuted = permuted_coefficients(self.columns, moves, self.method, self.strata)
        p = moves.p_value(abs(self.value), np.abs(permuted))
        return p, f"permutation p over {{}}, {'all' if moves.exact else 'random'} {len(moves.index)}"


def no_interval_note(low: float, unit: str) -> str:
    """What is to be said of an interval that could not be given."""
    perfect = f"no interval: agreement is perfect, or is with one of the {unit} left out"
    return perfect if math.isnan(low) else ""


def permuted_coefficients(
    columns: Array, moves: Rearrangements, method: str, strata: NDArray[np.intp]
) -> Array:
    """The coefficient after each rearrangement of y, only differences inside strata counting; `[number]`."""
    values = values_of(columns, method, strata, None)
    space = layout([strata], values[:, 2:])
    left = space.residual(values[:, :2].T)
    made = Association(
        method, columns, values, left[0], left[1], space, strata, strata, None, False,
        np.arange(len(columns)), 0, 0.0,
    )  # fmt: skip
    return made.permuted(moves.index)
