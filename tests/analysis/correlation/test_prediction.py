"""Held-out prediction against statsmodels and by hand."""

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis.correlation.prediction import hold_out, predict
from statsmodels.regression.linear_model import OLS

from fishlens.errors import InputError


def study(schedules=6, seeds=4, seed=0):
    rng = np.random.default_rng(seed)
    schedule = np.repeat(np.arange(schedules), seeds)
    table = pd.DataFrame(
        {"schedule": [f"s{k}" for k in schedule], "source": rng.standard_normal(len(schedule))}
    )
    table["peak"] = rng.standard_normal(schedules)[schedule] + 0.5 * rng.standard_normal(len(schedule))
    table["average"] = 60 + table["source"] + 2 * table["peak"] + 0.3 * rng.standard_normal(len(schedule))
    return table


def test_leaving_out_one_row_at_a_time_is_statsmodels_press():
    table = study()
    found = hold_out(table[["source", "peak"]], table["average"], np.arange(24))
    design = np.column_stack([np.ones(24), table[["source", "peak"]]])
    residuals = OLS(table["average"].to_numpy(), design).fit().get_influence().resid_press
    np.testing.assert_allclose(found.outcome - found.predicted, residuals, rtol=1e-8)


def test_a_schedule_is_predicted_from_the_others_only():
    table = study()
    found = hold_out(table[["source", "peak"]], table["average"], table["schedule"])
    out = (table["schedule"] == "s2").to_numpy()
    design = np.column_stack([np.ones(24), table[["source", "peak"]]])
    fit = OLS(table["average"].to_numpy()[~out], design[~out]).fit()
    np.testing.assert_allclose(found.predicted[out], fit.predict(design[out]), rtol=1e-10)
    np.testing.assert_allclose(found.mean[out], table["average"][~out].mean())
    errors = ((found.outcome - found.predicted) ** 2).sum() / ((found.outcome - found.mean) ** 2).sum()
    assert found.r_squared()[0] == pytest.approx(1 - errors, rel=1e-12)


def test_the_feature_is_judged_against_the_baselines():
    table = study(schedules=8).assign(noise=np.random.default_rng(5).standard_normal(32))
    rows = predict(table, "average", ["peak"], ["source"]).set_index("model")
    assert list(rows.index) == ["baselines", "features", "baselines + features"]
    assert rows.loc["baselines + features", "estimate"] > 0.9
    assert rows.loc["baselines + features", "gain"] > 0.3
    assert rows.loc["baselines + features", "gain_p"] < 0.01
    assert rows.loc["features", "p"] < 0.01 and rows.loc["features", "chance"] < 0.5
    useless = predict(table, "average", ["noise"]).set_index("model")
    assert useless.loc["features", "estimate"] < 0.1  # on held-out schedules noise predicts nothing
    assert useless.loc["features", "p"] > 0.05


def test_a_predictor_that_does_not_vary_in_the_training_runs_gets_no_weight():
    table = study()
    table["flag"] = (table["schedule"] == "s0").astype(float)
    found = hold_out(table[["flag"]], table["average"], table["schedule"])
    out = (table["schedule"] == "s0").to_numpy()
    np.testing.assert_allclose(found.predicted[out], found.mean[out])


def test_too_few_schedules_or_runs_say_so():
    few = predict(study(schedules=3), "average", ["peak"]).iloc[0]
    assert np.isnan(few["estimate"])
    assert few["needed"] == 4
    many = predict(study(schedules=4, seeds=1), "average", ["peak"], ["source"]).set_index("model")
    assert many.loc["baselines + features", "note"].startswith("3 training runs, at least 7")
    assert np.isnan(predict(study().assign(average=3.0), "average", ["peak"]).iloc[0]["estimate"])


def test_runs_without_a_value_leave_every_model():
    table = study()
    table.loc[3, "peak"] = np.nan
    rows = predict(table, "average", ["peak"], ["source"])
    assert (rows["n"] == 23).all()
    assert rows["note"].str.startswith("1 row left out: no value").all()


def test_an_unknown_column_is_named():
    with pytest.raises(InputError, match="no column 'loss'"):
        predict(study(), "average", ["peak"], ["loss"])
