"""Mixed models: slopes of known studies, degrees of freedom by containment, and honesty about what failed."""

import itertools

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis import models
from fishlens.analysis.inference.reml import Fit
from fishlens.analysis.models import mixed_model
from fishlens.analysis.results import NotEnough
from scipy import stats
from statsmodels.regression.linear_model import OLS

from fishlens.errors import InputError


def study(schedules=5, seeds=4, languages=6, seed=0, slope=1.0):
    rng = np.random.default_rng(seed)
    schedule, k, language = (a.ravel() for a in np.indices((schedules, seeds, languages)))
    run = schedule * seeds + k
    peak = rng.standard_normal(schedules * seeds)[run]
    value = 60 + slope * peak + 4 * rng.standard_normal(languages)[language] + rng.standard_normal(len(run))
    value += rng.standard_normal(schedules)[schedule] + 0.8 * rng.standard_normal(schedules * seeds)[run]
    table = pd.DataFrame(
        {"schedule": schedule, "run": run, "language": language, "peak": peak, "value": value}
    )
    return table.assign(first_layer=rng.standard_normal(schedules)[schedule], distance=language * 1.0)


def test_without_schedules_a_balanced_study_is_the_regression_of_run_means():
    table = study()
    found = mixed_model(table, ["peak"], random=("language", "run"), by_language=(), standardise=False)
    means = table.groupby("run")[["value", "peak"]].mean()
    theirs = OLS(means["value"], np.column_stack([np.ones(20), means["peak"]])).fit()
    row = found.fixed.set_index("term").loc["peak"]
    assert found.converged
    assert row["estimate"] == pytest.approx(theirs.params["x1"], rel=1e-8)
    assert row["error"] == pytest.approx(theirs.bse["x1"], rel=1e-6)
    assert row["freedom"] == pytest.approx(18)
    assert row["p"] == pytest.approx(theirs.pvalues["x1"], rel=1e-5)
    assert (row["low"], row["high"]) == pytest.approx(tuple(theirs.conf_int().loc["x1"]), rel=1e-5)


def test_degrees_of_freedom_are_of_the_stratum_the_predictor_varies_in():
    found = mixed_model(study(), ["peak", "first_layer", "distance"], by_language=()).fixed
    found = found.set_index("term")["freedom"]
    assert found["peak"] == pytest.approx(20 - 5 - 1)  # runs within schedules
    assert found["first_layer"] == pytest.approx(5 - 1 - 1)  # schedules
    assert found["distance"] == pytest.approx(6 - 1 - 1)  # languages


def test_slopes_are_per_standard_deviation_unless_asked_otherwise():
    table = study()
    plain = mixed_model(table, ["peak"], standardise=False).fixed.set_index("term").loc["peak", "estimate"]
    scaled = mixed_model(table, ["peak"]).fixed.set_index("term").loc["peak", "estimate"]
    assert scaled == pytest.approx(plain * table["peak"].std(ddof=1), rel=1e-6)


def test_the_variances_of_a_large_study_are_found():
    found = mixed_model(study(schedules=40, seeds=5, languages=30, seed=1), ["peak"], standardise=False)
    assert found.variances["language"] == pytest.approx(16, rel=0.5)
    assert found.variances["schedule"] == pytest.approx(1, rel=0.5)
    assert found.variances["run"] == pytest.approx(0.64, rel=0.3)
    assert found.variances["residual"] == pytest.approx(1, rel=0.05)
    row = found.fixed.set_index("term").loc["peak"]
    assert row["low"] < 1 < row["high"]
    assert found.levels == {"language": 30, "schedule": 40, "run": 200}


def test_what_failed_is_reported(monkeypatch):
    def failing(y, x, levels):
        return Fit(
            np.zeros(2), np.eye(2), 1.0, np.zeros(4), -9.0, False, ("the optimiser stopped on a slope: x",),
            np.array([4.0, 4.0]),
        )  # fmt: skip

    monkeypatch.setattr(models, "fit_reml", failing)
    found = mixed_model(study(), ["peak"])
    assert not found.converged
    assert found.messages[0] == "the optimiser stopped on a slope: x"
    assert "the variance of run is estimated as zero" in found.messages


def test_too_few_levels_or_constant_scores_say_so():
    table = study()
    few = mixed_model(table[table["language"] < 2], ["peak"])
    assert isinstance(few, NotEnough)
    assert (few.clusters, few.needed, few.unit) == (2, 3, "languages")
    flat = mixed_model(table.assign(value=50.0), ["peak"])
    assert isinstance(flat, NotEnough)
    assert "value is constant" in flat.note
    one_seed = mixed_model(table[table["run"] % 4 == 0], ["peak"])
    assert isinstance(one_seed, NotEnough)  # runs and schedules are the same thing then


def test_rows_without_a_value_are_left_out():
    table = study()
    table.loc[[3, 50], "value"] = np.nan
    assert mixed_model(table, ["peak"]).n == 118


def test_bad_input_is_named():
    with pytest.raises(InputError, match="no column 'width'"):
        mixed_model(study(), ["width"])
    with pytest.raises(InputError, match="determine each other"):
        mixed_model(study().assign(twice=lambda t: 2 * t["peak"]), ["peak", "twice"])


def test_the_interval_belongs_to_the_p_value():
    row = mixed_model(study(slope=0.3), ["peak"], level=0.9).fixed.set_index("term").loc["peak"]
    t = row["estimate"] / row["error"]
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(t), row["freedom"]))
    assert (row["low"] > 0 or row["high"] < 0) == (row["p"] < 0.1)


@pytest.mark.parametrize("by_language", [(), ("peak",)])
def test_p_and_interval_of_a_feature_are_those_of_every_exchange_of_seeds_tried_by_hand(by_language):
    rng = np.random.default_rng(6)
    schedule, seed, language = (part.ravel() for part in np.indices((3, 5, 4)))
    run = 5 * schedule + seed
    peak = rng.standard_normal(15)[run]
    slopes = 0.4 + 0.6 * rng.standard_normal(4)
    value = slopes[language] * peak + rng.standard_normal(15)[run] + 0.3 * rng.standard_normal(60)
    table = pd.DataFrame(
        {"run": run, "schedule": schedule, "seed": seed, "language": language, "peak": peak, "value": value}
    )
    found = mixed_model(table, ["peak"], standardise=False, by_language=by_language)
    row = found.fixed.set_index("term").loc["peak"]

    means = table.groupby("run")[["peak", "value"]].mean().to_numpy().T.reshape(2, 3, 5)
    x, y = (
        means
        - means.mean(axis=1, keepdims=True)
        - means.mean(axis=2, keepdims=True)
        + means.mean((1, 2))[:, None, None]
    )
    estimate = (x * y).sum() / (x * x).sum()
    between = found.variances["language × peak"] / 4 if by_language else 0.0  # of the mean of four slopes

    def moved(null):
        rest = y - null * x
        return (
            np.array([(x * rest[:, list(o)]).sum() for o in itertools.permutations(range(5))]) / (x * x).sum()
        )

    def p_value(null):
        if not between:
            return np.mean(np.abs(moved(null)) >= abs(estimate - null) - 1e-12)
        share = between / (between + moved(estimate).var())
        seen, slope = abs(estimate - null), moved(null + share * (estimate - null))
        t = stats.t(3)
        return np.mean(t.sf((seen - slope) / between**0.5) + t.cdf((-seen - slope) / between**0.5))

    assert not by_language or between > 0.01
    assert row["estimate"] == pytest.approx(estimate, rel=1e-6)
    assert row["p"] == pytest.approx(p_value(0.0), abs=1e-6)
    for end, out in ((row["low"], -1e-4), (row["high"], 1e-4)):
        assert p_value(end + out) <= 0.05 + 1e-9 < p_value(end - out)


def test_statsmodels_started_at_our_optimum_finds_the_same():
    found = mixed_model(study(schedules=4, seeds=4), ["peak"])
    theirs = found.statsmodels()
    row = found.fixed.set_index("term").loc["peak"]
    assert theirs.params["peak"] == pytest.approx(row["estimate"], rel=1e-4)
    assert theirs.llf <= found.log_likelihood + 1e-4
    assert theirs.llf == pytest.approx(found.log_likelihood, abs=0.05)
