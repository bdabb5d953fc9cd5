"""Does the feature predict the transfer of a schedule that was not used to fit? R² on held-out schedules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from fishlens.analysis.inference.bootstrap import jackknife_t
from fishlens.analysis.inference.clusters import codes_of, deletions
from fishlens.analysis.results import Estimate, NotEnough, not_enough
from numpy.typing import ArrayLike, NDArray

from fishlens.errors import InputError

Array = NDArray[np.float64]
NEEDED = 4  # held-out groups: with fewer, one fit in three rests on two schedules


@dataclass(frozen=True)
class HeldOut:
    """Held-out predictions, row by row: `outcome`, `predicted`, and `mean`, what the training rows' mean predicts."""

    outcome: Array
    predicted: Array
    mean: Array
    groups: NDArray[np.intp]

    def r_squared(self, weights: Array | None = None) -> Array:
        """1 − Σ(y − ŷ)² / Σ(y − ȳ_train)², one per row of group `weights` (`[r, groups]`); negative: worse than the
        mean of the other schedules."""
        counts = np.ones((1, self.groups.max() + 1)) if weights is None else weights
        rows = counts[:, self.groups]
        return 1 - rows @ (self.outcome - self.predicted) ** 2 / (rows @ (self.outcome - self.mean) ** 2)


def hold_out(predictors: ArrayLike, outcome: ArrayLike, group: ArrayLike) -> HeldOut:
    """Least squares with intercept, fitted without one group at a time and used on that group.

    `predictors` `[n, k]`. A direction that the training rows do not determine gets no weight (minimum norm).
    """
    y = np.asarray(outcome, dtype=float)
    x = np.asarray(predictors, dtype=float).reshape(len(y), -1)
    groups = codes_of(group, len(y))
    predicted, mean = np.empty(len(y)), np.empty(len(y))
    for g in range(groups.max() + 1):
        out = groups == g
        centre, level = x[~out].mean(axis=0), y[~out].mean()
        scale = x[~out].std(axis=0)
        scale = np.where(scale > 1e-12 * np.abs(centre), scale, np.inf)
        slope, *_ = np.linalg.lstsq((x[~out] - centre) / scale, y[~out] - level, rcond=1e-10)
        predicted[out] = level + (x[out] - centre) / scale @ slope
        mean[out] = level
    return HeldOut(y, predicted, mean, groups)


def predict(
    table: pd.DataFrame,
    outcome: str,
    features: Sequence[str],
    baselines: Sequence[str] = (),
    *,
    group: str = "schedule",
    level: float = 0.95,
) -> pd.DataFrame:
    """Held-out R² of the outcome: baselines alone, features alone, both together, each leaving out one `group` at a
    time (leave-one-schedule-out).

    One row per model: `model`, `predictors`, then as `Estimate` (p is NaN: what counts is how far R² is above 0 and
    above the baselines), `rmse` (points), `gain`: R² above the baselines', with `gain_low`, `gain_high`. The intervals
    delete one group at a time from the held-out errors and take the predictions as given (R² as ln(1 − R²)). Rows
    with a NaN are left out of all models. With fewer than 4 groups, or fewer training rows than 3 plus two per
    predictor, a row says so.
    """
    for name in (outcome, group, *features, *baselines):
        if name not in table:
            raise InputError(
                f"the table has no column {name!r}: expected one of {', '.join(map(str, table.columns))}"
            )
    whole = table[[outcome, *features, *baselines]].notna().all(axis=1) & table[group].notna()
    rows, dropped = table[whole], int((~whole).sum())
    models = {"baselines": list(baselines), "features": list(features)}
    if baselines and features:
        models["baselines + features"] = [*baselines, *features]
    base = _held_out(rows, outcome, models["baselines"], group) if baselines else None
    found = []
    for name, predictors in models.items():
        if not predictors:
            continue
        result = _held_out(rows, outcome, predictors, group)
        row: dict[str, Any] = {"model": name, "predictors": ", ".join(predictors)}
        if isinstance(result, NotEnough):
            found.append(row | result.as_row())
            continue
        row |= _scored(result, level, group, dropped)
        if isinstance(base, HeldOut) and name != "baselines":
            left_out = deletions(int(result.groups.max()) + 1)
            gain = float((result.r_squared() - base.r_squared())[0])
            low, high = jackknife_t(gain, result.r_squared(left_out) - base.r_squared(left_out), level)
            row |= {"gain": gain, "gain_low": low, "gain_high": high}
        found.append(row)
    return pd.DataFrame(found)


def _held_out(rows: pd.DataFrame, outcome: str, predictors: list[str], group: str) -> HeldOut | NotEnough:
    sizes = rows.groupby(group, observed=True).size()
    quantity = "held-out R²"
    if len(sizes) < NEEDED:
        return not_enough(quantity, len(sizes), NEEDED, f"{group}s", n=len(rows))
    smallest, needed = len(rows) - int(sizes.max()), 3 + 2 * len(predictors)
    if smallest < needed:
        why = f"{len(predictors)} predictors, fitted without one {group}"
        return not_enough(quantity, smallest, needed, "training runs", n=len(rows), why=why)
    values = rows[outcome].to_numpy(dtype=float)
    if np.ptp(values) <= 1e-12 * np.abs(values).max():
        return not_enough(quantity, 1, 2, "different values", n=len(rows), why=f"{outcome} is constant")
    return hold_out(rows[predictors].to_numpy(dtype=float), values, rows[group].astype(str).to_numpy())


def _scored(result: HeldOut, level: float, group: str, dropped: int) -> dict:
    count = int(result.groups.max()) + 1
    value = float(result.r_squared()[0])
    # on the scale of ln(1 − R²), the log ratio of two sums of squares, which has no upper end to run into
    upper, lower = jackknife_t(
        float(np.log(1 - value)), np.log(1 - result.r_squared(deletions(count))), level
    )
    low, high = float(1 - np.exp(lower)), float(1 - np.exp(upper))
    method = f"least squares leaving out one {group} at a time; interval: jackknife over held-out {group}s"
    note = f"{dropped} rows left out: no value" if dropped else ""
    n = len(result.outcome)
    estimate = Estimate("held-out R²", value, low, high, level, float("nan"), n, count, method, None, note)
    return estimate.as_row() | {"rmse": float(np.sqrt(np.mean((result.outcome - result.predicted) ** 2)))}
