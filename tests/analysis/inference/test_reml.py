"""Crossed random intercepts, against closed forms and statsmodels' likelihood."""

import warnings

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis.inference.reml import fit_reml
from statsmodels.regression.linear_model import OLS
from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec


def crossed(seed, schedules=5, seeds=4, languages=6, run_sd=0.3):
    rng = np.random.default_rng(seed)
    schedule, k, language = (a.ravel() for a in np.indices((schedules, seeds, languages)))
    run = schedule * seeds + k
    x = np.column_stack([np.ones(len(run)), rng.standard_normal(schedules * seeds)[run]])
    y = 60 + 0.5 * x[:, 1] + 5 * rng.standard_normal(languages)[language] + rng.standard_normal(len(run))
    y += 0.5 * rng.standard_normal(schedules)[schedule] + run_sd * rng.standard_normal(schedules * seeds)[run]
    return y, x, {"language": language, "run": run, "schedule": schedule}


def statsmodels_fit(y, x, levels, **options):
    parts = {name: pd.get_dummies(codes).to_numpy(dtype=float) for name, codes in levels.items()}
    names = list(parts)
    columns = [[[f"{name}{i}" for i in range(part.shape[1])]] for name, part in parts.items()]
    model = MixedLM(
        y, x, groups=np.ones(len(y)), exog_vc=VCSpec(names, columns, [[part] for part in parts.values()])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(reml=True, **options)


def test_runs_and_languages_balanced_is_least_squares_over_runs():
    """With every run scored in every language the slope of a run's number is that of the runs' means: closed form."""
    y, x, levels = crossed(1, run_sd=1.0)
    fit = fit_reml(y, x, [levels["language"], levels["run"]])
    means = pd.Series(y).groupby(levels["run"]).mean()
    theirs = OLS(means.to_numpy(), x[::6]).fit()
    assert fit.converged
    assert fit.coefficients == pytest.approx(theirs.params, rel=1e-8)
    assert np.sqrt(fit.covariance[1, 1]) == pytest.approx(theirs.bse[1], rel=1e-6)


def test_one_random_intercept_balanced_has_the_variances_of_the_analysis_of_variance():
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(8), 5)
    y = 2 * rng.standard_normal(8)[group] + rng.standard_normal(40)
    fit = fit_reml(y, np.ones((40, 1)), [group])
    table = y.reshape(8, 5)
    within = ((table - table.mean(axis=1, keepdims=True)) ** 2).sum() / 32
    between = 5 * table.mean(axis=1).var(ddof=1)
    assert fit.residual_variance == pytest.approx(within, rel=1e-6)
    assert fit.ratios[0] * fit.residual_variance == pytest.approx((between - within) / 5, rel=1e-6)
    assert fit.covariance[0, 0] == pytest.approx(between / 40, rel=1e-6)


def test_where_statsmodels_converges_it_finds_the_same():
    """Variances well away from zero, unbalanced: the same likelihood, slopes and errors."""
    y, x, levels = crossed(2, schedules=6, run_sd=1.5)
    keep = np.random.default_rng(0).random(len(y)) < 0.8
    y, x, levels = y[keep], x[keep], {name: codes[keep] for name, codes in levels.items()}
    theirs = statsmodels_fit(y, x, levels)
    fit = fit_reml(y, x, list(levels.values()))
    assert theirs.converged
    assert fit.log_likelihood == pytest.approx(theirs.llf, abs=1e-6)
    np.testing.assert_allclose(fit.coefficients, theirs.fe_params, rtol=1e-4)
    # errors: generalised least squares with the whole covariance written out
    v = np.eye(len(y))
    for ratio, codes in zip(fit.ratios, levels.values(), strict=True):
        v += ratio * (codes[:, None] == codes[None, :])
    covariance = fit.residual_variance * np.linalg.inv(x.T @ np.linalg.solve(v, x))
    np.testing.assert_allclose(fit.covariance, covariance, rtol=1e-8)
    np.testing.assert_allclose(
        fit.coefficients, covariance @ x.T @ np.linalg.solve(v, y) / fit.residual_variance, rtol=1e-8
    )


@pytest.mark.parametrize("seed", range(4))
def test_statsmodels_finds_no_higher_likelihood(seed):
    y, x, levels = crossed(seed)
    fit = fit_reml(y, x, list(levels.values()))
    assert fit.converged, fit.messages
    for options in ({}, {"method": "powell"}):
        assert fit.log_likelihood > statsmodels_fit(y, x, levels, **options).llf - 1e-6


def test_the_slope_of_the_likelihood_is_its_derivative():
    from fishlens.analysis.inference import reml

    y, x, levels = crossed(5)
    moments = reml._moments(np.column_stack([x, y - y.mean()]), list(levels.values()))
    assert moments.largest == 1  # runs
    ratios = np.array([3.0, 0.2, 0.7])
    for k in range(3):
        step = 1e-5 * np.eye(3)[k]
        numeric = (
            moments.profile(ratios + step).likelihood - moments.profile(ratios - step).likelihood
        ) / 2e-5
        assert moments.profile(ratios).slope[k] == pytest.approx(numeric, rel=1e-5)


def test_levels_and_columns_of_the_same_effects_are_the_same_model():
    y, x, levels = crossed(5)
    whole = fit_reml(y, x, [np.eye(codes.max() + 1)[codes] for codes in levels.values()])
    fit = fit_reml(y, x, list(levels.values()))
    assert fit.log_likelihood == pytest.approx(whole.log_likelihood, abs=1e-9)
    np.testing.assert_allclose(fit.coefficients, whole.coefficients, rtol=1e-6)
    np.testing.assert_allclose(fit.freedom, whole.freedom, rtol=1e-3)
    mixed = fit_reml(y, x, [np.eye(6)[levels["language"]], levels["run"], levels["schedule"]])
    assert mixed.log_likelihood == pytest.approx(whole.log_likelihood, abs=1e-9)


def test_a_variance_of_zero_is_an_answer():
    y, x, levels = crossed(0, run_sd=0.0)
    y = (
        y - pd.Series(y).groupby(levels["run"]).transform("mean").to_numpy()
    )  # runs differ less than by chance
    fit = fit_reml(y, x, [levels["language"], levels["run"]])
    assert fit.converged
    assert fit.ratios[1] == 0
