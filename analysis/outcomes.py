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
        raise InputError(f"no run has the metric {metric!r} on {split}; expected one of {', '.join(there)}")
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
    """An accuracy of 0.8 beside one of 80. Below one point in every language is not an accuracy: a guess has more."""
    for metric, rows in table[table["metric"].str.contains("accuracy")].groupby("metric"):
        highest = rows.groupby("run")["value"].max()
        fractions, points = highest[(highest > 0) & (highest <= 1)], highest[highest > 1]
        if len(fractions) and len(points):
            raise InputError(
                f"{metric} is a fraction in {fractions.index[0]} ({fractions.iloc[0]:g} at most) and in points in "
                f"{points.index[0]} (up to {points.iloc[0]:g}); expected points, 0 to 100, in all runs"
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
    names = runs.runs["run"].astype(str)
    known = _sources(runs)
    source = names.map(known)
    own = scores[scores["run"].map(known) != scores["language"]]
    order = own["language"].unique()  # of equally low languages the one tested first
    values, steps = (
        own.pivot(index="run", columns="language", values=name).reindex(index=names, columns=order)
        for name in ("value", "step")
    )
    tested = own.groupby("run")["language"].nunique().reindex(names).fillna(0).to_numpy(dtype=int)
    in_source = scores.set_index(["run", "language"])["value"]
    table = pd.DataFrame({"run": names.to_numpy()})
    table["source"] = in_source.reindex(pd.MultiIndex.from_arrays([names, source])).to_numpy(dtype=float)
    has_source = pd.MultiIndex.from_arrays([names, source]).isin(in_source.index)
    whole = values.notna().all(axis=1).to_numpy() & (tested > 0)
    together = (steps.min(axis=1) == steps.max(axis=1)).to_numpy()
    usable = whole & together
    table["average"] = np.where(usable, values.mean(axis=1), math.nan)
    table["lowest"] = np.where(usable, values.min(axis=1), math.nan)
    lowest = (
        values.columns[np.nan_to_num(values.to_numpy(dtype=float), nan=np.inf).argmin(axis=1)]
        if len(own)
        else []
    )
    table["lowest_language"] = [str(lowest[k]) if use else None for k, use in enumerate(usable)]
    table["languages"] = tested
    scored = names.isin(set(scores["run"])).to_numpy()
    reasons = []
    for k, run in enumerate(names):
        if not scored[k]:
            reasons.append("no scores")
        elif usable[k] and has_source[k]:
            reasons.append("")
        else:
            reasons.append(_reasons(values.loc[run], steps.loc[run], known.get(run), bool(has_source[k])))
    return table.assign(reason=reasons)


def _reasons(values: pd.Series, steps: pd.Series, source: str | None, has_source: bool) -> str:
    """Why a run has no source score, or no average: `values` and `steps` by target language."""
    reasons = []
    if source is None:
        reasons.append("source: the run does not say which language it was trained on")
    elif not has_source:
        reasons.append(f"source: no score in {source}")
    missing = sorted(str(language) for language in values.index[values.isna()])
    if missing:
        reasons.append(f"average, lowest: no score in {', '.join(missing)}")
    elif steps.nunique() > 1:
        first, last = str(steps.idxmin()), str(steps.idxmax())
        reasons.append(
            f"average, lowest: tested at different steps, {first} at {steps[first]:.0f} and {last} at {steps[last]:.0f}"
        )
    return "; ".join(reasons)


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
