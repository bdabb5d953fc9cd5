"""How large is a difference: effect sizes, and summaries over tasks that single runs do not decide.

Agarwal et al. (2021, "Deep RL at the edge of the statistical precipice") for the interquartile mean, the probability of
improvement and performance profiles; scores of several tasks are put in `{task: [runs]}`.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from fishlens.errors import InputError

from .inference.bootstrap import percentile
from .results import Estimate, NotEnough, not_enough

Array = NDArray[np.float64]
Scores = Mapping[str, ArrayLike]
NEEDED = 3  # runs of every task


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


def probability_of_improvement(
    x: Scores, y: Scores, *, level: float = 0.95, resamples: int = 1999, seed: int = 0
) -> Estimate | NotEnough:
    """P(a run of `x` scores above a run of `y` in the same task), ties half, averaged over the tasks both have
    (Mann–Whitney's U / nm). Runs are resampled within each task; p is NaN, the interval says whether 0.5 is in it."""
    tasks = [task for task in x if task in y]
    pairs = [(_finite(x[task]), _finite(y[task])) for task in tasks]
    fewest = min((len(part) for pair in pairs for part in pair), default=0)
    n = sum(len(a) + len(b) for a, b in pairs)
    if fewest < NEEDED:
        return not_enough("probability of improvement", fewest, NEEDED, "runs of each task", n=n)

    def above(a: Array, b: Array) -> Array:
        signs = np.sign(a[..., :, None] - b[..., None, :])
        return (signs.mean(axis=(-2, -1)) + 1) / 2

    value = float(np.mean([above(a, b) for a, b in pairs]))
    rng = np.random.default_rng(seed)
    drawn = [above(_resample(a, resamples, rng), _resample(b, resamples, rng)) for a, b in pairs]
    low, high = percentile(np.mean(drawn, axis=0), level)
    method = "mean of U / nm over tasks; percentile bootstrap of runs within tasks"
    return Estimate("probability of improvement", value, low, high, level, math.nan, n, n, method, seed)


def interquartile_mean(
    scores: Scores, *, level: float = 0.95, resamples: int = 1999, seed: int = 0
) -> Estimate | NotEnough:
    """The mean of the middle half of all runs of all tasks (a quarter, rounded down, is cut from each end), with the
    percentile interval of a bootstrap stratified by task. Tasks must have the same number of runs: with unequal ones
    the middle half is that of the task with most runs. p is NaN. Raises `InputError` for unequal numbers."""
    parts = [_finite(values) for values in scores.values()]
    sizes = {len(part) for part in parts}
    n = sum(map(len, parts))
    if len(sizes) > 1:
        listed = ", ".join(f"{task}: {len(part)}" for task, part in zip(scores, parts, strict=True))
        raise InputError(f"the tasks have different numbers of runs ({listed}); expected as many of each")
    if not parts or min(sizes) < NEEDED:
        return not_enough("interquartile mean", min(sizes, default=0), NEEDED, "runs of each task", n=n)
    rng = np.random.default_rng(seed)
    value = float(stats.trim_mean(np.concatenate(parts), 0.25))
    drawn = np.concatenate([_resample(part, resamples, rng) for part in parts], axis=1)
    low, high = percentile(stats.trim_mean(drawn, 0.25, axis=1), level)
    method = "mean of the middle half; percentile bootstrap of runs within tasks"
    return Estimate("interquartile mean", value, low, high, level, math.nan, n, n, method, seed)


def performance_profile(
    scores: Scores,
    thresholds: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 1999,
    seed: int = 0,
) -> pd.DataFrame:
    """The share of runs that score above each threshold, averaged over tasks, with pointwise percentile intervals of a
    bootstrap stratified by task. Columns: threshold, share, low, high."""
    at = np.asarray(thresholds, dtype=float)
    parts = [_finite(values) for values in scores.values()]
    if not parts or min(map(len, parts)) == 0:
        raise InputError("a performance profile needs a score of every task: one has none")
    rng = np.random.default_rng(seed)
    share = np.mean([(part[:, None] > at).mean(axis=0) for part in parts], axis=0)
    drawn = np.zeros((resamples, len(at)))
    for part in parts:
        ordered = np.sort(_resample(part, resamples, rng), axis=1)
        below = np.array([np.searchsorted(row, at, side="right") for row in ordered])
        drawn += (1 - below / len(part)) / len(parts)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return pd.DataFrame({"threshold": at, "share": share, "low": low, "high": high})


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


def _resample(values: Array, resamples: int, rng: np.random.Generator) -> Array:
    return values[rng.integers(len(values), size=(resamples, len(values)))]
