"""Runs that learnt nothing, or lost every target language and kept the source: means hide them.

A score lies at guessing when it is no more than two standard errors above it, of the examples of one language (the
languages of parallel test data share their sentences, and count once).
"""

import math

import numpy as np
import pandas as pd

from fishlens.errors import InputError
from fishlens.journal import Runs

from .outcomes import run_outcomes

GUESS = {"nli": 100 / 3, "choice": 50.0, "topic": 100 / 7}  # accuracy of guessing, by task
ERRORS = 2.0
TRAINED, COLLAPSED, DIVERGED, UNKNOWN = "trained", "collapsed in the targets", "diverged", "not known"


def collapsed_runs(
    runs: Runs, guess: float | None = None, *, split: str = "test", metric: str | None = None
) -> pd.DataFrame:
    """One row per run: run, schedule, seed, source, source_limit, average (over targets), limit, guess, state.

    `source` is the last validation score in the source language, which chose nothing and is not an outcome; the test
    score where there is none. `guess`: points that guessing scores; by default known for accuracy on nli, choice and
    topic. Limits are guess + 2 √(guess (100 − guess) / examples), of the examples that were scored. `state`: "diverged"
    where the source is not above its limit or the loss was not finite at the end, else "collapsed in the targets" where
    the average is not above its own, else "trained"; "not known" without scores, a known guess or the number of
    examples.
    Raises `InputError` for a guess outside 0 to 100.
    """
    if guess is not None and not 0 < guess < 100:
        raise InputError(f"guessing scores {guess:g} points; expected a number between 0 and 100")
    table = run_outcomes(runs, split=split, metric=metric)[["run", "source", "average"]]
    factors = runs.runs.astype({"run": str}).set_index("run")
    for name in ("schedule", "seed"):
        table[name] = table["run"].map(factors[name]) if name in factors else None
    scored = _scored(runs, split, metric)
    validated = _scored(runs, "validation", metric)
    if "source" in factors:
        validated = validated[validated["language"] == validated["run"].map(factors["source"])]
    validated = validated.drop_duplicates("run", keep="last").set_index("run")
    fewest = scored.groupby("run")["examples"].min()
    examples = table["run"].map(fewest).astype(float)
    of_source = table["run"].map(validated["examples"]).astype(float)
    last = table["run"].map(validated["value"]).astype(float)
    of_source = of_source.where(last.notna(), examples)
    table["source"] = last.fillna(table["source"])
    if guess is None:
        tasks = table["run"].map(factors["task"]) if "task" in factors else pd.Series(None, index=table.index)
        both = pd.concat([scored, validated.reset_index()])
        plain = both.groupby("run")["metric"].agg(lambda m: set(m) == {"accuracy"})
        known = table["run"].isin(plain.index[plain.to_numpy(dtype=bool)]).to_numpy()
        table["guess"] = tasks.map(GUESS).astype(float).where(known)
    else:
        table["guess"] = float(guess)
    table["limit"] = guessing_limit(table["guess"], examples)
    table["source_limit"] = guessing_limit(table["guess"], of_source)
    broken = _without_a_loss(runs.training)
    numbers = table[["source", "source_limit", "average", "limit"]].to_numpy(dtype=float)
    table["state"] = [
        _state(source, source_limit, average, limit, run in broken)
        for run, (source, source_limit, average, limit) in zip(table["run"], numbers, strict=True)
    ]
    columns = ["run", "schedule", "seed", "source", "source_limit", "average", "limit", "guess", "state"]
    return table[columns]


def guessing_limit(guess: pd.Series, examples: pd.Series) -> pd.Series:
    """Two standard errors above guessing, in points."""
    return guess + ERRORS * np.sqrt(guess * (100 - guess) / examples)


def _scored(runs: Runs, split: str, metric: str | None) -> pd.DataFrame:
    """Evaluations on a split in the metric, or in each task's headline."""
    rows = runs.evaluation[(runs.evaluation["split"] == split).to_numpy()]
    rows = rows[(rows["metric"] == metric if metric else rows["headline"].astype(bool)).to_numpy()]
    return rows.astype({"run": str, "language": object, "metric": str})


def _without_a_loss(training: pd.DataFrame) -> set[str]:
    """Runs whose training loss stopped being a number."""
    losses = training.assign(
        run=training["run"].astype(str), there=np.isfinite(training["loss"].astype(float))
    )
    by_run = losses.groupby("run")["there"]
    last, ever = by_run.last(), by_run.any()
    return set(last.index[(ever & ~last).to_numpy(dtype=bool)])


def _state(source: float, source_limit: float, average: float, limit: float, broken: bool) -> str:
    if broken or source <= source_limit:
        return DIVERGED
    if math.isnan(source_limit + limit + source + average):
        return UNKNOWN
    return COLLAPSED if average <= limit else TRAINED


def collapse_shares(table: pd.DataFrame, by: str = "schedule", *, level: float = 0.95) -> pd.DataFrame:
    """Of `collapsed_runs`' rows by `by`, with Wilson's (1927) intervals: runs whose state is known, diverged,
    diverged_low, diverged_high (shares of these runs), collapsed, share (of those that did not diverge), low, high."""
    from statsmodels.stats.proportion import proportion_confint

    known = table[(table["state"] != UNKNOWN) & table[by].notna()]
    rows = []
    for name, own in known.groupby(by, sort=False, observed=True):
        diverged, collapsed = int((own["state"] == DIVERGED).sum()), int((own["state"] == COLLAPSED).sum())
        left = len(own) - diverged
        of_all = map(float, proportion_confint(diverged, len(own), 1 - level, method="wilson"))
        low = high = share = math.nan
        if left:
            share = collapsed / left
            low, high = map(float, proportion_confint(collapsed, left, 1 - level, method="wilson"))
        rows.append([name, len(own), diverged, *of_all, collapsed, share, low, high])
    columns = ["runs", "diverged", "diverged_low", "diverged_high", "collapsed", "share", "low", "high"]
    return pd.DataFrame(rows, columns=[by, *columns])
