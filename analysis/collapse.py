"""Runs that learnt nothing, or lost every target language and kept the source: means hide them.

A score lies at guessing when it is no more than two standard errors above it, of the examples of one language (the
languages of parallel test data share their sentences, and count once).
"""

import math

import numpy as np
import pandas as pd

from fishlens.errors import InputError
from fishlens.journal import Runs

from .outcomes import run_baselines, run_outcomes

GUESS = {"nli": 100 / 3, "choice": 50.0, "topic": 100 / 7}  # accuracy of guessing, by task
ERRORS = 2.0
TRAINED, COLLAPSED, DIVERGED, UNKNOWN = "trained", "collapsed in the targets", "diverged", "not known"


def collapsed_runs(
    runs: Runs, guess: float | None = None, *, split: str = "test", metric: str | None = None
) -> pd.DataFrame:
    """One row per run: run, schedule, seed, source, average (over targets), guess, limit, state.

    `guess`: points that guessing scores; by default known for accuracy on nli, choice and topic. `limit` = guess +
    2 √(guess (100 − guess) / examples). `state`: "diverged" where the source's score (test, else best validation) is
    not above the limit or the loss was not finite at the end, else "collapsed in the targets" where the average is not
    above it, else "trained"; "not known" without scores, a known guess or the number of examples. Raises `InputError`
    for a guess outside 0 to 100.
    """
    if guess is not None and not 0 < guess < 100:
        raise InputError(f"guessing scores {guess:g} points; expected a number between 0 and 100")
    table = run_outcomes(runs, split=split, metric=metric)[["run", "source", "average"]]
    other = run_baselines(runs, metric=metric).set_index("run")["source"]
    table["source"] = table["source"].fillna(table["run"].map(other))
    factors = runs.runs.astype({"run": str}).set_index("run")
    for name in ("schedule", "seed"):
        table[name] = table["run"].map(factors[name]) if name in factors else None
    scored = runs.evaluation[(runs.evaluation["split"] == split).to_numpy()]
    scored = scored[(scored["metric"] == metric if metric else scored["headline"].astype(bool)).to_numpy()]
    if guess is None:
        tasks = table["run"].map(factors["task"]) if "task" in factors else pd.Series(None, index=table.index)
        plain = scored.groupby(scored["run"].astype(str))["metric"].agg(lambda m: set(m) == {"accuracy"})
        known = table["run"].map(plain).fillna(False).to_numpy(dtype=bool)
        table["guess"] = tasks.map(GUESS).astype(float).where(known)
    else:
        table["guess"] = float(guess)
    fewest = scored.groupby(scored["run"].astype(str))["examples"].min()
    examples = table["run"].map(fewest).astype(float)
    table["limit"] = table["guess"] + ERRORS * np.sqrt(table["guess"] * (100 - table["guess"]) / examples)
    broken = _without_a_loss(runs.training)
    numbers = table[["source", "average", "limit"]].to_numpy(dtype=float)
    table["state"] = [
        _state(source, average, limit, run in broken)
        for run, (source, average, limit) in zip(table["run"], numbers, strict=True)
    ]
    return table[["run", "schedule", "seed", "source", "average", "guess", "limit", "state"]]


def _without_a_loss(training: pd.DataFrame) -> set[str]:
    """Runs whose training loss stopped being a number."""
    losses = training.assign(
        run=training["run"].astype(str), there=np.isfinite(training["loss"].astype(float))
    )
    by_run = losses.groupby("run")["there"]
    last, ever = by_run.last(), by_run.any()
    return set(last.index[(ever & ~last).to_numpy(dtype=bool)])


def _state(source: float, average: float, limit: float, broken: bool) -> str:
    if broken or source <= limit:
        return DIVERGED
    if math.isnan(limit) or math.isnan(source) or math.isnan(average):
        return UNKNOWN
    return COLLAPSED if average <= limit else TRAINED


def collapse_shares(table: pd.DataFrame, by: str = "schedule", *, level: float = 0.95) -> pd.DataFrame:
    """Of `collapsed_runs`' rows by `by`: runs whose state is known, diverged, collapsed, share (of those that did not
    diverge) and its Wilson (1927) interval."""
    from statsmodels.stats.proportion import proportion_confint

    known = table[(table["state"] != UNKNOWN) & table[by].notna()]
    rows = []
    for name, own in known.groupby(by, sort=False, observed=True):
        diverged, collapsed = int((own["state"] == DIVERGED).sum()), int((own["state"] == COLLAPSED).sum())
        left = len(own) - diverged
        low = high = share = math.nan
        if left:
            share = collapsed / left
            low, high = map(float, proportion_confint(collapsed, left, 1 - level, method="wilson"))
        rows.append([name, len(own), diverged, collapsed, share, low, high])
    return pd.DataFrame(rows, columns=[by, "runs", "diverged", "collapsed", "share", "low", "high"])
