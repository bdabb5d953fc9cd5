"""p-values of a family of tests, corrected for being many. NaN (a test that could not be done) stays NaN and
does not count as a member of the family. (For Holm's statsmodels' multipletests gives the same, and collects garbage at
every call, which costs more than all the rest of a coefficient; the tests compare.)"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control

Array = NDArray[np.float64]
_COARSE = 20  # arrangements a test


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Holm's (1979) step-down p-values: the chance of even one false finding stays below the level.

    With m tests, p_(1) ≤ … ≤ p_(m):  p̃_(i) = max over j ≤ i of min(1, (m − j + 1) p_(j)). Valid under any dependence.
    """
    return _stepwise(p, lambda ordered: np.maximum.accumulate(ordered * np.arange(len(ordered), 0, -1)))


def benjamini_hochberg(p: ArrayLike) -> NDArray[np.float64]:
    """Benjamini & Hochberg (1995) p-values: the expected share of false findings among findings stays below the level.

    p̃_(i) = min over j ≥ i of min(1, m p_(j) / j). Valid for independent or positively dependent tests.
    """

    return _stepwise(p, lambda ordered: false_discovery_control(ordered) if len(ordered) else ordered)


def westfall_young(observed: ArrayLike, permuted: Array, exact: bool) -> Array:
    """Westfall & Young's (1993) step-down minP: the chance of even one false finding, given how the tests depend.

    `observed` `[m]` statistics, large ones counting against the null (NaN: no test), `permuted` `[m, number]` the same
    after each joint rearrangement; `exact`: all rearrangements are there, the observed one among them. Statistics of
    different tests are compared by their own permutation p, so that they need no common scale; with fewer than 20
    arrangements a test, where no smallest p could be below .05 (four seeds have 24), by their size. Of tests that are
    near copies of one another Holm pays for each; this pays for one.
    """
    values = np.asarray(observed, dtype=float)
    adjusted = np.full(values.shape, np.nan)
    there = np.flatnonzero(~np.isnan(values))
    if not len(there):
        return adjusted
    members = np.round(permuted[there], 12)
    seen = np.round(values[there], 12)
    if not exact:
        members = np.column_stack([seen, members])
    number = members.shape[1]
    p_all, p_seen = np.empty(members.shape), np.empty(len(there))
    for k, row in enumerate(members):
        ordered = np.sort(row)
        p_all[k] = (number - np.searchsorted(ordered, row - 1e-9)) / number
        p_seen[k] = (number - np.searchsorted(ordered, seen[k] - 1e-9)) / number
    if number < _COARSE * len(there):
        p_all, p_seen = -members, -seen
    order = np.argsort(p_seen, kind="stable")
    smallest = np.minimum.accumulate(p_all[order][::-1], axis=0)[::-1]
    stepped = (smallest <= p_seen[order][:, None] + 1e-12).mean(axis=1)
    adjusted[there[order]] = np.maximum.accumulate(stepped)
    return adjusted


def _stepwise(
    p: ArrayLike, adjust: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    values = np.asarray(p, dtype=float)
    adjusted = np.full(values.shape, np.nan)
    there = np.flatnonzero(~np.isnan(values))
    order = there[np.argsort(values[there], kind="stable")]
    adjusted[order] = np.minimum(adjust(values[order]), 1.0)
    return adjusted
