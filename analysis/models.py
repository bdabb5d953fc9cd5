"""Linear mixed models of the score in every language: the feature's slope, with languages, schedules, seeds and runs
each having a level of their own, and languages a slope."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import linalg, sparse, stats

from fishlens.errors import InputError

from .inference.clusters import codes_of
from .inference.exchange import Cells, exchange_test
from .inference.layout import layout
from .inference.permutation import Rearrangements, rearrange_whole
from .inference.reml import Fit, columns_of, fit_reml, slopes
from .results import NotEnough, not_enough

Array = NDArray[np.float64]
NEEDED_LEVELS = 3  # of a random effect, for its variance to be estimated at all
NEEDED_SLOPES = 4  # languages, for a variance of slopes
NEEDED_ROWS = 10
NEEDED_FREEDOM = 3
MOSTLY = 0.5  # share of a predictor's variance between schedules from which on it counts as one of schedules
WITHIN = ("schedule", "seed")  # what shifts whole runs: a predictor of runs is taken inside these
AUTO = "auto"


@dataclass(frozen=True)
class Design:
    """What was fitted: `y` `[n]`, `x` `[n, p]`, of every random effect the level of each row or its columns."""

    y: Array
    x: Array
    terms: tuple[str, ...]
    effects: dict[str, NDArray]


@dataclass(frozen=True)
class MixedModel:
    """A fitted model. `fixed`: one row per term with estimate, error, low, high, p, freedom (degrees of freedom).
    `variances`: of each random effect and of the `residual`, in squared points; "language × peak" is that of slopes.
    `messages`: everything the search complained about, and variances estimated as zero. With `converged` False no
    number here should be reported."""

    fixed: pd.DataFrame
    variances: dict[str, float]
    levels: dict[str, int]  # of each random intercept
    converged: bool
    messages: tuple[str, ...]
    n: int  # rows (run × language)
    log_likelihood: float  # restricted
    level: float
    method: str
    design: Design | None = field(default=None, repr=False, compare=False)

    enough = True

    def statsmodels(self) -> Any:
        """statsmodels' `MixedLMResults` of the same model, its search started at the maximum found here: for its
        summary, residuals and predicted random effects. Its p-values are normal ones, without degrees of freedom."""
        from statsmodels.regression.mixed_linear_model import MixedLM, MixedLMParams, VCSpec

        if self.design is None:
            raise InputError("this model holds no design: fit it with mixed_model")
        made = self.design
        names, effects = list(made.effects), [columns_of(part) for part in made.effects.values()]
        columns = [
            [[f"{name}[{k}]" for k in range(part.shape[1])]]
            for name, part in zip(names, effects, strict=True)
        ]
        parts = VCSpec(names, columns, [[part] for part in effects])
        frame = pd.DataFrame(made.x, columns=list(made.terms))
        model = MixedLM(made.y, frame, groups=np.zeros(len(made.y), dtype=int), exog_vc=parts)
        ratios = np.array([self.variances[name] / self.variances["residual"] for name in names])
        beta = np.linalg.lstsq(*_whitened(made, ratios), rcond=None)[0]
        start = MixedLMParams.from_components(
            fe_params=beta, cov_re=np.zeros((0, 0)), vcomp=np.maximum(ratios, 1e-10)
        )
        return model.fit(start_params=start, reml=True, method="lbfgs", maxiter=500)


def _whitened(made: Design, ratios: Array) -> tuple[Array, Array]:
    """X and y with the covariance of y turned into the identity."""
    covariance = np.eye(len(made.y))
    for ratio, effect in zip(ratios, made.effects.values(), strict=True):
        columns = columns_of(effect)
        covariance += ratio * columns @ columns.T
    factor = np.linalg.cholesky(covariance)
    return np.linalg.solve(factor, made.x), np.linalg.solve(factor, made.y)


def mixed_model(
    table: pd.DataFrame,
    predictors: Sequence[str],
    outcome: str = "value",
    *,
    random: Sequence[str] | None = None,
    by_language: Sequence[str] | str = AUTO,
    standardise: bool = True,
    level: float = 0.95,
    resamples: int = 1999,
    seed: int = 0,
) -> MixedModel | NotEnough:
    """outcome = β₀ + Σ (β_j + γ_j,language) predictor_j + u_language + v_schedule + s_seed + w_run + ε, by restricted
    maximum likelihood (`inference.reml`).

    `table`: one row per run and language. `random`: what has an intercept of its own, by default language, schedule
    and run, and seed where the table has seeds that several schedules share. The intercept of the run is needed
    because the feature is one number per run: without it the languages of a run would count as independent evidence.
    A schedule or seed shifts feature and score of all its runs: a predictor that varies among the runs of a schedule
    is taken as what is left of it after schedule and seed (additive fit over runs). `by_language`: the predictors
    whose slope may differ between languages ("auto": all that vary inside languages, with at least 4 languages);
    without it a feature that helps one language and hurts another counts as one that does something.
    `standardise` divides each predictor, before that, by its standard deviation: slopes are points per standard
    deviation of the feature.

    p and interval of a predictor that is taken inside schedules and seeds let the scores of whole seeds change places
    (`inference.exchange`): the model takes a seed to shift all schedules alike, the p does not. `freedom` is then NaN.
    Elsewhere they are from t with Satterthwaite's degrees of freedom, and no more than containment leaves: a predictor
    that is constant within schedules has schedules − 1 − q, q being the number of such predictors. With other random
    intercepts a predictor that varies mostly between their levels (more than half of its variance) has the degrees of
    freedom of these.
    Returns `NotEnough` when a random effect has fewer than 3 levels (a schedule or seed with fewer is fixed), there are
    fewer than 10 rows, fewer than 3 degrees of freedom are left, or fewer than 4 seeds can change places and every
    predictor needs that (otherwise the others keep their p, and `messages` say what has none). Raises `InputError` for
    an unknown column.
    """
    names = tuple(random) if random is not None else _default_random(table)
    for name in (outcome, *predictors, *names):
        if name not in table:
            raise InputError(
                f"the table has no column {name!r}; expected one of {', '.join(map(str, table.columns))}"
            )
    rows = table[[outcome, *predictors, *names]].dropna().reset_index(drop=True)
    rows = rows.astype(dict.fromkeys(names, str))
    fixed = [name for name in names if name in WITHIN and rows[name].nunique() < NEEDED_LEVELS]
    names = tuple(name for name in names if name not in fixed)
    levels = {name: int(rows[name].nunique()) for name in names}
    shortage = _shortage(rows, predictors, outcome, levels)
    if shortage is not None:
        return shortage
    values = rows[list(predictors)].astype(float)
    if standardise:
        values = (values - values.mean()) / values.std(ddof=1)
    around = [name for name in (*names, *fixed) if name in WITHIN]
    rows[list(predictors)], inside, gone = _inside(rows, values, around)
    if gone:
        why = f"{gone} does not vary within {' and '.join(around)}"
        return not_enough("mixed model", 1, 2, "different values", n=len(rows), why=why)
    freedom = {name: _containment(rows, name, predictors, names, levels, around) for name in predictors}
    for name, left in freedom.items():
        if left < NEEDED_FREEDOM:
            return not_enough(
                "mixed model", left, NEEDED_FREEDOM, f"degrees of freedom for {name}", n=len(rows)
            )
    moves = None
    if "seed" in around and inside:
        moves = _exchanges(rows, around, resamples, seed)
        few = moves.too_few("mixed model", "seeds", len(rows))
        if few is not None and len(inside) == len(predictors):
            return few
    made = _design(rows, predictors, outcome, names, fixed, by_language)
    found = _reported(fit_reml(made.y, made.x, list(made.effects.values())), made, levels, freedom, level)
    return found if moves is None else _exchanged(found, rows, predictors, inside, around, moves)


def _default_random(table: pd.DataFrame) -> tuple[str, ...]:
    names = ("language", "schedule", "run")
    if "seed" not in table or "run" not in table or table["seed"].isna().all():
        return names
    shared = table.groupby("seed")["run"].nunique().max() > 1
    return ("language", "schedule", "seed", "run") if shared else names


def _inside(
    rows: pd.DataFrame, values: pd.DataFrame, around: list[str]
) -> tuple[pd.DataFrame, list[str], str]:
    """Predictors of runs less the additive fit of what is around the runs, their names, and the name of one of which
    nothing is left."""
    inside: list[str] = []
    if "run" not in rows or not around:
        return values, inside, ""
    first = ~rows["run"].duplicated()
    factors = [codes_of(rows.loc[first, name].to_numpy(), int(first.sum())) for name in around]
    space, found = layout(factors), values.copy()
    for name in map(str, values):
        per_run = values.groupby(rows["run"])[name].nunique()
        constant = any((values.groupby(rows[factor])[name].nunique() == 1).all() for factor in around)
        if (per_run > 1).any() or constant:
            continue  # of languages, or of whole schedules
        own = values.loc[first, name].to_numpy()
        left = space.residual(own)
        if np.linalg.norm(left) <= 1e-9 * max(np.linalg.norm(own - own.mean()), np.finfo(float).tiny):
            return found, inside, str(name)
        inside.append(name)
        of_run = pd.Series(left, index=rows.loc[first, "run"])
        found[name] = rows["run"].map(of_run).to_numpy(dtype=float)
    return found, inside, ""


def _exchanges(rows: pd.DataFrame, around: list[str], resamples: int, seed: int) -> Rearrangements:
    """Whole seeds of runs, in the order of `codes_of(rows["run"])`."""
    first = rows[~rows["run"].duplicated()]
    strata = codes_of(
        first["schedule"].to_numpy() if "schedule" in around else np.zeros(len(first)), len(first)
    )
    units = codes_of(first["seed"].to_numpy(), len(first))
    return rearrange_whole(strata, units, resamples, np.random.default_rng(seed))


def _solver(made: Design, ratios: Array) -> Callable[[Array], Array]:
    """V⁻¹ times columns, V the covariance of y in residual variances: X − Z (D⁻¹ + ZᵀZ)⁻¹ ZᵀX."""
    parts = [
        np.sqrt(ratio) * _sparse(effect)
        for ratio, effect in zip(ratios, made.effects.values(), strict=True)
        if ratio > 1e-12
    ]
    if not parts:
        return lambda columns: columns
    z = sparse.hstack(parts, format="csr")
    inner = linalg.cho_factor(np.eye(z.shape[1]) + (z.T @ z).toarray())
    return lambda columns: columns - z @ linalg.cho_solve(inner, z.T @ columns)


def _sparse(effect: NDArray) -> sparse.csr_array:
    if effect.ndim == 1:
        return sparse.csr_array((np.ones(len(effect)), (np.arange(len(effect)), effect)))
    return sparse.csr_array(effect)


def _exchanged(
    found: MixedModel,
    rows: pd.DataFrame,
    predictors: Sequence[str],
    inside: list[str],
    around: list[str],
    moves: Rearrangements,
) -> MixedModel:
    """`found` with p and interval of the predictors `inside` from the exchange of whole seeds."""
    few = moves.too_few("p and interval", "seeds", found.n)
    if few is not None:
        within = found.fixed["term"].isin(inside)
        fixed = found.fixed.copy()
        fixed.loc[within, ["low", "high", "p", "freedom"]] = np.nan
        return replace(found, fixed=fixed, messages=(*found.messages, f"{', '.join(inside)}: {few}"))
    fixed, n, made = found.fixed.copy(), len(rows), found.design
    assert made is not None
    solved = _solver(
        made, np.array([found.variances[name] for name in made.effects]) / found.variances["residual"]
    )
    language = rows["language"].to_numpy() if "language" in rows else np.zeros(n)
    cells = Cells(
        codes_of(rows["run"].to_numpy(), n), codes_of(language, n),
        [codes_of(rows[name].to_numpy(), n) for name in around],
    )  # fmt: skip
    for name in inside:
        place = made.terms.index(name)
        others, own = np.delete(made.x, place, axis=1), made.x[:, place]
        pulled = solved(others)
        y, x = (v - others @ np.linalg.solve(others.T @ pulled, pulled.T @ v) for v in (made.y, own))
        whole = solved(made.x)
        weights = np.linalg.solve(made.x.T @ whole, whole.T)[place]
        test = exchange_test(y, x, weights, cells, moves, found.variances.get(f"language × {name}", 0.0))
        row = fixed.index[fixed["term"] == name][0]
        fixed.loc[row, ["low", "high"]] = test.ends(found.level)
        fixed.loc[row, ["p", "freedom"]] = test.p_value(), np.nan
    drawn = f"{'all' if moves.exact else 'random'} {len(moves.index)}"
    method = f"{found.method.split(';')[0]}; p and interval by exchange of whole seeds, {drawn}"
    if len(inside) < len(predictors):
        method += f" (others: {found.method.split('; ', 1)[1]})"
    note = moves.said(found.level)
    return replace(found, fixed=fixed, method=method, messages=(*found.messages, *filter(None, [note])))


def _design(
    rows: pd.DataFrame,
    predictors: Sequence[str],
    outcome: str,
    names: tuple[str, ...],
    fixed: list[str],
    by_language: Sequence[str] | str,
) -> Design:
    x = np.column_stack([np.ones(len(rows)), rows[list(predictors)].to_numpy(dtype=float)])
    if np.linalg.matrix_rank(x) < x.shape[1]:
        raise InputError(f"the predictors {', '.join(predictors)} determine each other: leave one out")
    terms = ["intercept", *predictors]
    for name in fixed:
        codes = codes_of(rows[name].to_numpy(), len(rows))
        extra = np.eye(codes.max() + 1)[codes][:, 1:]
        x = np.column_stack([x, extra - extra.mean(axis=0)])
        terms += [f"{name} {k + 1}" for k in range(extra.shape[1])]
    effects: dict[str, NDArray] = {name: codes_of(rows[name].to_numpy(), len(rows)) for name in names}
    for name in _sloped(rows, predictors, names, by_language):
        codes = codes_of(rows["language"].to_numpy(), len(rows))
        effects[f"language × {name}"] = slopes(rows[name].to_numpy(dtype=float), codes)
    return Design(rows[outcome].to_numpy(dtype=float), x, tuple(terms), effects)


def _sloped(
    rows: pd.DataFrame, predictors: Sequence[str], names: tuple[str, ...], wanted: Sequence[str] | str
) -> list[str]:
    if wanted != AUTO:
        unknown = [name for name in wanted if name not in predictors]
        if unknown or "language" not in names:
            raise InputError(
                f"by_language names {', '.join(wanted)}; expected predictors, and language among the random effects"
            )
        return list(wanted)
    if "language" not in names or rows["language"].nunique() < NEEDED_SLOPES:
        return []
    return [name for name in predictors if (rows.groupby("language")[name].nunique() > 1).any()]


def _reported(
    fitted: Fit, made: Design, levels: dict[str, int], contained: dict[str, int], level: float
) -> MixedModel:
    count = 1 + len(contained)
    estimate, error = fitted.coefficients[:count], np.sqrt(np.diag(fitted.covariance))[:count]
    most = np.array([min(levels.values()) - 1, *contained.values()], dtype=float)
    freedoms = np.maximum(np.minimum(most, fitted.freedom[:count]), 1.0)
    reach = stats.t.ppf((1 + level) / 2, freedoms) * error
    fixed = pd.DataFrame(
        {
            "term": made.terms[:count],
            "estimate": estimate,
            "error": error,
            "low": estimate - reach,
            "high": estimate + reach,
            "p": 2 * stats.t.sf(np.abs(estimate / error), freedoms),
            "freedom": freedoms,
        }
    )
    residual = fitted.residual_variance
    variances = {name: float(r) * residual for name, r in zip(made.effects, fitted.ratios, strict=True)}
    zero = [
        f"the variance of {name} is estimated as zero"
        for name, v in variances.items()
        if v <= 1e-8 * residual
    ]
    variances["residual"] = residual
    sloped = [name for name in made.effects if name not in levels]
    method = f"REML, random intercepts for {', '.join(levels)}"
    method += f", random slopes {', '.join(sloped)}" if sloped else ""
    method += "; t with Satterthwaite's degrees of freedom, no more than containment leaves"
    return MixedModel(
        fixed, variances, levels, fitted.converged, (*fitted.messages, *zero), len(made.y),
        fitted.log_likelihood, level, method, made,
    )  # fmt: skip


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
    within: list[str],
) -> int:
    """Levels of the stratum the predictor varies in, less the levels of what contains it and its own predictors."""

    def stratum(name: str) -> str | None:
        constant = [r for r in random if _same(rows, r, name)]
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
    own = rows.drop_duplicates(mine)
    around = [r for r in random if levels[r] < levels[mine] and (rows.groupby(mine)[r].nunique() == 1).all()]
    if mine == "run":
        around = list(dict.fromkeys([*around, *within]))
    factors = [codes_of(own[name].to_numpy(), len(own)) for name in around]
    return len(own) - layout(factors, n=len(own)).rank - alike


def _same(rows: pd.DataFrame, factor: str, name: str) -> bool:
    """Whether a predictor is constant, beyond rounding, in every level of a factor."""
    groups = rows.groupby(factor)[name]
    return bool((groups.max() - groups.min() <= 1e-9 * np.ptp(rows[name])).all())


def _between_share(values: pd.Series, groups: pd.Series) -> float:
    """The share of the variance that lies between the groups, corrected for their size; 1 for one value a group."""
    n, g = len(values), groups.nunique()
    if n == g:
        return 1.0
    within = float(((values - values.groupby(groups).transform("mean")) ** 2).sum()) / (n - g)
    total = float(values.var(ddof=1))
    return 1 - within / total if total > 0 else 0.0
