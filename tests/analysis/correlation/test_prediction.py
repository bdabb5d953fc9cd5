"""Held-out prediction against statsmodels and by hand."""

import itertools

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


def by_hand(x, y, schedule, seed):
    """Held-out R² of predictors `[b, n, k]`: each run by least squares over the runs of other schedules and seeds."""
    errors, scale = np.zeros(len(x)), 0.0
    for i in range(len(y)):
        train = (schedule != schedule[i]) & (seed != seed[i])
        design = np.concatenate([np.ones((len(x), train.sum(), 1)), x[:, train]], axis=2)
        across = design.swapaxes(1, 2)
        slope = np.linalg.solve(across @ design, (across @ y[train])[..., None])[..., 0]
        errors += (y[i] - slope[:, 0] - (x[:, i] * slope[:, 1:]).sum(axis=1)) ** 2
        scale += (y[i] - y[train].mean()) ** 2
    return 1 - errors / scale


def every_arrangement(left, schedule, seed):
    """`left` `[n]` with the means of schedules exchanged in every way, and apart from that what is left within them
    moved by whole seeds in every way."""
    level = np.array([left[schedule == s].mean() for s in np.unique(schedule)])
    rest = (left - level[schedule]).reshape(len(level), -1)
    return np.array([
        level[list(of_schedules)][schedule] + rest[:, list(of_seeds)].ravel()
        for of_schedules in itertools.permutations(range(len(level)))
        for of_seeds in itertools.permutations(range(rest.shape[1]))
    ])  # fmt: skip


def test_the_p_of_held_out_prediction_is_that_of_every_exchange_of_levels_and_seeds():
    rng = np.random.default_rng(8)
    schedule, seed = (part.ravel() for part in np.indices((4, 3)))
    x = rng.standard_normal(4)[schedule] + rng.standard_normal(12)
    y = 60 + 0.6 * x + rng.standard_normal(3)[seed] + rng.standard_normal(12)
    table = pd.DataFrame({"schedule": schedule, "seed": seed, "peak": x, "average": y})
    found = predict(table, "average", ["peak"]).iloc[0]
    moved = x.mean() + every_arrangement(x - x.mean(), schedule, seed)
    r2 = by_hand(moved[..., None], y, schedule, seed)
    assert len(r2) == 144 and found["estimate"] == pytest.approx(r2[0], rel=1e-9)
    assert 0.05 < found["p"] < 0.95
    assert found["p"] == pytest.approx(np.mean(r2 >= r2[0] - 1e-9), abs=1e-12)
    assert found["chance"] == pytest.approx(np.quantile(r2, 0.95), rel=1e-6)


def test_the_p_of_a_gain_is_that_of_every_exchange_of_what_baselines_leave():
    rng = np.random.default_rng(9)
    schedule, seed = (part.ravel() for part in np.indices((7, 3)))
    source = rng.standard_normal(7)[schedule] + rng.standard_normal(21)
    x = 0.7 * source + rng.standard_normal(7)[schedule] + rng.standard_normal(21)
    y = 60 + source + 0.2 * x + rng.standard_normal(3)[seed] + rng.standard_normal(21)
    table = pd.DataFrame({"schedule": schedule, "seed": seed, "source": source, "peak": x, "average": y})
    found = predict(table, "average", ["peak"], ["source"], resamples=30_239).set_index("model")
    explained = OLS(x, np.column_stack([np.ones(21), source])).fit().fittedvalues
    moved = explained + every_arrangement(x - explained, schedule, seed)
    both = np.stack([np.broadcast_to(source, moved.shape), moved], axis=2)
    gain = by_hand(both, y, schedule, seed) - by_hand(source[None, :, None], y, schedule, seed)
    row = found.loc["baselines + features"]
    assert len(gain) == 30_240 and row["gain"] == pytest.approx(gain[0], rel=1e-7)
    assert 0.01 < row["gain_p"] < 0.99
    assert row["gain_p"] == pytest.approx(np.mean(gain >= gain[0] - 1e-9), abs=1e-12)


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
