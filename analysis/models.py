"""Linear mixed models of the score in every language: the feature's slope, with languages, schedules and runs each
having a level of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from fishlens.analysis.inference.clusters import codes_of
from fishlens.analysis.inference.reml import fit_reml
from fishlens.analysis.results import NotEnough, not_enough
from scipy import stats

from fishlens.errors import InputError

NEEDED_LEVELS = 3  # of a random effect, for its variance to be estimated at all
NEEDED_ROWS = 10
MOSTLY = 0.5  # share of a predictor's variance between schedules from which on it counts as one of schedules


@dataclass(frozen=True)
class MixedModel:
    """A fitted model. `fixed`: one row per term with estimate, error, low, high, p, freedom (degrees of freedom).
    `variances`: of each random intercept and of the `residual`, in squared points. `messages`: everything the
    search complained about, and variances estimated as zero. With `converged` False no number here should be
    reported."""

    fixed: pd.DataFrame
    variances: dict[str, float]
    levels: dict[str, int]  # of each random intercept
    converged: bool
    messages: tuple[str, ...]
    n: int  # rows (run × language)
    log_likelihood: float  # restricted
    level: float
    method: str

    enough = True


def mixed_model(
    table: pd.DataFrame,
    predictors: Sequence[str],
    outcome: str = "value",
    *,
    random: Sequence[str] = ("language", "schedule", "run"),
    standardise: bool = True,
    level: float = 0.95,
) -> MixedModel | NotEnough:
    """outcome = β₀ + Σ β_j predictor_j + u_language + v_schedule + w_run + ε, by restricted maximum likelihood
    (`inference.reml`).

    `table`: one row per run and language. The intercept of the run is in the default because the feature is one number
    per run: without it the languages of a run would count as independent evidence about the feature. `standardise`
    divides each predictor by its standard deviation, so that slopes are points per standard deviation.

    p and interval are from t with containment degrees of freedom (as in nlme): a predictor is tested against the
    finest random effect inside whose levels it is constant. n runs in s schedules and q such predictors give
    n − s − q; one that is constant within schedules has s − 1 − q. So has one that varies mostly between schedules
    (more than half of its variance): what it then says rests on the schedules, however many seeds each has.
    Returns `NotEnough` when a random effect has fewer than 3 levels, there are fewer than 10 rows, or no degree of
    freedom is left. Raises `InputError` for an unknown column.
    """
    for name in (outcome, *predictors, *random):
        if name not in table:
            raise InputError(
                f"the table has no column {name!r}: expected one of {', '.join(map(str, table.columns))}"
            )
    rows = table[[outcome, *predictors, *random]].dropna().reset_index(drop=True)
    rows = rows.astype(dict.fromkeys(random, str))
    levels = {name: int(rows[name].nunique()) for name in random}
    shortage = _shortage(rows, predictors, outcome, levels)
    if shortage is not None:
        return shortage
    freedom = {name: _containment(rows, name, predictors, random, levels) for name in predictors}
    for name, left in freedom.items():
        if left < 1:
            return not_enough("mixed model", left, 1, f"degrees of freedom for {name}", n=len(rows))
    design = rows[list(predictors)].to_numpy(dtype=float)
    if standardise:
        design = (design - design.mean(axis=0)) / design.std(axis=0, ddof=1)
    x = np.column_stack([np.ones(len(rows)), design])
    if np.linalg.matrix_rank(x) < x.shape[1]:
        raise InputError(f"the predictors {', '.join(predictors)} determine each other: leave one out")
    y = rows[outcome].to_numpy(dtype=float)
    fitted = fit_reml(y, x, [codes_of(rows[name].to_numpy(), len(rows)) for name in random])
    estimate, error = fitted.coefficients, np.sqrt(np.diag(fitted.covariance))
    freedoms = np.array([min(levels.values()) - 1, *freedom.values()], dtype=float)
    reach = stats.t.ppf((1 + level) / 2, freedoms) * error
    fixed = pd.DataFrame(
        {
            "term": ["intercept", *predictors],
            "estimate": estimate,
            "error": error,
            "low": estimate - reach,
            "high": estimate + reach,
            "p": 2 * stats.t.sf(np.abs(estimate / error), freedoms),
            "freedom": freedoms,
        }
    )
    residual = fitted.residual_variance
    variances = {name: float(ratio) * residual for name, ratio in zip(random, fitted.ratios, strict=True)}
    zero = [
        f"the variance of {name} is estimated as zero"
        for name, v in variances.items()
        if v <= 1e-8 * residual
    ]
    variances["residual"] = residual
    method = f"REML, random intercepts for {', '.join(random)}; t with containment degrees of freedom"
    messages = (*fitted.messages, *zero)
    likelihood = fitted.log_likelihood
    return MixedModel(
        fixed, variances, levels, fitted.converged, messages, len(rows), likelihood, level, method
    )


def _shortage(
    rows: pd.DataFrame, predictors: Sequence[str], outcome: str, levels: dict[str, int]
) -> NotEnough | None:
    for name, count in levels.items():
        if count < NEEDED_LEVELS:
            return not_enough("mixed model", count, NEEDED_LEVELS, f"{name}s", n=len(rows))
    for first, second in combinations(levels, 2):
        if levels[first] == levels[second] == len(rows.groupby([first, second])):
            why = f"every {first} is a {second}: leave one of them out of random"
            return not_enough(
                "mixed model", levels[first], levels[first] + 1, f"{second}s", n=len(rows), why=why
            )
    if len(rows) < NEEDED_ROWS:
        return not_enough("mixed model", len(rows), NEEDED_ROWS, "rows", n=len(rows))
    for name in (outcome, *predictors):
        values = rows[name].to_numpy(dtype=float)
        if np.ptp(values) <= 1e-12 * np.abs(values).max():
            return not_enough("mixed model", 1, 2, "different values", n=len(rows), why=f"{name} is constant")
    return None


def _containment(
    rows: pd.DataFrame,
    predictor: str,
    predictors: Sequence[str],
    random: Sequence[str],
    levels: dict[str, int],
) -> int:
    """Levels of the stratum the predictor varies in, less the levels of what contains it and its own predictors."""

    def stratum(name: str) -> str | None:
        constant = [r for r in random if (rows.groupby(r)[name].nunique() == 1).all()]
        finest = max(constant, key=lambda r: levels[r], default=None)
        if finest is None:
            return None
        own = rows.drop_duplicates(finest)
        wider = [r for r in random if r != finest and (rows.groupby(finest)[r].nunique() == 1).all()]
        return next((r for r in wider if _between_share(own[name], own[r]) > MOSTLY), finest)

    mine = stratum(predictor)
    alike = sum(stratum(name) == mine for name in predictors)
    if mine is None:
        return len(rows) - 1 - sum(count - 1 for count in levels.values()) - alike
    around = [r for r in random if levels[r] < levels[mine] and (rows.groupby(mine)[r].nunique() == 1).all()]
    return levels[mine] - max((levels[r] for r in around), default=1) - alike


def _between_share(values: pd.Series, groups: pd.Series) -> float:
    """The share of the variance that lies between the groups, corrected for their size; 1 for one value a group."""
    n, g = len(values), groups.nunique()
    if n == g:
        return 1.0
    within = float(((values - values.groupby(groups).transform("mean")) ** 2).sum()) / (n - g)
    total = float(values.var(ddof=1))
    return 1 - within / total if total > 0 else 0.0
