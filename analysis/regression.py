"""Least squares over runs whose errors are correlated within clusters: statsmodels' cluster-robust errors, and p-values
and intervals of the wild cluster bootstrap, since with six schedules or seeds the former reject too often.

Clusters are of one kind: with those of two kinds at once (schedules and seeds) such errors covered 88 % in studies of
8 × 5 where 95 % were promised. The other kind gets a level for each of its values instead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fishlens.errors import InputError

from .inference.clusters import codes_of
from .inference.exchange import end_of
from .results import NotEnough, not_enough

Array = NDArray[np.float64]
NEEDED = 5  # clusters
AUTO = "auto"
_SIGNS_FROM = 11  # clusters from which on signs alone have arrangements in plenty
_WEBB = np.array([-np.sqrt(1.5), -1.0, -np.sqrt(0.5), np.sqrt(0.5), 1.0, np.sqrt(1.5)])


@dataclass(frozen=True)
class ClusteredRegression:
    """`slopes`: one row per predictor with estimate, error (cluster-robust), low, high and p (wild cluster bootstrap),
    robust_p (t of the cluster-robust error with clusters − 1 degrees of freedom, too small with few clusters).
    `fitted`: statsmodels' own result, for its summary and residuals."""

    slopes: pd.DataFrame
    n: int
    clusters: int
    level: float
    method: str
    seed: int
    fitted: Any = field(default=None, repr=False, compare=False)

    enough = True


def clustered_regression(
    table: pd.DataFrame,
    predictors: Sequence[str],
    outcome: str = "average",
    *,
    cluster: str = "schedule",
    fixed: Sequence[str] | str = AUTO,
    level: float = 0.95,
    resamples: int = 1999,
    seed: int = 0,
) -> ClusteredRegression | NotEnough:
    """outcome = Σ β_j predictor_j + a level for every value of `fixed`, by least squares over the rows of `table`.

    `cluster`: whose rows are not independent of each other, "schedule" or "seed". `fixed` "auto": the other of the two,
    where several schedules share a seed. Errors are statsmodels' (`cov_type="cluster"`, with its small-sample factor).
    p and interval are those of the wild cluster bootstrap-t with the null imposed (Cameron, Gelbach & Miller 2008;
    Webb's six points below 11 clusters, signs from there on); the interval is every slope that this test does not
    reject.
    Returns `NotEnough` with fewer than 5 clusters or no degree of freedom left. Raises `InputError` for a column that
    is not there, or predictors that determine each other.
    """
    levels = _other_factor(table, cluster) if isinstance(fixed, str) else list(fixed)
    for name in (outcome, *predictors, cluster, *levels):
        if name not in table:
            there = ", ".join(map(str, table.columns))
            raise InputError(f"the table has no column {name!r}; expected one of {there}")
    if not predictors:
        raise InputError("no predictor is given; expected at least one column")
    columns = list(dict.fromkeys([outcome, *predictors, cluster, *levels]))
    rows = table[columns].replace([np.inf, -np.inf], np.nan).dropna().reset_index(drop=True)
    codes = codes_of(rows[cluster].astype(str).to_numpy(), len(rows))
    count = int(codes.max(initial=-1)) + 1
    if count < NEEDED:
        return not_enough("clustered regression", count, NEEDED, f"{cluster}s", n=len(rows))
    y, x = rows[outcome].to_numpy(dtype=float), _columns(rows, predictors, levels)
    if len(y) <= x.shape[1]:
        return not_enough("clustered regression", len(y), x.shape[1] + 1, "rows", n=len(y))
    fitted = _statsmodels(y, x, predictors, codes)
    draws = _weights(count, resamples, np.random.default_rng(seed))
    slopes = []
    for k, name in enumerate(predictors):
        test = _wild_test(y, x, k, codes, draws)
        estimate, error = float(fitted.params[k]), float(fitted.bse[k])
        low, high = (end_of(test, estimate, sign * error, 1 - level) for sign in (-1, 1))
        slopes.append([name, estimate, error, low, high, test(0.0), float(fitted.pvalues[k])])
    frame = pd.DataFrame(slopes, columns=["term", "estimate", "error", "low", "high", "p", "robust_p"])
    method = (
        f"least squares{', levels of ' + ', '.join(levels) if levels else ''}; cluster-robust errors by {cluster} "
        f"(statsmodels); p and interval by the wild cluster bootstrap over {cluster}s, {len(draws)} draws"
    )
    return ClusteredRegression(frame, len(y), count, level, method, seed, fitted)


def _other_factor(table: pd.DataFrame, cluster: str) -> list[str]:
    """Of schedule and seed the one that is not the cluster, where they cross."""
    other = {"schedule": "seed", "seed": "schedule"}.get(cluster)
    if other is None or other not in table or cluster not in table:
        return []
    known = table[table[[cluster, other]].notna().all(axis=1)]
    return [other] if len(known) and known.groupby(other)[cluster].nunique().max() > 1 else []


def _columns(rows: pd.DataFrame, predictors: Sequence[str], fixed: Sequence[str]) -> Array:
    """The predictors, then a column for every level of what is fixed; `[n, p]` of full rank."""
    x = rows[list(predictors)].to_numpy(dtype=float)
    levels = np.ones((len(rows), 1))
    for name in fixed:
        own = codes_of(rows[name].astype(str).to_numpy(), len(rows))
        levels = np.column_stack([levels, np.eye(int(own.max()) + 1)[own]])
    left, sizes, _ = np.linalg.svd(levels, full_matrices=False)
    levels = left[:, sizes > 1e-10 * sizes[0]]
    rest = x - levels @ (levels.T @ x)
    scale = np.where(x.any(axis=0), np.sqrt((x**2).sum(axis=0)), 1.0)
    if np.linalg.matrix_rank(rest / scale, tol=1e-9) < x.shape[1]:
        within = f" within {' and '.join(fixed)}" if fixed else ""
        raise InputError(
            f"the predictors {', '.join(predictors)} do not vary{within}, or determine each other: leave one out"
        )
    return np.column_stack([x, levels])


def _statsmodels(y: Array, x: Array, predictors: Sequence[str], groups: NDArray[np.intp]) -> Any:
    from statsmodels.regression.linear_model import OLS

    model = OLS(y, x)
    model.data.xnames = [*predictors, *(f"level {k}" for k in range(x.shape[1] - len(predictors)))]
    return model.fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)


def _weights(clusters: int, resamples: int, rng: np.random.Generator) -> Array:
    """`[resamples, clusters]`: signs, or Webb's (2023) six points, which many draws of few clusters do not repeat."""
    points = np.array([-1.0, 1.0]) if clusters >= _SIGNS_FROM else _WEBB
    return points[rng.integers(len(points), size=(resamples, clusters))]


def _wild_test(
    y: Array, x: Array, place: int, clusters: NDArray[np.intp], draws: Array
) -> Callable[[float], float]:
    """β₀ → the two-sided p of "the slope is β₀": residuals of the fit in which it is, their signs and sizes changed
    cluster by cluster, fitted again. The factors of the robust variance are the same in every draw, and cancel."""
    pull = np.linalg.pinv(x)[place]
    own, others = x[:, place], np.delete(x, place, axis=1)
    base = np.linalg.qr(others)[0] if others.shape[1] else np.zeros((len(y), 0))
    whole = np.linalg.qr(x)[0]
    members = np.eye(int(clusters.max()) + 1)[clusters]

    def squares(values: Array) -> tuple[Array, Array]:
        """Slopes of `values` `[…, n]` and their squared errors."""
        errors = values - (values @ whole) @ whole.T
        return values @ pull, (((errors * pull) @ members) ** 2).sum(axis=-1)

    def p_value(null: float) -> float:
        shifted = y - null * own
        left = shifted - base @ (base.T @ shifted)
        slope, variance = squares(left)
        if variance <= 1e-24 * (left @ left) * (pull @ pull):
            return float("nan")
        slopes, variances = squares(draws[:, clusters] * left)
        large = slopes**2 * variance >= slope**2 * variances * (1 - 1e-9)
        return float((1 + large.sum()) / (1 + len(draws)))

    return p_value
