"""Schedules against the baseline, paired by seed: computed once for answer, bars and tables."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..outcomes import OUTCOMES
from ..own import AVERAGE, Outcome
from ..paired import compare

NOT_STATED = "not stated"


@dataclass(frozen=True)
class Comparison:
    """`table`: `compare`'s rows for every outcome, the baseline's left out; empty where `missing` says why there are
    none. `shared`: per schedule the mean outcome on the seeds that it shares with the baseline, and the baseline's on
    the same seeds: `schedule`, `own`, `baseline`, `pairs`, `seeds`. `learnt`: `compare`'s rows of the outcome over runs
    that learnt the source; None where all did."""

    baseline: str
    table: pd.DataFrame
    shared: list[dict[str, Any]]
    missing: str | None = None
    outcome: Outcome = AVERAGE
    learnt: pd.DataFrame | None = None

    @property
    def main(self) -> pd.DataFrame:
        """The rows of the outcome that the report is about."""
        return self.table[self.table["outcome"] == self.outcome.name]

    @property
    def known(self) -> pd.DataFrame:
        """The rows with a difference."""
        return self.table[self.table["estimate"].notna()]


def comparison(
    scored: pd.DataFrame,
    schedules: list[str],
    baseline: str,
    margin: float | None,
    outcome: Outcome = AVERAGE,
    diverged: Collection[str] = (),
) -> Comparison:
    """`scored`: one row per run with schedule, seed and the outcomes; `schedules`: all there are, in their order;
    `diverged`: runs that did not learn the source."""
    why = _why_not(scored, schedules, baseline)
    if why is not None:
        return Comparison(baseline, pd.DataFrame(), [], why)
    scored = scored[scored["schedule"] != NOT_STATED]
    outcomes = [*dict.fromkeys([*OUTCOMES, outcome.name])]
    parts = [
        compare(scored, name, baseline=baseline, margin=margin)
        for name in outcomes
        if scored[name].notna().any()
    ]
    if not parts:
        return Comparison(
            baseline, pd.DataFrame(), [], "no run has scores in the source and in every target language"
        )
    table = pd.concat(parts, ignore_index=True)
    table = table[table["schedule"] != baseline]
    keys = pd.DataFrame(
        {"outcome": table["outcome"].map(outcomes.index), "schedule": table["schedule"].map(schedules.index)}
    )
    table = table.loc[keys.sort_values(["outcome", "schedule"]).index].reset_index(drop=True)
    shared = shared_seeds(scored, schedules, baseline, outcome.name)
    return Comparison(
        baseline, table, shared, None, outcome, _learnt(scored, baseline, outcome.name, diverged)
    )


def _learnt(
    scored: pd.DataFrame, baseline: str, outcome: str, diverged: Collection[str]
) -> pd.DataFrame | None:
    left = scored[~scored["run"].isin(list(diverged)) & scored[outcome].notna()]
    if len(left) == int(scored[outcome].notna().sum()) or baseline not in set(left["schedule"]):
        return None
    table = compare(left, outcome, baseline=baseline)
    return table[table["schedule"] != baseline]


def shared_seeds(
    scored: pd.DataFrame, schedules: list[str], baseline: str, outcome: str = "average"
) -> list[dict[str, Any]]:
    wide = scored.pivot(index="seed", columns="schedule", values=outcome)
    rows = []
    for schedule in schedules:
        if schedule == baseline or schedule not in wide:
            continue
        both = wide[[schedule, baseline]].dropna()
        rows.append(
            {
                "schedule": schedule,
                "own": float(both[schedule].mean()),
                "own_sd": float(both[schedule].std(ddof=1)),
                "baseline": float(both[baseline].mean()),
                "baseline_sd": float(both[baseline].std(ddof=1)),
                "pairs": len(both),
                "seeds": tuple(both.index),
            }
        )
    return rows


def _why_not(scored: pd.DataFrame, schedules: list[str], baseline: str) -> str | None:
    if baseline not in schedules:
        return f"no run has the schedule {baseline}"
    if len(schedules) < 2:
        return "all runs have the same schedule"
    known = scored[scored["schedule"] != NOT_STATED]
    if "seed" not in known or known["seed"].isna().all():
        return "the runs do not say their seeds, so they cannot be paired"
    twice = known[known.duplicated(["schedule", "seed"], keep=False)]
    if len(twice):
        return f"several runs share schedule and seed ({', '.join(twice['run'].iloc[:4])}): pairs would be ambiguous"
    return None
