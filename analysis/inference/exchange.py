"""The slope of a number of runs in scores of runs and languages, tested by letting whole seeds change places.

A model in which a seed shifts all schedules alike rejects true nulls in one study of six where seeds shift some
schedules more than others. Seeds are draws of one kind whatever they do to the schedules, so that scores may be
exchanged between them; what languages add to the slope, being a sample too, is added as a t variable.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .layout import Layout
from .permutation import Rearrangements

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
_FARTHEST = 1e4  # errors from the estimate: an end of the interval beyond is infinite
_TIE = 1e-9


@dataclass(frozen=True)
class ExchangeTest:
    """`estimate`: the least-squares slope with a level for everything held fixed. Of each arrangement the slope is
    `moved_y` − β₀ `moved_x` where y − β₀ x is what moves. `spread`: the standard deviation that differences between
    languages add to the estimate, with `freedom` degrees of freedom."""

    estimate: float
    moved_y: Array
    moved_x: Array
    exact: bool
    spread: float
    freedom: int

    def p_value(self, null: float = 0.0) -> float:
        """Two-sided p of "the slope is `null`"."""
        seen, moved = abs(self.estimate - null), self.moved_y - null * self.moved_x
        large = np.abs(moved) >= seen * (1 - _TIE)
        if self.spread > 0:
            above = stats.t.sf((seen - moved) / self.spread, self.freedom)
            below = stats.t.cdf((-seen - moved) / self.spread, self.freedom)
            count = float(np.where(large & (self.moved_x >= 1 - _TIE), 1.0, above + below).sum())
        else:
            count = float(large.sum())
        return count / len(moved) if self.exact else (1 + count) / (1 + len(moved))

    def ends(self, level: float) -> tuple[float, float]:
        """All slopes that the test does not reject at 1 − `level`."""
        error = float(np.sqrt(self.moved_y.var() + self.spread**2))
        if not error > 0:
            return float("nan"), float("nan")
        low, high = (end_of(self.p_value, self.estimate, sign * error, 1 - level) for sign in (-1, 1))
        return low, high


def exchange_test(
    y: Array,
    x: Array,
    space: Layout,
    cell: tuple[Codes, Codes],
    moves: Rearrangements,
    slope_variance: float,
) -> ExchangeTest:
    """`y`, `x` `[n]`: rows of runs and languages, `cell` their codes. `space`: what is held fixed. `moves`: those of
    runs. `slope_variance`: of the slopes of languages."""
    run, language = cell
    left_y, left_x = space.residual(y), space.residual(x)
    weights = left_x / (left_x @ left_x)
    table = np.full((int(run.max()) + 2, int(language.max()) + 1), len(y), dtype=np.intp)
    table[run, language] = np.arange(len(y))
    index = table[moves.index[:, run], language]
    moved_y, moved_x = (np.r_[values, 0.0][index] @ weights for values in (left_y, left_x))
    by_language = np.bincount(language, weights * x)
    spread = float(np.sqrt(slope_variance * (by_language**2).sum()))
    return ExchangeTest(float(weights @ y), moved_y, moved_x, moves.exact, spread, int(language.max()))


def end_of(test: Callable[[float], float], estimate: float, step: float, alpha: float) -> float:
    """Where, going from the estimate by `step`s, the test begins to reject; infinite where it never does."""
    inside, outside = 0.0, 1.0
    while test(estimate + outside * step) > alpha:
        inside, outside = outside, 2 * outside
        if outside > _FARTHEST:
            return float(np.copysign(np.inf, step))
    for _ in range(40):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if test(estimate + middle * step) > alpha else (inside, middle)
    return estimate + inside * step
