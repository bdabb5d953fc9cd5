"""What a run achieved: scores per language, their summaries, and what could explain them without any Fisher.

Scores are in points, 0–100. The score of a run in a language is its last one on the split asked for, in the task's
headline metric unless another is named.
"""

import math

import numpy as np
import pandas as pd

from fishlens.errors import InputError
from fishlens.journal import Runs

FINAL_SHARE = 0.1  # of a run's recorded updates: "final" loss is the mean over these
OUTCOMES = ("source", "average", "lowest")
BASELINES = ("source", "final_loss", "gradient_norm")


def language_scores(runs: Runs, *, split: str = "test", metric: str | None = None) -> pd.DataFrame:
    """One row per run and language: run, language, metric, value, step.

    Raises `InputError` when a metric is named that no run has, and where scores cannot stand in one table: headline
    metrics that differ, or accuracies of which some are fractions and some points.
    """
    rows = runs.evaluation[(runs.evaluation["split"] == split).to_numpy()]
    if metric is None:
        rows = rows[rows["headline"].to_numpy(dtype=bool)]
    elif metric not in set(rows["metric"].astype(str)):
        there = sorted(set(rows["metric"].astype(str)))
        raise InputError(f"no run has the metric {metric!r} on {split}: expected one of {', '.join(there)}")
    else:
        rows = rows[(rows["metric"] == metric).to_numpy()]
    if metric is None:
        _refuse_several_metrics(rows)
    rows = rows.drop_duplicates(["run", "language"], keep="last")
    table = rows[["run", "language", "metric", "value", "step"]].reset_index(drop=True)
    table = table.astype({"run": str, "language": str, "metric": str})
    _refuse_fractions_among_points(table)
    return table


def _refuse_several_metrics(rows: pd.DataFrame) -> None:
    """A mean of an accuracy and an F1 is a mean of nothing."""
    of = {str(metric): str(own["run"].iloc[0]) for metric, own in rows.groupby("metric", observed=True)}
    if len(of) > 1:
        seen = ", ".join(f"{metric} (as {run})" for metric, run in of.items())
        raise InputError(
            f"the runs' headline metrics differ: {seen}; name the one to compare, as metric={next(iter(of))!r}"
        )


def _refuse_fractions_among_points(table: pd.DataFrame) -> None:
    """An accuracy of 0.8 beside one of 80. Below one point in every language is no accuracy: a guess has more."""
    for metric, rows in table[table["metric"].str.contains("accuracy")].groupby("metric"):
        highest = rows.groupby("run")["value"].max()
        fractions, points = highest[(highest > 0) & (highest <= 1)], highest[highest > 1]
        if len(fractions) and len(points):
            raise InputError(
                f"{metric} is a fraction in {fractions.index[0]} ({fractions.iloc[0]:g} at most) and in points in "
                f"{points.index[0]} (up to {points.iloc[0]:g}): expected points, 0 to 100, in all runs"
            )


def run_outcomes(runs: Runs, *, split: str = "test", metric: str | None = None) -> pd.DataFrame:
    """One row per run: run, source, average, lowest, lowest_language, languages (targets scored), reason.

    `source`: the score in the source language (factor `source`). `average`: the mean over the target languages,
    without the source. `lowest`: the run's own minimum over them, in `lowest_language` (the paper's tables instead
    fix one language per data set and model: see `compare.table_one`). A run that lacks a language which another has
    gets no average: means over different languages cannot be compared. Nor does one whose languages were tested at
    different steps: they are scores of different weights.
    """
    scores = language_scores(runs, split=split, metric=metric)
    by_run = {str(run): rows.set_index("language") for run, rows in scores.groupby("run")}
    sources = _sources(runs)
    targets = {str(lang) for run, rows in by_run.items() for lang in rows.index if lang != sources.get(run)}
    rows = []
    for run in runs.runs["run"].astype(str):
        rows.append({"run": run} | _summary(by_run.get(run), sources.get(run), targets))
    return pd.DataFrame(rows)


def _summary(own_scores: pd.DataFrame | None, source: str | None, targets: set[str]) -> dict:
    """`own_scores`: a run's value and step by language."""
    row: dict = {
        "source": math.nan,
        "average": math.nan,
        "lowest": math.nan,
        "lowest_language": None,
        "languages": 0,
    }
    if own_scores is None:
        return row | {"reason": "no scores"}
    values = own_scores["value"]
    reasons = []
    if source is None:
        reasons.append("source: the run does not say which language it was trained on")
    elif source not in values.index:
        reasons.append(f"source: no score in {source}")
    else:
        row["source"] = float(values[source])
    own = values[[language for language in values.index if language != source]]
    row["languages"] = len(own)
    missing = sorted(targets - set(own.index)) + sorted(str(lang) for lang in own.index[own.isna()])
    if missing:
        reasons.append(f"average, lowest: no score in {', '.join(missing)}")
    elif (steps := own_scores["step"].reindex(own.index)).nunique() > 1:
        first, last = str(steps.idxmin()), str(steps.idxmax())
        reasons.append(
            f"average, lowest: tested at different steps, {first} at {steps[first]} and {last} at {steps[last]}"
        )
    elif len(own):
        row |= {
            "average": float(own.mean()),
            "lowest": float(own.min()),
            "lowest_language": str(own.idxmin()),
        }
    return row | {"reason": "; ".join(reasons)}


def run_baselines(runs: Runs, *, metric: str | None = None) -> pd.DataFrame:
    """What could explain transfer without Fisher information; one row per run: run, source, final_loss, gradient_norm.

    `source`: score in the source language on the test split, or where there is none the best validation score.
    `final_loss`: mean training loss over the last tenth of the run's updates. `gradient_norm`: mean over training.
    """
    table = run_outcomes(runs, metric=metric).set_index("run")[["source"]]
    validation = runs.evaluation[
        (runs.evaluation["split"] == "validation").to_numpy()
        & runs.evaluation["headline"].to_numpy(dtype=bool)
    ]
    best = validation.groupby(validation["run"].astype(str))["value"].max()
    table["source"] = table["source"].fillna(best.reindex(table.index))
    training = runs.training
    names = training["run"].astype(str)
    last = training.groupby(names)["step"].transform("max").to_numpy()
    first = training.groupby(names)["step"].transform("min").to_numpy()
    late = training["step"].to_numpy() >= last - FINAL_SHARE * (last - first)
    table["final_loss"] = training[late].groupby(names[late])["loss"].mean().reindex(table.index)
    table["gradient_norm"] = training.groupby(names)["gradient_norm"].mean().reindex(table.index)
    return table.astype(np.float64).reset_index()


def _sources(runs: Runs) -> dict[str, str]:
    if "source" not in runs.runs:
        return {}
    known = runs.runs[runs.runs["source"].notna().to_numpy()]
    return dict(zip(known["run"].astype(str), known["source"].astype(str), strict=True))
