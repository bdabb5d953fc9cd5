"""Choosing a checkpoint or a schedule without a target label: what each criterion costs in points."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fishlens.errors import InputError

from ..results import not_enough
from .clustered import bootstrap_mean, units_of

CRITERIA: dict[str, tuple[str, int]] = {
    "source validation": ("source", 1),
    "largest tr(F)": ("trace", 1),
    "smallest tr(F)": ("trace", -1),
    "largest ratio": ("ratio", 1),
    "smallest ratio": ("ratio", -1),
    "largest overlap": ("overlap", 1),
    "smallest drift": ("drift", -1),
    "largest CKA": ("cka", 1),
    "smallest entropy": ("entropy", -1),
    "largest ATC": ("atc", 1),
}
"""Criterion → the column that is averaged over the languages, and whether more is better. Nobody knows which way
tr(F) should be read, so it is read both ways."""
ANY = "any of them"  # the mean of all candidates: what choosing at random costs
LAST = "the last step"


def choose_steps(
    points: pd.DataFrame,
    criteria: Mapping[str, tuple[str, int]] = CRITERIA,
    *,
    level: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per criterion: how many points below the best step of its run its choice is, on average.

    The score of a step is the mean over the target languages. Candidates are the steps of a run at which every
    criterion has a value, the same for all; of equals the earlier one is chosen. Columns: criterion, those of
    `Estimate` (the mean regret; interval from resampled seeds), `low_gain`, `gain`, `high_gain`: how many points
    less than by source validation, in the same runs.
    """
    candidates = _means(points, ["run", "step"], criteria).sort_values(["run", "step"])
    found = _by_unit(candidates, "run", "step", criteria, (LAST, ANY))
    return _table(found, units_of(points), level, resamples, seed)


def choose_schedules(
    points: pd.DataFrame,
    criteria: Mapping[str, tuple[str, int]] = CRITERIA,
    *,
    level: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
) -> pd.DataFrame:
    """The same for choosing among the schedules of one seed, each at its run's best step on the source.

    Raises `InputError` if the runs do not say their schedule and seed.
    """
    for name in ("schedule", "seed"):
        if name not in points or points[name].isna().any():
            raise InputError(f"choosing a schedule needs the {name} of every run, which some do not say")
    candidates = _means(points, ["seed", "schedule", "run", "step"], criteria)
    best = candidates.sort_values(["run", "source", "step"], ascending=[True, False, True])
    best = best.drop_duplicates("run")
    found = _by_unit(best, "seed", "schedule", criteria, (ANY,))
    units = pd.Series({str(value): str(value) for value in best["seed"].unique()}, dtype=object)
    return _table(found, units, level, resamples, seed)


def _means(
    points: pd.DataFrame, keys: Sequence[str], criteria: Mapping[str, tuple[str, int]]
) -> pd.DataFrame:
    """Score and criteria averaged over languages; only where every one of them has a value."""
    columns = list(dict.fromkeys(["score", "source", *(column for column, _ in criteria.values())]))
    known = [column for column in columns if points[column].notna().any()]
    means = points.groupby(list(keys), observed=True)[known].mean().reset_index()
    return means.dropna(subset=known)


def _by_unit(
    candidates: pd.DataFrame,
    unit: str,
    between: str,
    criteria: Mapping[str, tuple[str, int]],
    without: Sequence[str],
) -> dict[str, pd.Series]:
    """{criterion: regret by unit} of the units with at least two values of `between` to choose from; `without`: what
    is compared with the criteria and looks at nothing."""
    found = {name: pd.Series(dtype=float) for name in (*criteria, *without)}
    for name_of_unit, own in candidates.groupby(unit, sort=False):
        if own[between].nunique() >= 2:
            for name, value in _regrets(own, criteria, without).items():
                found[name][str(name_of_unit)] = value
    return found


def _regrets(
    candidates: pd.DataFrame, criteria: Mapping[str, tuple[str, int]], without: Sequence[str]
) -> dict[str, float]:
    scores = candidates["score"].to_numpy()
    chosen = {LAST: len(candidates) - 1} if LAST in without else {}
    for name, (column, sign) in criteria.items():
        if column in candidates:
            chosen[name] = int(np.argmax(sign * candidates[column].to_numpy()))
    regrets = {name: float(scores.max() - scores[place]) for name, place in chosen.items()}
    return {**regrets, ANY: float(scores.max() - scores.mean())}


def _table(
    found: Mapping[str, pd.Series], units: pd.Series, level: float, resamples: int, seed: int
) -> pd.DataFrame:
    rows = []
    reference = found["source validation"] if "source validation" in found else pd.Series(dtype=float)
    for name, regret in found.items():
        if regret.empty:
            row = not_enough("regret", 0, 1, "runs in which it was measured", n=0).as_row()
        else:
            row = bootstrap_mean("regret", regret, units, level, resamples, seed).as_row()
        gain = bootstrap_mean("gain", (reference - regret).dropna(), units, level, resamples, seed).as_row()
        paired = {"gain": gain["estimate"], "low_gain": gain["low"], "high_gain": gain["high"]}
        if name == "source validation":
            paired = dict.fromkeys(paired, math.nan)
        rows.append({"criterion": name, **row, **paired})
    return pd.DataFrame(rows)
