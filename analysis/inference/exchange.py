"""The slope of a number of runs in scores of runs and languages, tested by letting whole seeds change places.

A model in which a seed shifts all schedules alike rejects true nulls in one study of six where seeds shift some
schedules more than others. Seeds are draws of one kind whatever they do to the schedules, so that scores may be
exchanged between them; what languages add to the slope, being a sample too, is added as a t variable.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .layout import layout
from .permutation import Rearrangements

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
_FARTHEST = 1e4  # errors from the estimate: an end of the interval beyond is infinite
_TIE = 1e-9


@dataclass(frozen=True)
class ExchangeTest:
    """`estimate`: the slope of y on x. Of each arrangement: the slopes of what moved of y, `moved_y`, and of what moved
    of x, `moved_x`, and of both over runs the sums of squares and of products, `squares` `[3, number]`; `whole`: these
    as they are. `spread`: the standard deviation that differences between languages add to the estimate, with
    `freedom` degrees of freedom."""

    estimate: float
    moved_y: Array
    moved_x: Array
    squares: Array
    whole: Array
    exact: bool
    spread: float
    freedom: int

    def slopes(self, null: float) -> Array:
        """Of y − `null` x in every arrangement, as long as what did not move (incomplete seeds move zeros)."""
        y, x, both = self.squares
        length = y - 2 * null * both + null**2 * x
        own = self.whole[0] - 2 * null * self.whole[2] + null**2 * self.whole[1]
        stretch = np.sqrt(own / np.where(length > 0, length, np.inf))
        return (self.moved_y - null * self.moved_x) * stretch

    @cached_property
    def share(self) -> float:
        """Of the variance of the estimate what is due to differences between languages."""
        if not self.spread > 0:
            return 0.0
        return self.spread**2 / (self.spread**2 + float(self.slopes(self.estimate).var()))

    def p_value(self, null: float = 0.0) -> float:
        """Two-sided p of "the slope is `null`". What languages probably added to the estimate does not move."""
        seen, moved = abs(self.estimate - null), self.slopes(null + self.share * (self.estimate - null))
        if self.spread > 0:
            above = stats.t.sf((seen - moved) / self.spread, self.freedom)
            count = float((above + stats.t.cdf((-seen - moved) / self.spread, self.freedom)).sum())
        else:
            count = float((np.abs(moved) >= seen * (1 - _TIE)).sum())
        return count / len(moved) if self.exact else (1 + count) / (1 + len(moved))

    def ends(self, level: float) -> tuple[float, float]:
        """All slopes that the test does not reject at 1 − `level`."""
        error = float(np.sqrt(self.slopes(0.0).var() + self.spread**2))
        if not error > 0:
            return float("nan"), float("nan")
        low, high = (end_of(self.p_value, self.estimate, sign * error, 1 - level) for sign in (-1, 1))
        return low, high


@dataclass(frozen=True)
class Cells:
    """Rows of runs and languages, and the factors that runs lie in (schedule, seed)."""

    run: Codes
    language: Codes
    factors: list[Codes]  # of rows

    @property
    def first(self) -> Codes:
        """The first row of each run."""
        return np.unique(self.run, return_index=True)[1]

    def means(self, values: Array) -> Array:
        """Of runs; `[runs]`."""
        return np.bincount(self.run, values) / np.bincount(self.run)

    def moved(self, values: Array, weights: Array, moves: Rearrangements) -> Array:
        """Σ weights · values, the runs' values being moved (language by language; 0 where a run lacks one)."""
        shape = (int(self.run.max()) + 1, int(self.language.max()) + 1)
        ours, theirs = np.zeros(shape), np.zeros((shape[0] + 1, shape[1]))
        ours[self.run, self.language], theirs[self.run, self.language] = weights, values
        return (ours @ theirs.T)[np.arange(shape[0]), moves.index].sum(axis=1)


def exchange_test(
    y: Array, x: Array, weights: Array, cells: Cells, moves: Rearrangements, slope_variance: float
) -> ExchangeTest:
    """`y`, `x` `[n]`: rows of runs and languages less what the other predictors explain. `weights` `[n]`: the slope is
    their product with y. `moves`: arrangements of runs. `slope_variance`: of the slopes of languages."""
    space = layout([*cells.factors, cells.language])
    left_y, left_x = space.residual(y), space.residual(x)
    moved_y, moved_x = (cells.moved(values, weights, moves) for values in (left_y, left_x))
    of_runs = layout([codes[cells.first] for codes in cells.factors])
    mean_y, mean_x = (of_runs.residual(cells.means(values)) for values in (left_y, left_x))
    there, here = (of_runs.residual(np.r_[values, 0.0][moves.index]) for values in (mean_y, mean_x))
    squares = np.array([(there**2).sum(axis=1), (here**2).sum(axis=1), (there * here).sum(axis=1)])
    whole = np.array([mean_y @ mean_y, mean_x @ mean_x, mean_y @ mean_x])
    spread = float(np.sqrt(slope_variance * (np.bincount(cells.language, weights * x) ** 2).sum()))
    return ExchangeTest(
        float(weights @ y), moved_y, moved_x, squares, whole, moves.exact, spread, int(cells.language.max())
    )


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
