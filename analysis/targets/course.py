"""Which moves first, a language's Fisher information or its score? Correlated rates of change, within run and
language."""

import math

import numpy as np
import pandas as pd

from ..correlation.leadlag import lagged, rates
from .clustered import mean_correlation, units_of

NEEDED_SHARED = 3  # runs measured over the same interval, for a mean to subtract
COURSES = {"whole": ("x", "y"), "own": ("x_own", "y_own")}


def over_training(
    points: pd.DataFrame, feature: str = "trace", *, max_lag: int = 2, level: float = 0.95
) -> pd.DataFrame:
    """One row per course and lag: the mean over runs of r between the rate of change of a feature and that of the
    score.

    r is within a run and a language; a run gives the mean over its languages, runs are averaged by seed. Lag +1
    pairs a change of the feature with that of the score one interval later: the feature leads. `course` "whole": the
    rates as they are, which all rise and level off together whatever causes them. "own": less the mean rate of all
    runs in that language over the same interval, so that what is left is the run's own. Columns: course, lag, those
    of `Estimate`.
    """
    table = _rates(points, feature)
    units = units_of(points)
    rows = []
    for course, (x, y) in COURSES.items():
        for lag in range(-max_lag, max_lag + 1):
            found = {
                run: _mean_r(
                    [lagged(one[x].to_numpy(), one[y].to_numpy(), lag) for _, one in own.groupby("language")]
                )
                for run, own in table.groupby("run", sort=False)
            }
            estimate = mean_correlation("lagged correlation", pd.Series(found, dtype=float), units, level)
            rows.append({"course": course, "lag": lag, **estimate.as_row()})
    return pd.DataFrame(rows)


def _rates(points: pd.DataFrame, feature: str) -> pd.DataFrame:
    parts = []
    for (run, language), own in points.dropna(subset=[feature, "score"]).groupby(
        ["run", "language"], sort=False
    ):
        own = own.sort_values("step")
        steps = own["step"].to_numpy(dtype=float)
        if len(steps) < 2:
            continue
        x, y = (rates(steps, own[name].to_numpy(dtype=float)) for name in (feature, "score"))
        at = {"run": run, "language": language, "begin": steps[:-1], "end": steps[1:]}
        parts.append(pd.DataFrame({**at, "x": x, "y": y}))
    if not parts:
        return pd.DataFrame(columns=["run", "language", "begin", "end", "x", "y", "x_own", "y_own"])
    table = pd.concat(parts, ignore_index=True)
    for name in ("x", "y"):
        shared = table.groupby(["language", "begin", "end"])[name]
        mean = shared.transform("mean").where(shared.transform("count") >= NEEDED_SHARED)
        table[f"{name}_own"] = table[name] - mean
    return table


def _mean_r(values: list[float]) -> float:
    there = [r for r in values if math.isfinite(r)]
    return float(np.tanh(np.mean(np.arctanh(np.clip(there, -1 + 1e-9, 1 - 1e-9))))) if there else math.nan
