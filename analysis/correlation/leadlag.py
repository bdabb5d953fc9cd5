"""Which moves first, tr(F) or the validation score? Correlated rates of change, shifted against each other.

The paper reads off its figures that a falling tr(F) goes with rapid generalisation; this puts a number on it.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fishlens.journal import Runs

from ..inference.bootstrap import jackknife_t
from ..inference.clusters import codes_of, deletions
from ..inference.correction import westfall_young
from ..inference.layout import layout
from ..inference.permutation import (
    Rearrangements,
    rearrange,
    rearrange_whole,
    share_as_large,
    sign_flips,
)
from ..results import Estimate, not_enough
from ..series import block_curves, moving_average

Array = NDArray[np.float64]
NEEDED_RUNS = 6
NEEDED_INTERVALS = 5
NEEDED_SHARED = 3  # runs measured over the same interval, for a mean to subtract
NEEDED_UNITS = 5  # crossed units from which on the interval is over them
AUTO = "auto"
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
    crossed: str | None = None,
) -> pd.DataFrame:
    """One row per run and lag: run, lag (in evaluation intervals), interval (median, updates), r, r_own.

    The rates are those of tr(F), interpolated to the steps of validation, and of the validation score (headline
    metric; in `language`, or the mean over the languages validated). Lag +1 pairs a change of tr(F) with the change
    of the score one interval later: tr(F) leads.

    `r` correlates the rates as they are. All runs rise and level off, so it is far from zero at most lags whether or
    not the two have anything to do with each other. `r_own` correlates what is a run's own: each rate less the mean
    rate of all runs over the same interval (NaN where fewer than three runs have it). `within` names a factor
    ("schedule") whose runs alone make that mean: what a schedule does to all of its runs is then no run's own.
    `crossed` names a factor that runs through it ("seed"): what a seed's data order does at that moment in every
    schedule is not the run's own either.
    """
    return _each(_rates(runs, curve, window, language, within, crossed), max_lag)


def _each(table: pd.DataFrame, max_lag: int) -> pd.DataFrame:
    rows = []
    for run, own in table.groupby("run", sort=False):
        interval = float((own["end"] - own["begin"]).median())
        rate = {name: own[name].to_numpy() for name in ("trace", "score", "trace_own", "score_own")}
        for lag in range(-max_lag, max_lag + 1):
            plain = lagged(rate["trace"], rate["score"], lag)
            rows.append([run, lag, interval, plain, lagged(rate["trace_own"], rate["score_own"], lag)])
    return pd.DataFrame(rows, columns=["run", "lag", "interval", "r", "r_own"])


def _rates(
    runs: Runs,
    curve: str,
    window: float,
    language: str | None,
    within: str | None,
    crossed: str | None,
) -> pd.DataFrame:
    """One row per run and interval between validations: run, begin, end, trace, score, trace_own, score_own."""
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
    if not parts:
        return pd.DataFrame(columns=["run", "begin", "end", "trace", "score", "trace_own", "score_own"])
    table = pd.concat(parts, ignore_index=True)
    alike = None if within is None else table["run"].map(_factor(runs, within))
    unit = None if crossed is None else table["run"].map(_factor(runs, crossed))
    return _without_common_course(table, alike, unit)


def _factor(runs: Runs, name: str) -> pd.Series:
    """Run → its value of a factor."""
    return runs.runs.astype({"run": str}).set_index("run")[name].astype(str)


def _without_common_course(
    table: pd.DataFrame, alike: pd.Series | None, unit: pd.Series | None
) -> pd.DataFrame:
    """`table` with `trace_own` and `score_own`: the rates less their mean over the runs with both at that interval
    (and with the same value of `alike`), or less the additive fit of `alike` and `unit` at that interval."""
    table = table.assign(alike="" if alike is None else alike)
    keys = ["begin", "end", "alike"]
    shared = table.dropna().groupby(keys)["trace"].count().reindex(pd.MultiIndex.from_frame(table[keys]))
    enough = (shared.fillna(0) >= NEEDED_SHARED).to_numpy()
    own = np.full((len(table), 2), math.nan)
    usable = table[["trace", "score"]].notna().all(axis=1).to_numpy() & enough
    places = pd.Series(np.arange(len(table)))[usable]
    for _, members in places.groupby([table["begin"][usable], table["end"][usable]]):
        at = members.to_numpy()
        factors = [codes_of(table["alike"].to_numpy()[at], len(at))]
        if unit is not None:
            factors.append(codes_of(unit.to_numpy()[at], len(at)))
        own[at] = layout(factors).residual(table[["trace", "score"]].to_numpy(dtype=float)[at].T).T
    return table.assign(trace_own=own[:, 0], score_own=own[:, 1])


def lead_lag(
    runs: Runs,
    *,
    max_lag: int = 3,
    curve: str = "normalised",
    window: float = 0,
    language: str | None = None,
    cluster: str | None = None,
    within: str | None = AUTO,
    crossed: str | None = AUTO,
    level: float = 0.95,
    resamples: int = 1999,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per course and lag: the mean over runs of each run's r (on Fisher's z).

    Course "whole" describes how the two series move over training: it has no p, since all runs share a course. Evidence
    that tr(F) says something about a run is in "own", where the course of its schedule (`within`) and of its seed
    (`crossed`) at that moment are taken away (`run_lags`). "auto": "schedule" where schedules have three runs on
    average, and "seed" where the runs say their seeds and `within` is given.

    p of "own": the score's curves of whole seeds (without `crossed`: of runs, inside `within`) change places, those of
    tr(F) stay: is a run's own tr(F) nearer to its own score than to another's? p_max: corrected for having looked at
    all lags (`westfall_young`). Intervals: t over the means of seeds (at least five) or over runs; with fewer seeds as
    wide as the permutations spread.
    `cluster` (a factor such as "schedule") averages the runs of a cluster first, and flips the signs of clusters.
    Columns: course, lag, interval, those of `Estimate`, p_max. Lags with fewer than 6 runs (clusters) say so.
    """
    within, crossed = _automatic(runs, cluster, within, crossed)
    table = _rates(runs, curve, window, language, within, crossed)
    each = _each(table, max_lag)
    of_run = None if cluster is None else _factor(runs, cluster)
    unit = "runs" if cluster is None else f"{cluster}s"
    interval = float(each["interval"].median()) if len(each) else math.nan
    lags = range(-max_lag, max_lag + 1)
    parts = []
    for course, column in COURSES.items():
        wide = each.pivot(index="run", columns="lag", values=column).astype(float)
        if course == "own" and cluster is None and len(wide):
            factors = [None if name is None else _factor(runs, name) for name in (within, crossed)]
            names = list(dict.fromkeys(table["run"]))
            found = _own(_pairs(table, names, lags), names, factors, crossed, lags, level, resamples, seed)
        else:
            found = _pooled(wide, of_run, lags, unit, level, resamples, seed)
        if course == "whole":
            found[["p", "p_max"]] = math.nan
            found["method"] = found["method"].str.replace(r"; sign-flip.*", "", regex=True)
        found.insert(0, "course", course)
        found.insert(2, "interval", interval)
        parts.append(found)
    return pd.concat(parts, ignore_index=True)


def _automatic(
    runs: Runs, cluster: str | None, within: str | None, crossed: str | None
) -> tuple[str | None, str | None]:
    known = runs.runs
    if within == AUTO:
        several = "schedule" in known and len(known) >= NEEDED_SHARED * max(known["schedule"].nunique(), 1)
        within = "schedule" if several and cluster is None and known["schedule"].notna().all() else None
    if crossed == AUTO:
        said = within is not None and "seed" in known and known["seed"].notna().all()
        shared = said and known["seed"].nunique() < len(known)
        crossed = "seed" if shared else None
    return within, crossed


def _pairs(table: pd.DataFrame, names: list[str], lags: range) -> Array:
    """z of run i's own tr(F) and run j's own score at each lag; `[lags, runs, runs]`, NaN with fewer than 5 pairs."""
    grid = table[["begin", "end"]].drop_duplicates().sort_values(["begin", "end"])
    places = pd.MultiIndex.from_frame(grid)
    x, y = (
        table.set_index(["run", "begin", "end"])[name].unstack([1, 2]).reindex(index=names, columns=places)
        for name in ("trace_own", "score_own")
    )
    a, b = x.to_numpy(dtype=float), y.to_numpy(dtype=float)
    found = []
    for lag in lags:
        left, right = (
            (a[:, : max(a.shape[1] - lag, 0)], b[:, lag:]) if lag >= 0 else (a[:, -lag:], b[:, :lag])
        )
        found.append(_all_correlations(left, right))
    return np.arctanh(np.clip(np.array(found), -_EXACT_FIT, _EXACT_FIT))


def _all_correlations(a: Array, b: Array) -> Array:
    """Pearson's r of every row of `a` with every row of `b` over the columns both have; `[len(a), len(b)]`."""
    in_a, in_b = np.isfinite(a).astype(float), np.isfinite(b).astype(float)
    u, v = np.where(in_a > 0, a, 0.0), np.where(in_b > 0, b, 0.0)
    scale = [np.abs(part).max(axis=1, keepdims=True, initial=0) for part in (u, v)]
    u, v = (part / np.where(s > 0, s, 1.0) for part, s in zip((u, v), scale, strict=True))
    n = in_a @ in_b.T
    safe = np.maximum(n, 1)
    sx, sy = u @ in_b.T, in_a @ v.T
    xx, yy = (u**2) @ in_b.T - sx**2 / safe, in_a @ (v**2).T - sy**2 / safe
    good = (n >= NEEDED_INTERVALS) & (xx > 1e-12) & (yy > 1e-12)
    return np.where(good, (u @ v.T - sx * sy / safe) / np.sqrt(np.where(good, xx * yy, 1.0)), np.nan)


def _own(
    z: Array,
    names: list[str],
    factors: list[pd.Series | None],
    crossed: str | None,
    lags: range,
    level: float,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """One row per lag from z of all pairs of runs `[lags, runs, runs]`."""
    n = len(names)
    strata, units = (
        None if factor is None else codes_of(factor.reindex(names).to_numpy(), n) for factor in factors
    )
    mine = z[:, np.arange(n), np.arange(n)]
    counts = np.isfinite(mine).sum(axis=1)
    testable = counts >= NEEDED_RUNS
    moves = _exchanges(n, strata, units, resamples, seed)
    few_units = None if units is None else moves.too_few("lagged correlation", f"{crossed}s", n)
    if few_units is not None:
        return pd.DataFrame([{"lag": lag} | few_units.as_row() | {"p_max": math.nan} for lag in lags])
    padded = np.concatenate([z, np.full((*z.shape[:2], 1), np.nan)], axis=2)
    means = np.array([_means(one[np.arange(n), moves.index]) for one in padded])  # [lags, number]
    observed = np.where(testable, _means(mine), np.nan)
    p_max = westfall_young(np.abs(observed), np.abs(means), moves.exact)
    what = f"{crossed}s" if crossed else "runs"
    rows = []
    for k, lag in enumerate(lags):
        if not testable[k]:
            short = not_enough("lagged correlation", int(counts[k]), NEEDED_RUNS, "runs", n=int(counts[k]))
            rows.append({"lag": lag} | short.as_row() | {"p_max": math.nan})
            continue
        p = moves.p_value(float(abs(observed[k])), np.abs(means[k]))
        (low, high), how = _interval(mine[k], float(observed[k]), units, means[k], level, what)
        method = (
            f"mean over runs on Fisher's z, {how}; p by exchange of whole {what}, "
            f"{'all' if moves.exact else 'random'} {len(moves.index)}"
        )
        note = moves.said(level)
        clusters = int(counts[k]) if units is None else int(units.max()) + 1
        estimate = Estimate(
            "lagged correlation", math.tanh(float(observed[k])), low, high, level, p, int(counts[k]), clusters,
            method, seed, note,
        )  # fmt: skip
        rows.append({"lag": lag} | estimate.as_row() | {"p_max": p_max[k]})
    return pd.DataFrame(rows)


def _means(z: Array) -> Array:
    """Over the last axis, of the finite ones."""
    there = np.isfinite(z)
    return np.where(there, z, 0).sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)


def _exchanges(
    n: int, strata: NDArray[np.intp] | None, units: NDArray[np.intp] | None, resamples: int, seed: int
) -> Rearrangements:
    rng = np.random.default_rng(seed)
    layers = np.zeros(n, dtype=np.intp) if strata is None else strata
    if units is None:
        return rearrange(np.arange(n), layers, resamples, rng)
    return rearrange_whole(layers, units, resamples, rng)


def _interval(
    z: Array, mean: float, units: NDArray[np.intp] | None, permuted: Array, level: float, what: str
) -> tuple[tuple[float, float], str]:
    """Of the mean of z over runs: t over units where at least five, else what the permutations spread over."""
    there = np.isfinite(z)
    if units is not None and len(set(units[there].tolist())) < NEEDED_UNITS:
        reach = float(np.quantile(np.abs(permuted), level, method="higher"))
        return (math.tanh(mean - reach), math.tanh(mean + reach)), "interval from the permutations"
    groups = np.arange(int(there.sum())) if units is None else codes_of(units[there], int(there.sum()))
    weights = deletions(int(groups.max()) + 1)[:, groups]
    deleted = weights @ z[there] / weights.sum(axis=1)
    low, high = np.tanh(jackknife_t(mean, deleted, level))
    return (float(low), float(high)), f"t interval over {what}"


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
