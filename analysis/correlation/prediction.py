"""Does the feature predict the transfer of a schedule that was not used to fit? R² on held-out schedules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from fishlens.errors import InputError
from fishlens.names import counted

from ..inference.clusters import codes_of
from ..inference.layout import connected, layout
from ..inference.permutation import TwoLevels, rearrange_levels
from ..results import Estimate, NotEnough, not_enough

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
NEEDED = 4  # held-out groups: with fewer, one fit in three rests on two schedules
NEEDED_FOR_GAIN = 6  # groups, and one for each baseline: with fewer their residuals are no longer like errors
NO_INTERVAL = "no interval: held-out errors share their fits"


@dataclass(frozen=True)
class HeldOut:
    """Held-out predictions, row by row: `outcome`, `predicted`, and `mean`, what the training rows' mean predicts."""

    outcome: Array
    predicted: Array
    mean: Array
    groups: Codes

    def r_squared(self, weights: Array | None = None) -> Array:
        """1 − Σ(y − ŷ)² / Σ(y − ȳ_train)², one per row of group `weights` (`[r, groups]`); negative: worse than the
        mean of the other schedules."""
        counts = np.ones((1, self.groups.max() + 1)) if weights is None else weights
        rows = counts[:, self.groups]
        return 1 - rows @ (self.outcome - self.predicted) ** 2 / (rows @ (self.outcome - self.mean) ** 2)


def hold_out(
    predictors: ArrayLike, outcome: ArrayLike, group: ArrayLike, crossed: ArrayLike | None = None
) -> HeldOut:
    """Least squares with intercept, fitted without one group at a time and used on that group; with `crossed` (seeds)
    also without the row's own seed, which the other schedules' runs would give away.

    `predictors` `[n, k]`. A direction that the training rows do not determine gets no weight (minimum norm).
    """
    y = np.asarray(outcome, dtype=float)
    x = np.asarray(predictors, dtype=float).reshape(len(y), -1)
    groups = codes_of(group, len(y))
    units = groups if crossed is None else codes_of(crossed, len(y))
    predicted, mean = np.empty(len(y)), np.empty(len(y))
    for g, unit in sorted(set(zip(groups.tolist(), units.tolist(), strict=True))):
        out = (groups == g) & (units == unit)
        train = (groups != g) & (units != unit)
        centre, level = x[train].mean(axis=0), y[train].mean()
        scale = x[train].std(axis=0)
        scale = np.where(scale > 1e-12 * np.abs(centre), scale, np.inf)
        slope, *_ = np.linalg.lstsq((x[train] - centre) / scale, y[train] - level, rcond=1e-10)
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
    crossed: str | None = "seed",
    resamples: int = 199,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Held-out R² of the outcome: baselines alone, features alone, both together, each leaving out one `group` at a
    time (leave-one-schedule-out), and with it the runs of the same `crossed` unit (seed; used where the table has it).

    A model of noise has an R² above 0 in many studies, and one that is above its chance level in few: p is the share of
    arrangements of the predictors with at least that R², and `chance` the R² that 1 − `level` of them reach. In an
    arrangement schedules exchange their levels, and what is left within them moves by whole seeds, each apart. One row
    per model: `model`, `predictors`, then as `Estimate` (without an interval), `chance`, `rmse` (points), `gain`: R²
    above the baselines', with `gain_p`, for which what the baselines do not explain of the features changes places.
    Rows with a NaN are left out of all models. With fewer than 4 groups, or fewer training rows than 3 plus two per
    predictor, a row says so.
    """
    for name in (outcome, group, *features, *baselines):
        if name not in table:
            raise InputError(
                f"the table has no column {name!r}; expected one of {', '.join(map(str, table.columns))}"
            )
    whole = table[[outcome, *features, *baselines]].notna().all(axis=1) & table[group].notna()
    if crossed is not None and (crossed not in table or table.loc[whole, crossed].nunique() < 2):
        crossed = None
    rows, dropped = table[whole], int((~whole).sum())
    if crossed is not None:
        rows = rows[rows[crossed].notna()]
    models = {"baselines": list(baselines), "features": list(features)}
    if baselines and features:
        models["baselines + features"] = [*baselines, *features]
    found = []
    for name, predictors in models.items():
        if not predictors:
            continue
        row: dict[str, Any] = {"model": name, "predictors": ", ".join(predictors)}
        short = _shortage(rows, outcome, predictors, group, crossed)
        if short is not None:
            found.append(row | short.as_row())
            continue
        study = _Study.of(rows, outcome, group, crossed, resamples, seed)
        found.append(row | _scored(study, rows, predictors, list(baselines), group, crossed, dropped, level))
    return pd.DataFrame(found)


@dataclass(frozen=True)
class _Study:
    y: Array
    groups: Codes
    units: Codes | None
    moves: TwoLevels

    @classmethod
    def of(
        cls, rows: pd.DataFrame, outcome: str, group: str, crossed: str | None, resamples: int, seed: int
    ) -> "_Study":
        n, rng = len(rows), np.random.default_rng(seed)
        groups = codes_of(rows[group].astype(str).to_numpy(), n)
        units = None if crossed is None else codes_of(rows[crossed].astype(str).to_numpy(), n)
        moves = rearrange_levels(groups, units, resamples, rng)
        return cls(rows[outcome].to_numpy(dtype=float), groups, units, moves)

    def held_out(self, predictors: Array) -> HeldOut:
        return hold_out(predictors, self.y, self.groups, self.units)

    def trained(self, values: Array) -> Array:
        """For each row the sum of `values` `[b, n, k]` over the rows its prediction is fitted to: all, less those of
        its group, less those of its unit, plus those of both."""
        total = values.sum(axis=1, keepdims=True) - _shared(values, self.groups)
        if self.units is None:
            return total
        cell = self.groups * (int(self.units.max()) + 1) + self.units
        return total - _shared(values, self.units) + _shared(values, codes_of(cell, len(cell)))

    def r_squared(self, predictors: Array) -> Array:
        """Of many sets of predictors `[b, n, k]` at once; `[b]`."""
        count = self.trained(np.ones((1, len(self.y), 1)))[0]
        mean_y = self.trained(self.y[None, :, None])[0, :, 0] / count[:, 0]
        x = predictors - predictors.mean(axis=1, keepdims=True)
        scale = np.sqrt((x**2).mean(axis=1, keepdims=True))
        x = x / np.where(scale > 0, scale, 1.0)
        mean_x = self.trained(x) / count
        products = (x[:, :, :, None] * x[:, :, None, :]).reshape(*x.shape[:2], -1)
        k = x.shape[2]
        xx = self.trained(products).reshape(*x.shape, k) - count[:, :, None] * (
            mean_x[:, :, :, None] * mean_x[:, :, None, :]
        )
        xy = self.trained(x * self.y[:, None]) - count * mean_x * mean_y[:, None]
        xx = xx + 1e-9 * count[:, :, None] * np.eye(k)  # as good as no weight where nothing is determined
        slope = np.linalg.solve(xx, xy[..., None])[..., 0]
        predicted = mean_y + ((x - mean_x) * slope).sum(axis=2)
        return 1 - ((self.y - predicted) ** 2).sum(axis=1) / ((self.y - mean_y) ** 2).sum()

    def rearranged(self, columns: Array, given: Array) -> Array:
        """`columns` `[n, k]` with what `given` does not explain of them moved; `[number, n, k]`."""
        space = layout([np.zeros(len(self.y), dtype=np.intp)], given)
        left = space.residual(columns.T).T
        level = self._levels(left)
        return columns - left + self.moves.move(level, left - level[self.groups], self.groups)

    def _levels(self, values: Array) -> Array:
        """Of each group in the additive fit of groups and units (without units, or where the layout falls apart, its
        mean); `[groups, k]`."""
        levels = np.eye(int(self.groups.max()) + 1)[self.groups]
        columns = levels
        if self.units is not None and connected(self.groups, self.units).max() == 0:
            units = np.eye(int(self.units.max()) + 1)[self.units]
            columns = np.column_stack([levels, units[:, 1:] - units[:, :1]])
        found = np.asarray(np.linalg.lstsq(columns, values, rcond=1e-10)[0], dtype=np.float64)
        return found[: levels.shape[1]]


def _shared(values: Array, codes: Codes) -> Array:
    """For each row the sum over the rows of its code; `[b, n, k]`."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(codes[order]) != 0])
    return np.add.reduceat(values[:, order], starts, axis=1)[:, codes]


def _shortage(
    rows: pd.DataFrame, outcome: str, predictors: list[str], group: str, crossed: str | None
) -> NotEnough | None:
    sizes = rows.groupby(group, observed=True).size()
    quantity = "held-out R²"
    if len(sizes) < NEEDED:
        return not_enough(quantity, len(sizes), NEEDED, f"{group}s", n=len(rows))
    other = (rows[group].to_numpy()[:, None] != rows[group].to_numpy()) & (
        True if crossed is None else rows[crossed].to_numpy()[:, None] != rows[crossed].to_numpy()
    )
    smallest, needed = int(other.sum(axis=1).min()), 3 + 2 * len(predictors)
    if smallest < needed:
        without = group if crossed is None else f"{group} and one {crossed}"
        why = f"{len(predictors)} predictors, fitted without one {without}"
        return not_enough(quantity, smallest, needed, "training runs", n=len(rows), why=why)
    values = rows[outcome].to_numpy(dtype=float)
    if np.ptp(values) <= 1e-12 * np.abs(values).max():
        return not_enough(quantity, 1, 2, "different values", n=len(rows), why=f"{outcome} is constant")
    return None


def _scored(
    study: _Study,
    rows: pd.DataFrame,
    predictors: list[str],
    baselines: list[str],
    group: str,
    crossed: str | None,
    dropped: int,
    level: float,
) -> dict[str, Any]:
    x, base = (rows[names].to_numpy(dtype=float) for names in (predictors, baselines))
    nothing = np.empty((len(rows), 0))
    result = study.held_out(x)
    value = float(result.r_squared()[0])
    permuted = study.r_squared(study.rearranged(x, nothing))
    p = study.moves.within.p_value(value, permuted)
    without = group if crossed is None else f"{group} and one {crossed}"
    method = f"least squares leaving out one {without} at a time; one-sided p of the levels of {group}s"
    method += f" and, within them, {'whole ' + crossed + 's' if crossed else 'runs'} changing places, "
    method += f"{'all' if study.moves.within.exact else 'random'} {len(study.moves.within.index)}"
    possible = study.moves.within.possible
    few = f"with {possible} arrangements no p is below {1 / possible:.3g}" if 1 / possible > 1 - level else ""
    lost = f"{counted(dropped, 'rows')} left out: no value" if dropped else ""
    note = "; ".join(filter(None, [lost, few, NO_INTERVAL]))
    nan = float("nan")
    count = int(result.groups.max()) + 1
    estimate = Estimate("held-out R²", value, nan, nan, level, p, len(rows), count, method, None, note)
    row = estimate.as_row() | {
        "chance": float(np.quantile(permuted, level)),
        "rmse": float(np.sqrt(np.mean((result.outcome - result.predicted) ** 2))),
    }
    if baselines and predictors != baselines:
        known = float(study.held_out(base).r_squared()[0])
        own = [name for name in predictors if name not in baselines]
        row |= {"gain": value - known, "gain_low": nan, "gain_high": nan, "gain_p": nan}
        needed = NEEDED_FOR_GAIN + len(baselines)
        if count < needed:
            row["note"] += f"; the gain has no p: {count} {group}s, {needed} are needed with these baselines"
            return row
        moved = study.rearranged(rows[own].to_numpy(dtype=float), base)
        if set(baselines) <= set(predictors):
            moved = np.concatenate([np.broadcast_to(base, (len(moved), *base.shape)), moved], axis=2)
        row["gain_p"] = study.moves.within.p_value(value - known, study.r_squared(moved) - known)
    return row
