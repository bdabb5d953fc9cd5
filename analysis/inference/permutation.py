"""Permutation tests whose units are clusters: whole clusters change places, within strata or across them, or signs
flip."""

import itertools
import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fishlens.errors import InputError

from .clusters import codes_of
from .layout import connected

Array = NDArray[np.float64]
AMPLE = 100  # arrangements of complete units: enough for a test at 5 % without moving the incomplete ones
ENOUGH = 20  # arrangements of units: a test at 5 % exists without moving strata as well (four seeds have 24)
_TIE = 1e-9  # statistics this close, relative to the largest, are equal: rounding must not decide a p-value


@dataclass(frozen=True)
class Rearrangements:
    """Rows to put in place of each row, `[number, n]`. `exact`: all there are, each once, the identity among them."""

    index: NDArray[np.intp]  # n stands for "no row": what is moved there is 0
    exact: bool
    possible: int  # how many different ones there are
    what: str = "clusters"  # that change places

    @property
    def strata_move(self) -> bool:
        return self.what == "units and strata"

    def said(self, level: float, unit: str) -> str:
        """What is to be said of a p-value from these, `unit` being what the units are called."""
        if self.strata_move:
            return f"so few {unit} are taken to shift all strata alike"
        if self.possible < 1 / (1 - level):  # an int, maybe 300!: too large to become a float
            return f"with {self.possible} arrangements no p is below {1 / self.possible:.3g}"
        return ""

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
    strata: NDArray[np.intp],
    units: NDArray[np.intp],
    resamples: int,
    rng: np.random.Generator,
    *,
    strata_too: bool = False,
    both: bool = False,
) -> Rearrangements:
    """Permute units that cross the strata (seeds in schedules) whole: a unit's rows in all strata move together.

    Units with rows in the same strata change places, when there are `AMPLE` ways; this is exact whatever the strata do
    to the rows of a unit, as long as units are draws of one kind. Otherwise all units of a connected part of the layout
    do, and a row that the other unit does not have becomes 0 (of residuals: their mean), which is an approximation.
    With `strata_too` and fewer than `ENOUGH` arrangements of units (three seeds), strata also change places whole; that
    needs strata alike in spread, and units that shift all of them alike: where seeds shift some schedules more than
    others it rejects in 20–30 % of studies without a correlation. `both`: they always do.
    Rows of one unit in one stratum correspond by their order.
    """
    place = _occurrence(strata, units)
    lines = codes_of([f"{s}|{o}" for s, o in zip(strata, place, strict=True)], len(strata))
    count, n = int(units.max()) + 1, len(units)
    table = np.full((int(lines.max()) + 1, count), n, dtype=np.intp)
    table[lines, units] = np.arange(n)
    patterns = codes_of([(column < n).tobytes() for column in table.T], count)
    parts = np.zeros(count, dtype=np.intp)
    parts[units] = connected(lines, units)
    columns = _members(patterns)
    if _ways(columns) < AMPLE:
        columns = _members(parts)
    rows = [[line] for line in range(len(table))]
    what = "units"
    if strata_too and (both or _ways(columns) < ENOUGH):
        of_line = np.zeros(len(table), dtype=np.intp)
        of_line[lines] = parts[units]
        rows, what = _members(of_line), "units and strata"
    columns, rows = ([group for group in groups if len(group) > 1] for groups in (columns, rows))
    sets = [*columns, *rows]
    possible = _ways(sets)
    exact = possible <= resamples + 1
    number = possible if exact else resamples
    draw = _all_orders if exact else partial(_random_all, number=number, rng=rng)
    orders = draw(sets) if sets else []
    moved = [np.tile(np.arange(size), (number, 1)) for size in (count, len(table))]
    for k, (group, order) in enumerate(zip(sets, orders, strict=True)):
        moved[k >= len(columns)][:, group] = np.array(group)[order]
    index = table[moved[1][:, lines], moved[0][:, units]]
    return Rearrangements(index, exact, possible, what)


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
