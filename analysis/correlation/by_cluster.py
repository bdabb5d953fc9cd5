"""Intervals and p-values of a coefficient whose clusters are all that is independent; strata have no level to lose."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..inference.bootstrap import bca, jackknife_t, percentile
from ..inference.clusters import deletions, jackknife_error, resampled_counts
from ..inference.layout import layout
from ..inference.permutation import Rearrangements, rearrange
from .association import EXACT_FIT, Array, Association, fisher_z, values_of
from .coefficients import coefficient


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
        if not (np.abs(np.r_[value, deleted]) < EXACT_FIT).all():
            return math.nan, math.nan
        low, high = np.tanh(jackknife_t(float(fisher_z(value)), fisher_z(deleted), level))
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
    arrangements for any p below 1 − `level` (schedules with different numbers of seeds), p is of the jackknife's t,
    unless the agreement is perfect and has no error.
    """
    moves = rearrange(groups, exchange, resamples, rng)
    if moves.possible < 1 / (1 - level):  # an int, maybe 300!: too large to become a float
        count = int(groups.max()) + 1
        z = fisher_z(coefficient(columns, deletions(count)[:, groups], method, strata))
        error = float(jackknife_error(z))
        if abs(value) < EXACT_FIT and error > 0:
            p = float(2 * stats.t.sf(abs(fisher_z(value)) / error, count - 1))
            return p, f"jackknife t p ({moves.possible} permutations of unequal {{}} are too few)"
    p = moves.p_value(abs(value), np.abs(permuted_coefficients(columns, moves, method, strata)))
    return p, f"permutation p over {{}}, {'all' if moves.exact else 'random'} {len(moves.index)}"


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
