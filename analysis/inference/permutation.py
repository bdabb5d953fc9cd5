"""Permutation tests whose units are clusters: whole clusters change places, within strata or across them, or signs
flip."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fishlens.errors import InputError

from ..results import NotEnough, not_enough
from .clusters import codes_of
from .layout import connected

Array = NDArray[np.float64]
AMPLE = 100  # arrangements of complete units: enough for a test at 5 % without moving the incomplete ones
ENOUGH = 20  # arrangements: with fewer no p can be .05 (three seeds have six, four have 24)
FEWEST = 4  # units of one kind that have so many
_TIE = 1e-9  # statistics this close, relative to the largest, are equal: rounding must not decide a p-value


@dataclass(frozen=True)
class Rearrangements:
    """Rows to put in place of each row, `[number, n]`. `exact`: all there are, each once, the identity among them."""

    index: NDArray[np.intp]  # n stands for "no row": what is moved there is 0
    exact: bool
    possible: int  # how many different ones there are
    alike: int = 0  # the most crossed units that change places with each other

    def said(self, level: float) -> str:
        """What is to be said of a p-value from these."""
        if self.possible < 1 / (1 - level):  # an int, maybe 300!: too large to become a float
            return f"with {self.possible} arrangements no p is below {1 / self.possible:.3g}"
        return ""

    def too_few(self, quantity: str, unit: str, n: int) -> NotEnough | None:
        """The answer where crossed units, called `unit`, change places in so few ways that no p is .05."""
        if self.possible >= ENOUGH:
            return None
        why = f"they change places in {self.possible} ways, so that no p is below {1 / self.possible:.3g}"
        return not_enough(quantity, self.alike, FEWEST, f"{unit} that cross", n=n, why=why)

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
    orders = _all_orders(sets) if exact else _random_all(sets, number, rng)
    for group, order in zip(sets, orders, strict=True):
        places = np.array([rows[g] for g in group])  # [clusters in the set, size]
        index[:, places.ravel()] = places[order].reshape(number, -1)
    return Rearrangements(index, exact, possible)


def rearrange_whole(
    strata: NDArray[np.intp], units: NDArray[np.intp], resamples: int, rng: np.random.Generator
) -> Rearrangements:
    """Permute units that cross the strata (seeds in schedules) whole: a unit's rows in all strata move together.

    Units with rows in the same strata change places, when there are `AMPLE` ways; this is exact whatever the strata do
    to the rows of a unit, as long as units are draws of one kind. Otherwise all units of a connected part of the layout
    do, and a row that the other unit does not have becomes 0 (of residuals: their mean), which is an approximation.
    Strata never move: a seed that shifts some schedules more than others would then look like a correlation.
    Rows of one unit in one stratum correspond by their order.
    """
    place = _occurrence(strata, units)
    lines = codes_of([f"{s}|{o}" for s, o in zip(strata, place, strict=True)], len(strata))
    count, n = int(units.max()) + 1, len(units)
    table = np.full((int(lines.max()) + 1, count), n, dtype=np.intp)
    table[lines, units] = np.arange(n)
    patterns = codes_of([(column < n).tobytes() for column in table.T], count)
    sets = _members(patterns)
    if _ways(sets) < AMPLE:
        parts = np.zeros(count, dtype=np.intp)
        parts[units] = connected(lines, units)
        sets = _members(parts)
    sets = [group for group in sets if len(group) > 1]
    possible = _ways(sets)
    exact = possible <= resamples + 1
    number = possible if exact else resamples
    orders = (_all_orders(sets) if exact else _random_all(sets, number, rng)) if sets else []
    moved = np.tile(np.arange(count), (number, 1))
    for group, order in zip(sets, orders, strict=True):
        moved[:, group] = np.array(group)[order]
    alike = max(map(len, sets), default=1)
    return Rearrangements(table[lines, moved[:, units]], exact, possible, alike)


@dataclass(frozen=True)
class TwoLevels:
    """Arrangements of strata, and of what lies within them. `strata` `[number, strata]`: whose level each stratum gets;
    `within.index`: as in `Rearrangements`."""

    strata: NDArray[np.intp]
    within: Rearrangements

    def move(self, level: Array, rest: Array, codes: NDArray[np.intp]) -> Array:
        """Levels of strata `[strata, k]` and what is left of each row `[n, k]`, moved apart; `[number, n, k]`."""
        padded = np.vstack([rest, np.zeros((1, rest.shape[1]))])
        return level[self.strata[:, codes]] + padded[self.within.index]


def rearrange_levels(
    strata: NDArray[np.intp], units: NDArray[np.intp] | None, resamples: int, rng: np.random.Generator
) -> TwoLevels:
    """Strata exchange their levels, and what is left within them moves by whole units (`rearrange_whole`; without
    units row by row inside each stratum). Rows keep their stratum, whose spread may differ from another's."""
    n, count = len(strata), int(strata.max()) + 1
    if units is None:
        within = rearrange(np.arange(n), strata, resamples, rng)
    else:
        within = rearrange_whole(strata, units, resamples, rng)
    possible = math.factorial(count) * within.possible
    exact = possible <= resamples + 1
    if exact:
        orders = np.array(list(itertools.permutations(range(count))), dtype=np.intp)
        index = np.repeat(within.index, len(orders), axis=0)
        return TwoLevels(np.tile(orders, (len(within.index), 1)), Rearrangements(index, True, possible))
    orders = _random_orders(count, resamples, rng)
    index = within.index[rng.integers(len(within.index), size=resamples)] if within.exact else within.index
    return TwoLevels(orders, Rearrangements(index, False, possible))


def _random_all(sets: list[list[int]], number: int, rng: np.random.Generator) -> list[NDArray[np.intp]]:
    return [_random_orders(len(s), number, rng) for s in sets]


def _occurrence(strata: NDArray[np.intp], units: NDArray[np.intp]) -> NDArray[np.intp]:
    """Of several rows of one unit in one stratum: which one it is."""
    cell = strata * (int(units.max()) + 1) + units
    order = np.argsort(cell, kind="stable")
    starts = np.r_[True, np.diff(cell[order]) != 0]
    first = np.flatnonzero(starts)[np.cumsum(starts) - 1]
    found = np.empty(len(cell), dtype=np.intp)
    found[order] = np.arange(len(cell)) - first
    return found


def _members(codes: NDArray[np.intp]) -> list[list[int]]:
    return [np.flatnonzero(codes == code).tolist() for code in np.unique(codes)]


def _ways(sets: list[list[int]]) -> int:
    return math.prod(math.factorial(len(s)) for s in sets)


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
