"""Schedules against a baseline, paired by seed: differences with intervals and p-values, and equivalence.

Two runs with the same seed share initialisation and data order; their difference is what the schedule did. With n
seeds the smallest p a sign-flip test can give is 2 / 2ⁿ: five seeds never reach 0.05, six do. With fewer there is no p.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from fishlens.errors import InputError
from fishlens.journal import Runs
from fishlens.names import counted

from .inference.bootstrap import bca, jackknife_t, percentile
from .inference.clusters import deletions, resampled_counts
from .inference.correction import benjamini_hochberg, holm
from .inference.permutation import share_as_large, sign_flips
from .outcomes import OUTCOMES, language_scores, run_outcomes
from .results import Estimate, NotEnough, not_enough

Array = NDArray[np.float64]
NEEDED = 3  # pairs, for an interval; more for a p-value below 0.05
INTERVALS = ("t", "bca", "percentile")


def paired_difference(
    differences: ArrayLike,
    *,
    interval: str = "t",
    level: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
    quantity: str = "mean difference",
) -> Estimate | NotEnough:
    """The mean of paired differences `[n]` (NaN left out), its interval and the two-sided sign-flip p-value.

    `interval`: "t" (Student; the default because with few pairs the bootstraps are too narrow, docs/statistics.md),
    "bca" or "percentile" (paired bootstraps). The p-value is exact (all 2ⁿ sign patterns) up to 13 pairs; NaN where no
    pattern of so few could make it 1 − `level` (fewer than 6 for 95 %), and `note` says so.
    Returns `NotEnough` with fewer than three pairs. Raises `InputError` for an unknown interval.
    """
    if interval not in INTERVALS:
        raise InputError(f"there is no interval {interval!r}; expected one of {', '.join(INTERVALS)}")
    values = np.asarray(differences, dtype=float)
    values = values[np.isfinite(values)]
    n = len(values)
    if n < NEEDED:
        return not_enough(quantity, n, NEEDED, "seeds", n=n, why="pairs of runs with the same seed")
    rng = np.random.default_rng(seed)
    mean = float(values.mean())
    signs, exact = sign_flips(n, resamples, rng)
    p = share_as_large(abs(mean), np.abs(signs @ values) / n, exact)
    if interval == "t":
        low, high = jackknife_t(mean, deletions(n) @ values / (n - 1), level)
    else:
        resampled = resampled_counts(n, resamples, rng) @ values / n
        deleted = deletions(n) @ values / (n - 1)
        ends = (
            percentile(resampled, level) if interval == "percentile" else bca(mean, resampled, deleted, level)
        )
        low, high = ends
    how = {
        "t": "Student's t interval",
        "bca": "paired BCa bootstrap",
        "percentile": "paired percentile bootstrap",
    }
    notes, tested = [], f"; sign-flip p, {'all' if exact else 'random'} {len(signs)}"
    needed = pairs_needed(level)
    if n < needed:
        p, tested = math.nan, ""
        notes.append(
            f"no p: not enough seeds, {n} pairs of at least {needed} (none could be below {2 / 2**n:.3g})"
        )
    if interval == "t" and (low > 0 or high < 0) and p >= 1 - level:
        notes.append(
            f"the interval leaves 0 out and p is {p:.3g}: the interval takes the differences as normal, the sign-flip "
            "test counts arrangements and takes them as symmetric only"
        )
    note = "; ".join(notes)
    method = f"{how[interval]}{tested}"
    return Estimate(quantity, mean, low, high, level, p, n, n, method, seed, note)


def pairs_needed(level: float = 0.95) -> int:
    """The fewest pairs of which a sign-flip p can be 1 − `level`."""
    return math.ceil(1 - math.log2(1 - level) - 1e-9)


def equivalence(differences: ArrayLike, margin: float, *, level: float = 0.95) -> Estimate | NotEnough:
    """Two one-sided paired t tests (Schuirmann 1987) of |mean difference| < `margin` (points).

    p is the larger of the two one-sided ones; equivalent when p < 1 − `level`, which is when the interval given,
    of level 2·`level` − 1, lies inside ±margin. Failing to find a difference is not this.
    Raises `InputError` for a margin that is not positive.
    """
    if not margin > 0:
        raise InputError(f"an equivalence margin is {margin}; expected a number of points above 0")
    values = np.asarray(differences, dtype=float)
    values = values[np.isfinite(values)]
    n = len(values)
    if n < NEEDED:
        return not_enough("equivalence", n, NEEDED, "seeds", n=n, why="pairs of runs with the same seed")
    mean, spread = float(values.mean()), float(np.ptp(values))
    if spread > 0:
        from statsmodels.stats.weightstats import DescrStatsW

        sample = DescrStatsW(values)
        p = float(sample.ttost_mean(-margin, margin)[0])
        low, high = map(float, sample.tconfint_mean(alpha=2 * (1 - level)))
    else:
        p, low, high = (0.0 if abs(mean) < margin else 1.0), mean, mean
    method = f"TOST (statsmodels), paired t, margin ±{margin:g} points"
    return Estimate("equivalence", mean, low, high, 2 * level - 1, p, n, n, method)


def compare(
    scores: pd.DataFrame,
    outcome: str = "average",
    *,
    baseline: str = "standard",
    margin: float | None = None,
    by: str = "schedule",
    pair: str = "seed",
    interval: str = "t",
    level: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
) -> pd.DataFrame:
    """Every level of `by` against `baseline`, one row each (the baseline first, without a difference).

    `scores`: one row per run with columns `by`, `pair` and `outcome` (see `scored_runs`). Columns: `by`, outcome,
    runs, mean, sd (over runs), mean_paired and baseline_paired (over the seeds that both have: the difference is
    between these), then as `Estimate` for the difference to the baseline, p_holm, p_bh over the rows, and with a
    `margin` equivalence_p, equivalence_p_holm and equivalent (by the corrected one). `sd` is NaN for a single run.
    `by="adapter"` compares adapters (the paper's Table 7) where schedule and task are the same.
    Raises `InputError` when the baseline is not there, or two runs have the same schedule and seed.
    """
    wide = _paired(scores, outcome, by=by, pair=pair)
    if baseline not in wide.columns:
        raise InputError(f"no run has {by} {baseline!r}; expected one of {', '.join(map(str, wide.columns))}")
    rows = []
    for name in [baseline, *(column for column in wide.columns if column != baseline)]:
        own = wide[name].dropna()
        spread = float(own.std(ddof=1)) if len(own) > 1 else math.nan
        row: dict[str, Any] = {
            by: name,
            "outcome": outcome,
            "runs": len(own),
            "mean": float(own.mean()),
            "sd": spread,
        }
        if name != baseline:
            differences = (wide[name] - wide[baseline]).to_numpy()
            both = np.isfinite(differences)
            row["mean_paired"] = float(wide[name][both].mean()) if both.any() else math.nan
            row["baseline_paired"] = float(wide[baseline][both].mean()) if both.any() else math.nan
            result = paired_difference(
                differences, interval=interval, level=level, resamples=resamples, seed=seed
            )
            row |= result.as_row()
            unpaired = len(own) - int(np.isfinite(differences).sum())
            if unpaired:
                row["note"] = "; ".join(
                    filter(
                        None, [row["note"], f"{counted(unpaired, 'runs')} without a partner in {baseline}"]
                    )
                )
            if margin is not None:
                tost = equivalence(differences, margin, level=level)
                row["equivalence_p"] = tost.p if isinstance(tost, Estimate) else math.nan
        rows.append(row)
    empty = not_enough("mean difference", 0, NEEDED, "seeds", n=0).as_row()
    table = pd.DataFrame(rows)
    table = table.reindex(columns=[*dict.fromkeys([*table.columns, *empty])])
    p = table["p"].to_numpy(dtype=float)
    table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(p))
    table.insert(table.columns.get_loc("p_holm") + 1, "p_bh", benjamini_hochberg(p))
    if margin is not None and "equivalence_p" in table:
        corrected = holm(table["equivalence_p"].to_numpy(dtype=float))
        place = int(table.columns.get_indexer_for(["equivalence_p"])[0])
        table.insert(place + 1, "equivalence_p_holm", corrected)
        table.insert(place + 2, "equivalent", corrected < 1 - level)
    return table


def compare_over(
    groups: Sequence[pd.DataFrame],
    outcome: str = "average",
    *,
    baseline: str = "standard",
    by: str = "schedule",
    pair: str = "seed",
) -> pd.DataFrame:
    """Every level of `by` against `baseline` over several groups of runs (tasks, models), one row each.

    `groups`: tables as `compare` reads them. A seed's differences in the groups are averaged first, so that a seed is
    one observation; only seeds count that all groups have which have this level. Columns: `by`, groups (how many have
    it, two at least), then as `Estimate` for the mean difference, and p_holm over the rows. Raises `InputError` when no
    group has the baseline, or two runs of a group have the same schedule and seed.
    """
    tables = [_paired(scores, outcome, by=by, pair=pair) for scores in groups]
    tables = [table for table in tables if baseline in table]
    if not tables:
        raise InputError(f"no group has a run with {by} {baseline!r}")
    rows = []
    for name in dict.fromkeys(column for table in tables for column in table if column != baseline):
        own = [table[name] - table[baseline] for table in tables if name in table]
        if len(own) < 2:
            continue
        by_pair = pd.concat(own, axis=1, join="inner").dropna().mean(axis=1)
        rows.append({by: name, "groups": len(own), **paired_difference(by_pair.to_numpy()).as_row()})
    empty = not_enough("mean difference", 0, NEEDED, "seeds", n=0).as_row()
    table = pd.DataFrame(rows, columns=[by, "groups", *empty])
    return table.assign(p_holm=holm(table["p"].to_numpy(dtype=float)))


def scored_runs(runs: Runs, *, split: str = "test", metric: str | None = None) -> pd.DataFrame:
    """Outcomes of every run beside its factors: what `compare` and `table_one` read."""
    factors = runs.runs.astype({"run": str})
    keep = [name for name in ("run", "task", "model", "adapter", "schedule", "seed") if name in factors]
    return factors[keep].merge(
        run_outcomes(runs, split=split, metric=metric), on="run", validate="one_to_one"
    )


def _paired(scores: pd.DataFrame, outcome: str, *, by: str, pair: str) -> pd.DataFrame:
    for name in (by, pair, outcome):
        if name not in scores:
            raise InputError(
                f"the runs have no {name!r}; expected one of {', '.join(map(str, scores.columns))}"
            )
    known = scores[scores[by].notna() & scores[pair].notna()]
    if known.empty:
        raise InputError(f"no run says both its {by} and its {pair}: nothing can be compared")
    twice = known[known.duplicated([by, pair], keep=False)]
    if len(twice):
        first = twice.iloc[0]
        names = ", ".join(
            str(run) for run in twice[(twice[[by, pair]] == first[[by, pair]]).all(axis=1)]["run"]
        )
        raise InputError(
            f"several runs have {by} {first[by]} and {pair} {first[pair]}: {names}; expected one"
        )
    return known.pivot(index=pair, columns=by, values=outcome)


def table_one(runs: Runs, *, baseline: str | None = "standard", metric: str | None = None) -> pd.DataFrame:
    """The paper's Table 1: per schedule the source language, the lowest language and the average without the source.

    Columns: schedule, runs, then mean over runs, `_sd` and `_n` (runs that have it) of source, lowest_fixed,
    lowest_own, average; and lowest_language. `lowest_fixed` is the score in one fixed language, as in the paper: the
    one in which the `baseline` schedule is lowest on average (all runs when there is no such schedule). `lowest_own`
    is the mean of every run's own minimum, whichever language that is: always the lower of the two.
    """
    scored = scored_runs(runs, metric=metric)
    if "schedule" not in scored:
        raise InputError("the runs have no 'schedule'; expected it among the factors of at least one run")
    scores = language_scores(runs, metric=metric).merge(scored[["run", "schedule"]], on="run")
    factors = runs.runs.astype({"run": str})
    sources = set(factors["source"].dropna().astype(str)) if "source" in factors else set()
    targets = scores[~scores["language"].isin(sources)]
    of_baseline = targets[targets["schedule"] == baseline]
    chosen = (of_baseline if len(of_baseline) else targets).groupby("language")["value"].mean()
    language = str(chosen.idxmin()) if len(chosen) else None
    fixed = targets[targets["language"] == language].set_index("run")["value"]
    scored["lowest_fixed"] = scored["run"].map(fixed)
    scored = scored.rename(columns={"lowest": "lowest_own"})
    rows = []
    for schedule, members in scored.groupby("schedule", sort=False):
        scored_members = int(members[["source", "average"]].notna().any(axis=1).sum())
        row = {"schedule": schedule, "runs": scored_members, "lowest_language": language}
        for name in ("source", "lowest_fixed", "lowest_own", "average"):
            own = members[name]
            row |= {name: own.mean(), f"{name}_sd": own.std(ddof=1), f"{name}_n": int(own.count())}
        rows.append(row)
    return pd.DataFrame(rows)


__all__ = [
    "OUTCOMES",
    "compare",
    "compare_over",
    "equivalence",
    "paired_difference",
    "scored_runs",
    "table_one",
]
