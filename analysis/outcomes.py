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

    Raises `InputError` when a metric is named that no run has.
    """
    rows = runs.evaluation[(runs.evaluation["split"] == split).to_numpy()]
    if metric is None:
        rows = rows[rows["headline"].to_numpy(dtype=bool)]
    elif metric not in set(rows["metric"].astype(str)):
        there = sorted(set(rows["metric"].astype(str)))
        raise InputError(f"no run has the metric {metric!r} on {split}: expected one of {', '.join(there)}")
    else:
        rows = rows[(rows["metric"] == metric).to_numpy()]
    rows = rows.drop_duplicates(["run", "language"], keep="last")
    table = rows[["run", "language", "metric", "value", "step"]].reset_index(drop=True)
    return table.astype({"run": str, "language": str, "metric": str})


def run_outcomes(runs: Runs, *, split: str = "test", metric: str | None = None) -> pd.DataFrame:
    """One row per run: run, source, average, lowest, lowest_language, languages (targets scored), reason.

    `source`: the score in the source language (factor `source`). `average`: the mean over the target languages,
    without the source. `lowest`: the run's own minimum over them, in `lowest_language` (the paper's tables instead
    fix one language per data set and model: see `compare.table_one`). A run that lacks a language which another has
    gets no average: means over different languages cannot be compared.
    """
    scores = language_scores(runs, split=split, metric=metric)
    by_run = {str(run): rows.set_index("language")["value"] for run, rows in scores.groupby("run")}
    sources = _sources(runs)
    targets = {
        str(lang) for run, values in by_run.items() for lang in values.index if lang != sources.get(run)
    }
    rows = []
    for run in runs.runs["run"].astype(str):
        rows.append({"run": run} | _summary(by_run.get(run), sources.get(run), targets))
    return pd.DataFrame(rows)


def _summary(values: pd.Series | None, source: str | None, targets: set[str]) -> dict:
    row: dict = {
        "source": math.nan,
        "average": math.nan,
        "lowest": math.nan,
        "lowest_language": None,
        "languages": 0,
    }
    if values is None:
        return row | {"reason": "no scores"}
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
