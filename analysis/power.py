"""How many seeds (or runs) would be needed to see an effect of a given size: by simulating the very test."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from fishlens.errors import InputError

from .inference.clusters import codes_of
from .inference.layout import layout
from .inference.permutation import sign_flips

Array = NDArray[np.float64]
_EXACT_PAIRS = (
    10  # up to here the simulated test is the sign-flip test; beyond it the paired t test, close to it
)


SIMULATIONS = 10_000  # within a point of the truth in 95 of 100


@dataclass(frozen=True)
class SampleSize:
    """`needed` units (seeds, runs) reach the `power` asked for; None when `largest` do not. `curve`: size → power."""

    quantity: str
    effect: float
    power: float
    needed: int | None
    largest: int
    unit: str
    curve: pd.DataFrame  # size, power, low, high (95 % Monte Carlo interval)
    simulations: int
    level: float
    seed: int
    method: str
    note: str = ""


def paired_power(
    effect: float,
    sd: float,
    seeds: int,
    *,
    level: float = 0.95,
    simulations: int = SIMULATIONS,
    seed: int = 0,
) -> float:
    """Chance that `seeds` pairs with normal differences (mean `effect`, standard deviation `sd`, points) give a
    two-sided p < 1 − `level`: the sign-flip test simulated up to 10 pairs; beyond them the paired t test's, which is
    within a point of it. At most 5 pairs: never."""
    if seeds > _EXACT_PAIRS:
        from statsmodels.stats.power import TTestPower

        return float(TTestPower().power(abs(effect) / sd, seeds, 1 - level))
    rng = np.random.default_rng([seed, seeds])
    differences = effect + sd * rng.standard_normal((simulations, seeds))
    mean = differences.mean(axis=1)
    signs, _ = sign_flips(seeds, 2**seeds, rng)
    flipped = np.abs(differences @ signs.T) / seeds
    p = np.mean(flipped >= np.abs(mean)[:, None] * (1 - 1e-9), axis=1)
    return float(np.mean(p < 1 - level))


def pilot_spread(
    scores: pd.DataFrame, outcome: str = "average", *, baseline: str = "standard", task: str = "task"
) -> dict[str, tuple[float, int]]:
    """Task → the standard deviation of paired differences between schedules, and its degrees of freedom.

    Of runs laid out by schedule and seed: sqrt(2 MS), MS the mean square of what is left after both (what a schedule
    adds to all its runs, or a seed to all of its, is in no paired difference's spread). Every pair of schedules tells
    about it, so that two or three seeds already do. `scores`: one row per run with task, schedule, seed and `outcome`
    (`compare.scored_runs`). Tasks that leave no degree of freedom are left out.
    Raises `InputError` when none is left, or the baseline is in none.
    """
    for name in ("schedule", "seed", outcome):
        if name not in scores:
            raise InputError(f"the runs have no {name!r}; expected one of {', '.join(scores.columns)}")
    known = scores[scores[["schedule", "seed", outcome]].notna().all(axis=1)]
    if baseline not in set(known["schedule"]):
        there = ", ".join(sorted(map(str, set(known["schedule"])))) or "no schedule"
        raise InputError(f"no scored run has the schedule {baseline!r}: there is {there}")
    groups = known.groupby(task, observed=True) if task in known else [("all runs", known)]
    found = {}
    for name, rows in groups:
        factors = [codes_of(rows[factor].to_numpy(), len(rows)) for factor in ("schedule", "seed")]
        space = layout(factors)
        values = rows[outcome].to_numpy(dtype=float)
        if space.freedom > 0:
            squares = float((space.residual(values - values.mean()) ** 2).sum())
            found[str(name)] = (math.sqrt(2 * squares / space.freedom), space.freedom)
    if not found:
        raise InputError("no task of the pilot has two schedules on the same two seeds: give --sd")
    return found


def correlation_power(
    r: float, runs: int, *, level: float = 0.95, simulations: int = SIMULATIONS, seed: int = 0
) -> float:
    """Chance that `runs` independent runs from a bivariate normal with correlation `r` give a two-sided p < 1 −
    `level` (t test of Pearson's coefficient, which the permutation test follows closely)."""
    rng = np.random.default_rng([seed, runs])
    x, noise = rng.standard_normal((2, simulations, runs))
    y = r * x + math.sqrt(1 - r**2) * noise
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    found = (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    t = found * np.sqrt((runs - 2) / (1 - found**2))
    return float(np.mean(2 * stats.t.sf(np.abs(t), runs - 2) < 1 - level))


def smallest_by_exchange(
    schedules: int,
    seeds: int,
    features: int,
    *,
    power: float = 0.8,
    level: float = 0.95,
    simulations: int = 300,
) -> float:
    """The smallest correlation within schedules that the exchange of whole seeds finds with this `power`, corrected for
    unrelated `features` (`p_max`), in a complete layout: simulated, for so few seeds that all their arrangements count
    (four have 24). NaN where none does."""
    rng = np.random.default_rng([schedules, seeds, features])
    own = rng.standard_normal((2, simulations, features, schedules, seeds))
    orders = np.array(list(itertools.permutations(range(seeds))))

    def found(r: float) -> float:
        y = _centred(own[0][:, 0])
        x = own[1].copy()
        x[:, 0] = r * own[0][:, 0] + math.sqrt(1 - r**2) * x[:, 0]
        x = _centred(x)
        products = np.abs(np.einsum("nfsk,nspk->nfp", x, y[:, :, orders]))
        sizes = products / np.sqrt((x**2).sum(axis=(2, 3)))[..., None]
        reached = sizes.max(axis=1) >= sizes[:, 0, :1] * (1 - 1e-9)
        return float((reached.mean(axis=1) <= 1 - level + 1e-9).mean())

    if found(0.99) < power:
        return math.nan
    low, high = 0.0, 0.99
    for _ in range(9):
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) >= power else (middle, high)
    return high


def _centred(values: Array) -> Array:
    """Less the additive fit of the last two axes."""
    values = values - values.mean(axis=-1, keepdims=True)
    return values - values.mean(axis=-2, keepdims=True)


def seeds_needed(
    effect: float,
    sd: float,
    *,
    power: float = 0.8,
    level: float = 0.95,
    largest: int = 100,
    simulations: int = SIMULATIONS,
    seed: int = 0,
) -> SampleSize:
    """The fewest seeds with which `paired_power` reaches `power`. `sd` is that of the paired differences, not of
    either schedule's scores. An effect that was observed, and singled out because it was large, is probably smaller:
    read the answer as a lower bound. Raises `InputError` for an sd that is not positive or a power not within 0…1."""
    if not sd > 0:
        raise InputError(f"the standard deviation of the differences is {sd}; expected a number above 0")

    def at(size: int) -> float:
        return paired_power(effect, sd, size, level=level, simulations=simulations, seed=seed)

    method = (
        f"simulated sign-flip test (paired t beyond {_EXACT_PAIRS} pairs), normal differences of sd {sd:.3g}"
    )
    needed, curve = _search(at, 2, power, largest, simulations)
    note = _short(needed, largest, "seeds", power)
    return SampleSize(
        "paired difference",
        effect,
        power,
        needed,
        largest,
        "seeds",
        curve,
        simulations,
        level,
        seed,
        method,
        note,
    )


def runs_needed(
    r: float,
    *,
    power: float = 0.8,
    level: float = 0.95,
    largest: int = 400,
    simulations: int = SIMULATIONS,
    seed: int = 0,
) -> SampleSize:
    """The fewest independent runs with which `correlation_power` reaches `power`. Runs of one schedule are not
    independent: count schedules where the correlation is between schedules. Raises `InputError` unless −1 < r < 1."""
    if not -1 < r < 1:
        raise InputError(f"a correlation is {r}; expected a number between -1 and 1")

    def at(size: int) -> float:
        return correlation_power(r, size, level=level, simulations=simulations, seed=seed)

    method = "simulated t test of Pearson's coefficient, bivariate normal"
    needed, curve = _search(at, 4, power, largest, simulations)
    note = _short(needed, largest, "runs", power)
    return SampleSize(
        "correlation", r, power, needed, largest, "runs", curve, simulations, level, seed, method, note
    )


def _search(
    at: Callable[[int], float], first: int, power: float, largest: int, simulations: int
) -> tuple[int | None, pd.DataFrame]:
    """Sizes one by one while small, then in steps of a tenth, then back one by one from the first that suffices."""
    if not 0 < power < 1:
        raise InputError(f"a power is {power}; expected a number between 0 and 1")
    tried: dict[int, float] = {}
    size = first
    while size <= largest:
        tried[size] = at(size)
        if tried[size] >= power:
            break
        size += max(1, size // 10)
    needed = size if tried.get(size, 0.0) >= power else None
    while needed is not None and needed - 1 >= first and needed - 1 not in tried:
        tried[needed - 1] = at(needed - 1)
        if tried[needed - 1] < power:
            break
        needed -= 1
    sizes = sorted(tried)
    reached = np.array([tried[size] for size in sizes])
    reach = 1.96 * np.sqrt(reached * (1 - reached) / simulations)
    low, high = np.maximum(reached - reach, 0), np.minimum(reached + reach, 1)
    return needed, pd.DataFrame({"size": sizes, "power": reached, "low": low, "high": high})


def _short(needed: int | None, largest: int, unit: str, power: float) -> str:
    return "" if needed is not None else f"{largest} {unit} do not reach a power of {power:g}"
