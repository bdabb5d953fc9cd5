"""Which moves first, tr(F) or the validation score? Correlated rates of change, shifted against each other.

The paper reads off its figures that a falling tr(F) goes with rapid generalisation; this puts a number on it.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from fishlens.analysis.curves import block_curves, moving_average
from fishlens.analysis.inference.bootstrap import jackknife_t
from fishlens.analysis.inference.clusters import deletions
from fishlens.analysis.inference.permutation import share_as_large, sign_flips
from fishlens.analysis.results import Estimate, not_enough
from numpy.typing import NDArray

from fishlens.journal import Runs

Array = NDArray[np.float64]
NEEDED_RUNS = 6
NEEDED_INTERVALS = 5
NEEDED_SHARED = 3  # runs measured over the same interval, for a mean to subtract
COURSES = {"whole": "r", "own": "r_own"}
_EXACT_FIT = 1 - 1e-9


def rates(steps: Array, values: Array) -> Array:
    """Change per update between successive points, `[n − 1]`."""
    return np.diff(values) / np.diff(steps)


def lagged(x: Array, y: Array, lag: int) -> float:
    """Pearson's r of x_j and y_{j + lag}; NaN with fewer than five such pairs or when one is constant."""
    a, b = (x[: len(x) - lag], y[lag:]) if lag >= 0 else (x[-lag:], y[: len(y) + lag])
    there = np.isfinite(a) & np.isfinite(b)
    if there.sum() < NEEDED_INTERVALS or np.ptp(a[there]) == 0 or np.ptp(b[there]) == 0:
        return math.nan
    return float(np.corrcoef(a[there], b[there])[0, 1])


def run_lags(
    runs: Runs,
    *,
    max_lag: int = 3,
    curve: str = "normalised",
    window: float = 0,
    language: str | None = None,
    within: str | None = None,
) -> pd.DataFrame:
    """One row per run and lag: run, lag (in evaluation intervals), interval (median, updates), r, r_own.

    The rates are those of tr(F), interpolated to the steps of validation, and of the validation score (headline
    metric; in `language`, or the mean over the languages validated). Lag +1 pairs a change of tr(F) with the change
    of the score one interval later: tr(F) leads.

    `r` correlates the rates as they are. All runs rise and level off, so it is far from zero at most lags whether or
    not the two have anything to do with each other. `r_own` correlates what is a run's own: each rate less the mean
    rate of all runs over the same interval (NaN where fewer than three runs have it). `within` names a factor
    ("schedule") whose runs alone make that mean: what a schedule does to all of its runs is then no run's own.
    """
    scores = _validation(runs, language)
    parts = []
    for one in block_curves(runs.fisher, runs.unfreezing):
        steps, values = scores.get(one.run, (np.empty(0), np.empty(0)))
        series = moving_average(one.steps, one.series(curve), window)
        there = np.isfinite(series)
        if there.sum() < 2 or len(steps) < 2:
            continue
        trace = np.interp(steps, one.steps[there], series[there], left=math.nan, right=math.nan)
        at = {"run": one.run, "begin": steps[:-1], "end": steps[1:]}
        parts.append(pd.DataFrame({**at, "trace": rates(steps, trace), "score": rates(steps, values)}))
    columns = ["run", "lag", "interval", "r", "r_own"]
    if not parts:
        return pd.DataFrame(columns=columns)
    table = pd.concat(parts, ignore_index=True)
    rows = []
    alike = None if within is None else table["run"].map(_factor(runs, within))
    for run, own in _without_common_course(table, alike).groupby("run", sort=False):
        interval = float((own["end"] - own["begin"]).median())
        rate = {name: own[name].to_numpy() for name in ("trace", "score", "trace_own", "score_own")}
        for lag in range(-max_lag, max_lag + 1):
            plain = lagged(rate["trace"], rate["score"], lag)
            rows.append([run, lag, interval, plain, lagged(rate["trace_own"], rate["score_own"], lag)])
    return pd.DataFrame(rows, columns=columns)


def _factor(runs: Runs, name: str) -> pd.Series:
    """Run → its value of a factor."""
    return runs.runs.astype({"run": str}).set_index("run")[name].astype(str)


def _without_common_course(table: pd.DataFrame, alike: pd.Series | None) -> pd.DataFrame:
    """`table` with `trace_own` and `score_own`: the rates less their mean over the runs with both at that interval
    (and with the same value of `alike`)."""
    table = table.assign(alike="" if alike is None else alike)
    keys = ["begin", "end", "alike"]
    where = pd.MultiIndex.from_frame(table[keys])
    for name in ("trace", "score"):
        shared = table.dropna().groupby(keys)[name].agg(["mean", "count"])
        mean = shared["mean"].where(shared["count"] >= NEEDED_SHARED)
        table[f"{name}_own"] = table[name] - mean.reindex(where).to_numpy()
    return table


def lead_lag(
    runs: Runs,
    *,
    max_lag: int = 3,
    curve: str = "normalised",
    window: float = 0,
    language: str | None = None,
    cluster: str | None = None,
    within: str | None = None,
    level: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per course and lag: the mean over runs of each run's r (on Fisher's z), with its t interval over runs.

    Inside a run successive changes are not independent, so a run gives one r per lag and runs are what is counted;
    `cluster` (a factor such as "schedule") averages the runs of a cluster first; where the seeds of a schedule are no
    independent evidence, give that or `within` (see `run_lags`). p: sign-flip test of the mean z;
    p_max: the same against the largest |t| over all lags, so it is corrected for having looked at all of them.
    `course` "whole" describes how the two series move over training; evidence that tr(F) says something about a run
    is in "own", where the course common to all runs is taken away (`run_lags`).
    Columns: course, lag, interval, those of `Estimate`, p_max. Lags with fewer than 6 runs (clusters) say so.
    """
    each = run_lags(runs, max_lag=max_lag, curve=curve, window=window, language=language, within=within)
    of_run = None if cluster is None else _factor(runs, cluster)
    unit = "runs" if cluster is None else f"{cluster}s"
    interval = float(each["interval"].median()) if len(each) else math.nan
    parts = []
    for course, column in COURSES.items():
        wide = each.pivot(index="run", columns="lag", values=column).astype(float)
        found = _pooled(wide, of_run, range(-max_lag, max_lag + 1), unit, level, resamples, seed)
        found.insert(0, "course", course)
        found.insert(2, "interval", interval)
        parts.append(found)
    return pd.concat(parts, ignore_index=True)


def _pooled(
    wide: pd.DataFrame,
    of_run: pd.Series | None,
    lags: range,
    unit: str,
    level: float,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """One row per lag from r of every run (`wide`: runs × lags)."""
    z = np.arctanh(wide.clip(-_EXACT_FIT, _EXACT_FIT))
    n = z.notna().sum()
    if of_run is not None and len(z):
        z = z.groupby(of_run.reindex(z.index).to_numpy()).mean()
    rng = np.random.default_rng(seed)
    counts = z.notna().sum()
    testable = [lag for lag in z.columns if counts[lag] >= NEEDED_RUNS]
    p, p_max, drawn = _sign_flip(z[testable].to_numpy(), resamples, rng) if testable else ([], [], "")
    rows = []
    for lag in lags:
        row: dict[str, Any] = {"lag": lag}
        if lag not in testable:
            have, size = int(counts.get(lag, 0)), int(n.get(lag, 0))
            found = not_enough("lagged correlation", have, NEEDED_RUNS, unit, n=size).as_row()
            rows.append(row | found | {"p_max": math.nan})
            continue
        values = z[lag].dropna().to_numpy()
        count, k = len(values), testable.index(lag)
        mean = float(values.mean())
        ends = np.tanh(jackknife_t(mean, deletions(count) @ values / (count - 1), level))
        method = f"mean over {unit} on Fisher's z, t interval; sign-flip p over {unit}, {drawn}"
        estimate = Estimate(
            "lagged correlation", math.tanh(mean), float(ends[0]), float(ends[1]), level, p[k], int(n[lag]), count,
            method, seed,
        )  # fmt: skip
        rows.append(row | estimate.as_row() | {"p_max": p_max[k]})
    return pd.DataFrame(rows)


def _sign_flip(z: Array, resamples: int, rng: np.random.Generator) -> tuple[list[float], list[float], str]:
    """p per column and p against the largest |t| over columns; `z` `[units, lags]`, NaN where a unit has none."""
    signs, exact = sign_flips(len(z), resamples, rng)
    there = np.isfinite(z)
    values = np.where(there, z, 0.0)
    count = there.sum(axis=0)

    def t_statistics(flips: Array) -> Array:
        mean = flips @ values / count
        spread = (values**2).sum(axis=0) / count - mean**2
        return np.abs(mean) / np.sqrt(np.maximum(spread, 1e-300))

    observed, flipped = t_statistics(np.ones((1, len(z))))[0], t_statistics(signs)
    p = [share_as_large(float(t), flipped[:, k], exact) for k, t in enumerate(observed)]
    largest = flipped.max(axis=1)
    p_max = [share_as_large(float(t), largest, exact) for t in observed]
    return p, p_max, f"{'all' if exact else 'random'} {len(signs)}"


def _validation(runs: Runs, language: str | None) -> dict[str, tuple[Array, Array]]:
    """run → (steps, score) of validation, the last score where a step has several."""
    rows = runs.evaluation
    keep = (rows["split"] == "validation").to_numpy() & rows["headline"].to_numpy(dtype=bool)
    if language is not None:
        keep &= (rows["language"] == language).to_numpy()
    rows = rows[keep].drop_duplicates(["run", "step", "language"], keep="last")
    means = rows.groupby([rows["run"].astype(str), "step"], observed=True)["value"].mean()
    return {
        str(run): (part.index.get_level_values("step").to_numpy(dtype=float), part.to_numpy(dtype=float))
        for run, part in means.groupby(level=0)
    }
