"""Languages × steps of every run: the score of a target language at a step, and what was measured of it there."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from fishlens.errors import InputError
from fishlens.journal import Runs

from ..series import HEAD

OVER_TRAINING = "targets"  # the split that such scores are written under
BY_BLOCK = ("overlap", "rank_overlap", "drift", "cka")
OF_PROBE = ("entropy", "confidence", "atc", "critical_sharpness")
_KEYS = ["run", "language", "step"]


def language_points(runs: Runs, distance: Mapping[str, float] | None = None) -> pd.DataFrame:
    """One row per run, target language and step at which the language was scored and measured.

    Columns: run, language, step, score (points, headline metric), every factor of the run, and the features: `trace`
    (sum over the blocks without the head), `ratio` (to the source's at the same step), `overlap`, `rank_overlap`,
    `drift`, `cka` (means over blocks), `entropy`, `confidence`, `atc`, `critical_sharpness`, `distance` (as given),
    `source` (validation score of the source at the same step). What a run does not have is NaN.

    Raises `InputError` if no run has both, or a distance is missing.
    """
    points = _scores(runs).merge(_by_block(runs), on=_KEYS).merge(_of_probe(runs), on=_KEYS, how="left")
    if points.empty:
        raise InputError(
            "no run has both scores and Fisher information of target languages at one step: set tracking.languages and "
            "evaluate.targets, with intervals that meet"
        )
    points = points.merge(_source(runs), on=["run", "step"], how="left")
    points["ratio"] = points["trace"] / points.pop("source_trace")
    points["distance"] = np.nan
    if distance is not None:
        missing = sorted(set(points["language"]) - set(distance))
        if missing:
            raise InputError(f"there is no distance for {', '.join(missing)}: it has {', '.join(distance)}")
        points["distance"] = points["language"].map(dict(distance))
    factors = runs.runs.astype({"run": str})
    known = [name for name in factors.columns if name not in points.columns and name not in ("path", "error")]
    return points.merge(factors[["run", *known]], on="run").sort_values(_KEYS).reset_index(drop=True)


def _scores(runs: Runs) -> pd.DataFrame:
    rows = runs.evaluation
    wanted = (rows["split"] == OVER_TRAINING).to_numpy() & rows["headline"].to_numpy(dtype=bool)
    table = rows.loc[wanted, [*_KEYS, "value"]].rename(columns={"value": "score"})
    return _named(table).drop_duplicates(_KEYS, keep="last")


def _by_block(runs: Runs) -> pd.DataFrame:
    rows = _named(runs.fisher_series)
    rows = rows[(rows["block"] != HEAD).to_numpy() & rows["language"].notna().to_numpy()]
    rows = rows[rows["series"].isna().to_numpy() & (rows["purpose"] == "track").to_numpy()]
    groups = rows.groupby(_KEYS, observed=True)
    # a block that lost its trace loses the sum: a partial one would look like a small trace
    table = pd.DataFrame({"trace": groups["trace"].sum(min_count=1)})
    table.loc[groups["trace"].apply(lambda values: values.isna().any()).to_numpy(dtype=bool), "trace"] = (
        np.nan
    )
    for name in BY_BLOCK:
        table[name] = groups[name].mean()
    return table.reset_index()


def _of_probe(runs: Runs) -> pd.DataFrame:
    rows = _named(runs.probes)
    rows = rows[rows["language"].notna().to_numpy() & rows["series"].isna().to_numpy()]
    rows = rows[(rows["purpose"] == "track").to_numpy()]
    return rows[[*_KEYS, *OF_PROBE]].drop_duplicates(_KEYS, keep="last")


def _source(runs: Runs) -> pd.DataFrame:
    """Of the source at each step: its trace (`source_trace`) and its validation score (`source`)."""
    rows = runs.fisher[
        (runs.fisher["block"] != HEAD).to_numpy() & (runs.fisher["purpose"] == "track").to_numpy()
    ]
    rows = rows.astype({"run": str})
    trace = rows.groupby(["run", "step"])["trace"].sum(min_count=1).rename("source_trace").reset_index()
    scores = runs.evaluation.astype({"run": str})
    wanted = (scores["split"] == "validation").to_numpy() & scores["headline"].to_numpy(dtype=bool)
    validated = scores.loc[wanted, ["run", "step", "value"]].rename(columns={"value": "source"})
    return trace.merge(
        validated.drop_duplicates(["run", "step"], keep="last"), on=["run", "step"], how="outer"
    )


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    """`run` and `language` as plain text, so that frames of different runs meet; missing languages stay missing."""
    language = frame["language"].astype(object)
    return frame.assign(run=frame["run"].astype(str), language=language.where(language.notna(), None))
