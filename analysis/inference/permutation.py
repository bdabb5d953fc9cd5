"""Permutation tests whose units are clusters: whole clusters change places, within strata, or signs flip."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from fishlens.analysis.inference.clusters import codes_of
from numpy.typing import ArrayLike, NDArray

from fishlens.errors import InputError

Array = NDArray[np.float64]
_TIE = 1e-9  # statistics this close, relative to the largest, are equal: rounding must not decide a p-value


@dataclass(frozen=True)
class Rearrangements:
    """Rows to put in place of each row, `[number, n]`. `exact`: all there are, each once, the identity among them."""

    index: NDArray[np.intp]
    exact: bool
    possible: int  # how many different ones there are

    def p_value(self, observed: float, statistics: Array) -> float:
        """Share of statistics at least as large as the observed one (which counts once more when drawn at random)."""
        return share_as_large(observed, statistics, self.exact)


def share_as_large(observed: float, statistics: Array, exact: bool) -> float:
    """p = #{T* ≥ T} / #all when `exact`, else (1 + #{T* ≥ T}) / (1 + #drawn), so that p is never 0 (Phipson & Smyth
    2010). NaN when the observed statistic is NaN; a rearrangement without a statistic counts as large."""
    if math.isnan(observed):
        return math.nan
    slack = _TIE * max(abs(observed), float(np.nanmax(np.abs(statistics), initial=0.0)))
    large = int(np.sum(~(statistics < observed - slack)))
    return large / len(statistics) if exact else (1 + large) / (1 + len(statistics))


def rearrange(
    clusters: NDArray[np.intp], strata: NDArray[np.intp], resamples: int, rng: np.random.Generator
) -> Rearrangements:
    """Permute whole clusters among clusters of the same size and stratum; rows keep their order inside a cluster.

    All permutations are enumerated when there are no more than `resamples` + 1 of them.
    Raises `InputError` for a cluster that lies in several strata.
    """
    rows = [np.flatnonzero(clusters == g) for g in range(clusters.max() + 1)]
    exchangeable: dict[tuple[int, int], list[int]] = {}
    for g, members in enumerate(rows):
        if len(set(strata[members])) > 1:
            raise InputError(
                f"cluster {g} lies in several strata: clusters must be within strata (cluster by both together)"
            )
        exchangeable.setdefault((int(strata[members[0]]), len(members)), []).append(g)
    sets = list(exchangeable.values())
    possible = math.prod(math.factorial(len(s)) for s in sets)
    exact = possible <= resamples + 1
    number = possible if exact else resamples
    index = np.tile(np.arange(len(clusters)), (number, 1))
    orders = _all_orders(sets) if exact else [_random_orders(len(s), number, rng) for s in sets]
    for group, order in zip(sets, orders, strict=True):
        places = np.array([rows[g] for g in group])  # [clusters in the set, size]
        index[:, places.ravel()] = places[order].reshape(number, -1)
    return Rearrangements(index, exact, possible)


def _all_orders(sets: list[list[int]]) -> list[NDArray[np.intp]]:
    """For every combination of one permutation per set, the orders of each set; `[number, size of set]` each."""
    each = [np.array(list(itertools.permutations(range(len(s)))), dtype=np.intp) for s in sets]
    grid = np.indices([len(orders) for orders in each]).reshape(len(sets), -1)
    return [orders[which] for orders, which in zip(each, grid, strict=True)]


def _random_orders(size: int, number: int, rng: np.random.Generator) -> NDArray[np.intp]:
    return np.argsort(rng.random((number, size)), axis=1)


def sign_flips(pairs: int, resamples: int, rng: np.random.Generator) -> tuple[Array, bool]:
    """Signs `[number, pairs]` and whether they are all 2^pairs (when these are no more than `resamples` + 1)."""
    if 2**pairs <= resamples + 1:
        bits = (np.arange(2**pairs)[:, None] >> np.arange(pairs)) & 1
        return np.where(bits, -1.0, 1.0), True
    return np.where(rng.random((resamples, pairs)) < 0.5, -1.0, 1.0), False


def strata_codes(strata: ArrayLike | None, n: int) -> NDArray[np.intp]:
    """Stratum numbers; None is one stratum."""
    return np.zeros(n, dtype=np.intp) if strata is None else codes_of(strata, n)
