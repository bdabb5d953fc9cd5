"""p-values of a family of tests, corrected for being many. NaN (a test that could not be done) stays NaN and
does not count as a member of the family."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Holm's (1979) step-down p-values: the chance of even one false finding stays below the level.

    With m tests, p_(1) ≤ … ≤ p_(m):  p̃_(i) = max over j ≤ i of min(1, (m − j + 1) p_(j)). Valid under any dependence.
    """
    return _stepwise(p, lambda ordered: np.maximum.accumulate(ordered * np.arange(len(ordered), 0, -1)))


def benjamini_hochberg(p: ArrayLike) -> NDArray[np.float64]:
    """Benjamini & Hochberg (1995) p-values: the expected share of false findings among findings stays below the level.

    p̃_(i) = min over j ≥ i of min(1, m p_(j) / j). Valid for independent or positively dependent tests.
    """

    def adjust(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
        m = len(ordered)
        return np.minimum.accumulate((ordered * m / np.arange(1, m + 1))[::-1])[::-1]

    return _stepwise(p, adjust)


def _stepwise(
    p: ArrayLike, adjust: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    values = np.asarray(p, dtype=float)
    adjusted = np.full(values.shape, np.nan)
    there = np.flatnonzero(~np.isnan(values))
    order = there[np.argsort(values[there], kind="stable")]
    adjusted[order] = np.minimum(adjust(values[order]), 1.0)
    return adjusted
