"""How large is a difference: effect sizes, and summaries over tasks that single runs do not decide.

Agarwal et al. (2021, "Deep RL at the edge of the statistical precipice") for the interquartile mean, the probability of
improvement and performance profiles; scores of several tasks are put in `{task: [runs]}`.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from fishlens.errors import InputError

from .inference.bootstrap import studentised
from .results import Estimate, NotEnough, not_enough

Array = NDArray[np.float64]
Scores = Mapping[str, ArrayLike]
NEEDED = 3  # pairs, or runs of one size, for an interval
NEEDED_OF_TASK = 6  # runs: of fewer, intervals cover too little or everything


def paired_d(differences: ArrayLike, *, level: float = 0.95) -> Estimate | NotEnough:
    """Cohen's d_z of paired differences with Hedges' correction: mean / sd · (1 − 3 / (4(n − 1) − 1)).

    The interval inverts the noncentral t of the paired t statistic (exact for normal differences), corrected alike; p
    is the paired t test's. Raises `InputError` for a standard deviation of zero.
    """
    values = _finite(differences)
    n = len(values)
    if n < NEEDED:
        return not_enough("paired d", n, NEEDED, "seeds", n=n, why="pairs of runs with the same seed")
    sd = float(values.std(ddof=1))
    if sd <= 1e-12 * float(np.abs(values).max()):
        raise InputError("all paired differences are the same: they have no standardised size")
    correction = 1 - 3 / (4 * (n - 1) - 1)
    t = float(values.mean()) / sd * math.sqrt(n)
    ends = [_noncentrality(t, n - 1, (1 + sign * level) / 2) for sign in (1, -1)]
    low, high = (correction * end / math.sqrt(n) for end in ends)
    p = float(2 * stats.t.sf(abs(t), n - 1))
    method = "Cohen's d of paired differences, Hedges' correction; noncentral t interval; paired t p"
    return Estimate("paired d", correction * t / math.sqrt(n), low, high, level, p, n, n, method)


def _noncentrality(t: float, freedom: int, share: float) -> float:
    """The δ for which a noncentral t lies below `t` with probability `share`."""
    from scipy.optimize import brentq

    reach = abs(t) + 10 * math.sqrt(1 + t**2 / freedom)
    return float(brentq(lambda delta: stats.nct.cdf(t, freedom, delta) - share, t - reach, t + reach))


def probability_of_improvement(x: Scores, y: Scores, *, level: float = 0.95) -> Estimate | NotEnough:
    """P(a run of `x` scores above a run of `y` in the same task), ties half, averaged over the tasks both have
    (Mann–Whitney's U / nm); p is NaN, the interval says whether 0.5 is in it.

    The interval is of the logit, its error that of U's two parts (DeLong et al. 1988, *Biometrics* 44). Where all
    numbers of runs are the same, the k-th runs of all tasks and of both sides are taken as those of one seed, which
    share what the seed does; where they are not, runs as independent. Not enough with fewer than 6 runs of a task; no
    interval where every run of one side is above every run of the other.
    """
    tasks = [task for task in x if task in y]
    pairs = [(_finite(x[task]), _finite(y[task])) for task in tasks]
    sizes = {len(part) for pair in pairs for part in pair}
    n = sum(len(a) + len(b) for a, b in pairs)
    if min(sizes, default=0) < NEEDED_OF_TASK:
        return not_enough(
            "probability of improvement", min(sizes, default=0), NEEDED_OF_TASK, "runs of each task", n=n
        )
    above = [(np.sign(a[:, None] - b) + 1) / 2 for a, b in pairs]
    value = float(np.mean([own.mean() for own in above]))
    variance, freedom = _of_improvement(above, paired=len(sizes) == 1)
    # of one task the error is too large already for few runs, of several it varies as over two samples
    reach = stats.norm.ppf((1 + level) / 2) if len(pairs) == 1 else stats.t.ppf((1 + level) / 2, freedom)
    low = high = math.nan
    if 0 < value < 1 and variance > 0:
        ends = special.logit(value) + np.array([-1, 1]) * reach * math.sqrt(variance) / (value * (1 - value))
        low, high = map(float, special.expit(ends))
    note = "" if low == low else "no interval: every run of one side is above every run of the other"
    method = "mean of U / nm over tasks; interval of the logit with DeLong's error"
    return Estimate("probability of improvement", value, low, high, level, math.nan, n, n, method, None, note)


def _of_improvement(above: list[Array], *, paired: bool) -> tuple[float, float]:
    """The variance of the mean of U / nm over tasks, and its degrees of freedom."""
    parts = [(own.mean(axis=1) - own.mean(), own.mean(axis=0) - own.mean()) for own in above]
    if paired:
        size = len(parts[0][0])
        each = np.mean([own + other for own, other in parts], axis=0)
        return float((each**2).sum()) / (size * (size - 1)), 2.0 * (size - 1)
    pieces = [float((part**2).sum()) / (len(part) * (len(part) - 1)) for pair in parts for part in pair]
    fewest = min(len(part) for pair in parts for part in pair)
    return sum(pieces) / len(above) ** 2, 2.0 * (fewest - 1)


def interquartile_mean(
    scores: Scores, *, level: float = 0.95, resamples: int = 1999, seed: int = 0
) -> Estimate | NotEnough:
    """The mean of the middle half of all runs of all tasks (a quarter, rounded down, is cut from each end); p is NaN.

    Tasks must have the same number of runs: with unequal ones the middle half is that of the task with most. The k-th
    runs of all tasks are taken as those of one seed, which share what the seed does. The interval is the studentised
    bootstrap's over seeds, with the error of a trimmed mean (Tukey & McLaughlin 1963) of what each seed contributes
    within the tasks. Not enough with fewer than 6 runs of each task. Raises `InputError` for unequal numbers.
    """
    parts = [_finite(values) for values in scores.values()]
    sizes = {len(part) for part in parts}
    n = sum(map(len, parts))
    if len(sizes) > 1:
        listed = ", ".join(f"{task}: {len(part)}" for task, part in zip(scores, parts, strict=True))
        raise InputError(f"the tasks have different numbers of runs ({listed}); expected as many of each")
    fewest = min(sizes, default=0)
    if fewest < NEEDED_OF_TASK:
        return not_enough("interquartile mean", fewest, NEEDED_OF_TASK, "runs of each task", n=n)
    size, rng = fewest, np.random.default_rng(seed)
    drawn = np.array(parts)[:, rng.integers(size, size=(resamples, size))].swapaxes(0, 1)
    value, error = (float(part[0]) for part in _middle_half(np.array(parts)[None]))
    low, high = studentised(value, error, *_middle_half(drawn), level)
    note = "no interval: too many runs have the same score" if math.isnan(low) else ""
    method = "mean of the middle half; studentised bootstrap of seeds"
    return Estimate("interquartile mean", value, low, high, level, math.nan, n, size, method, seed, note)


def _middle_half(values: Array) -> tuple[Array, Array]:
    """Of `[sets, tasks, seeds]`: the mean of the middle half of each set, and its error over seeds; `[sets]` each."""
    sets, _, size = values.shape
    ordered = np.sort(values.reshape(sets, -1), axis=1)
    cut = ordered.shape[1] // 4
    kept = ordered.shape[1] - 2 * cut
    ends = ordered[:, cut, None, None], ordered[:, -cut - 1, None, None]
    drawn_in = np.clip(values, *ends)  # winsorised
    each = (drawn_in - drawn_in.mean(axis=2, keepdims=True)).sum(axis=1) / kept
    wider = max(size / (size - 1), kept / (kept - 1))
    return ordered[:, cut : cut + kept].mean(axis=1), np.sqrt(wider * (each**2).sum(axis=1))


def performance_profile(scores: Scores, thresholds: ArrayLike, *, level: float = 0.95) -> pd.DataFrame:
    """The share of runs that score above each threshold, averaged over tasks, with pointwise intervals.
    Columns: threshold, share, low, high.

    Of one task Wilson's (1927) interval; those of several are put together by what each end lies off (MOVER: Zou &
    Donner 2008, *Statist. Med.* 27). Where tasks have the same number of runs, the k-th runs of all are taken as those
    of one seed: by as much as their mean varies more than independent runs would, the interval is wider.
    Raises `InputError` for a task without a score.
    """
    at = np.asarray(thresholds, dtype=float)
    parts = [_finite(values) for values in scores.values()]
    if not parts or min(map(len, parts)) == 0:
        raise InputError("a performance profile needs a score of every task: one has none")
    over = [(part[:, None] > at).astype(float) for part in parts]
    shares = np.array([own.mean(axis=0) for own in over])
    ends = np.array([_wilson(own, len(part), level) for own, part in zip(shares, parts, strict=True)])
    share, wider = shares.mean(axis=0), np.sqrt(_shared_by_seeds(over))
    off = wider * np.sqrt(((ends - shares[:, None]) ** 2).sum(axis=0)) / len(parts)
    low, high = np.clip([share - off[0], share + off[1]], 0.0, 1.0)
    return pd.DataFrame({"threshold": at, "share": share, "low": low, "high": high})


def _wilson(share: Array, n: int, level: float) -> Array:
    z = float(stats.norm.ppf((1 + level) / 2))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return np.array([middle - reach, middle + reach])


def _shared_by_seeds(over: list[Array]) -> Array:
    """By what factor the variance of the mean share over tasks is larger than of independent runs; `[thresholds]`."""
    sizes = {len(own) for own in over}
    if len(sizes) > 1 or len(over) == 1 or sizes == {1}:
        return np.ones(over[0].shape[1])
    together = np.mean(over, axis=0).var(axis=0, ddof=1)
    apart = np.mean([own.var(axis=0, ddof=1) for own in over], axis=0) / len(over)
    return np.clip(together / np.where(apart > 0, apart, np.inf), 1.0, len(over))


def scores_by_task(
    table: pd.DataFrame,
    outcome: str = "average",
    *,
    task: str = "task",
    where: Mapping[str, object] | None = None,
) -> dict[str, Array]:
    """`{task: scores of its runs}` of a table of `compare.scored_runs`, of the rows in which every column of `where`
    has its value. Raises `InputError` for a column that is not there."""
    for name in (task, outcome, *(where or {})):
        if name not in table:
            raise InputError(f"the table has no column {name!r}; expected one of {', '.join(table.columns)}")
    for name, value in (where or {}).items():
        table = table[(table[name] == value).to_numpy()]
    return {str(name): _finite(rows[outcome]) for name, rows in table.groupby(task, observed=True)}


def low_data_curve(
    table: pd.DataFrame,
    outcome: str = "average",
    *,
    size: str = "examples",
    by: str = "schedule",
    level: float = 0.95,
) -> pd.DataFrame:
    """Scores against the amount of training data (the paper's Tables 11 and 13): one row per `by` and `size` with runs,
    mean, sd and the t interval of the mean (NaN with fewer than 3 runs). `table`: one row per run."""
    for name in (size, by, outcome):
        if name not in table:
            raise InputError(f"the table has no column {name!r}; expected one of {', '.join(table.columns)}")
    known = table[table[[size, by, outcome]].notna().all(axis=1)]
    rows = []
    for (name, count), members in known.groupby([by, size], observed=True, sort=True):
        values = members[outcome].to_numpy(dtype=float)
        n, sd = len(values), float(values.std(ddof=1)) if len(values) > 1 else math.nan
        reach = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd / math.sqrt(n) if n >= NEEDED else math.nan
        mean = float(values.mean())
        rows.append([name, count, n, mean, sd, mean - reach, mean + reach])
    return pd.DataFrame(rows, columns=[by, size, "runs", "mean", "sd", "low", "high"])


def _finite(values: ArrayLike) -> Array:
    found = np.asarray(values, dtype=float).ravel()
    return found[np.isfinite(found)]
