"""Cluster-robust and wild-cluster inference, against statsmodels and with every draw fitted by it."""

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis.regression import _WEBB, clustered_regression
from statsmodels.regression.linear_model import OLS

from fishlens.errors import InputError


def study(schedules=6, seeds=4, slope=0.0, rng=None):
    rng = rng or np.random.default_rng(0)
    schedule, seed = (part.ravel() for part in np.indices((schedules, seeds)))
    shift = rng.standard_normal((3, schedules))[:, schedule] + rng.standard_normal((3, seeds))[:, seed]
    peak, area, noise = rng.standard_normal((3, len(schedule))) + shift
    table = {"peak": peak, "area": area, "average": slope * peak + noise, "schedule": schedule, "seed": seed}
    return pd.DataFrame(table)


def robust(y, x, groups):
    return OLS(y, x).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)


def design(table):
    return np.column_stack([table[["peak", "area"]], np.ones(len(table))])


@pytest.mark.parametrize("cluster", ["schedule", "seed"])
def test_errors_and_robust_p_are_those_of_statsmodels(cluster):
    table = study(seeds=5)
    found = clustered_regression(table, ["peak", "area"], cluster=cluster, fixed=(), resamples=9)
    theirs = robust(table["average"].to_numpy(), design(table), table[cluster].to_numpy())
    for ours, name in ((theirs.params, "estimate"), (theirs.bse, "error"), (theirs.pvalues, "robust_p")):
        np.testing.assert_allclose(found.slopes[name], ours[:2], rtol=1e-9)
    assert "statsmodels" in found.method and found.n == 30


def test_the_wild_p_is_that_of_refitting_every_draw():
    table = study()
    y, x, schedule = table["average"].to_numpy(), design(table), table["schedule"].to_numpy()
    found = clustered_regression(table, ["peak", "area"], fixed=(), resamples=49, seed=3)
    null = OLS(y, x[:, 1:]).fit()
    weights = _WEBB[np.random.default_rng(3).integers(6, size=(49, 6))]
    seen = abs(robust(y, x, schedule).tvalues[0])
    t = [
        abs(robust(null.fittedvalues + null.resid * draw[schedule], x, schedule).tvalues[0])
        for draw in weights
    ]
    expected = (1 + sum(one >= seen * (1 - 1e-9) for one in t)) / 50
    assert found.slopes.loc[0, "p"] == pytest.approx(expected, abs=1e-12)


def test_the_interval_is_what_the_test_does_not_reject():
    table = study(slope=1.0, seeds=5)
    found = clustered_regression(table, ["peak"], cluster="seed", resamples=499).slopes
    low, high = found.loc[0, ["low", "high"]]
    for null, inside in ((low - 0.01, False), (low + 0.01, True), (high - 0.01, True), (high + 0.01, False)):
        shifted = table.assign(average=table["average"] - null * table["peak"])
        p = clustered_regression(shifted, ["peak"], cluster="seed", resamples=499).slopes
        assert (p.loc[0, "p"] > 0.05) == inside


def test_of_schedule_and_seed_the_one_that_is_not_the_cluster_has_a_level_for_each_value():
    table = study(seeds=5)
    found = clustered_regression(table, ["peak"], cluster="seed", resamples=9)
    dummies = pd.get_dummies(table["schedule"]).to_numpy(dtype=float)
    theirs = OLS(table["average"], np.column_stack([table["peak"], dummies])).fit()
    assert found.slopes.loc[0, "estimate"] == pytest.approx(theirs.params.iloc[0], rel=1e-9)
    assert "levels of schedule" in found.method


def test_the_wild_bootstrap_rejects_as_promised_where_seeds_are_shared():
    """Robust errors alone reject 8 % of true nulls here; errors by schedule that leave the seeds in, 15 %."""
    rng = np.random.default_rng(1)
    found = {"wild": [], "seeds left in": []}
    for _ in range(60):
        table = study(rng=rng)
        for name, how in (("wild", {}), ("seeds left in", {"fixed": ()})):
            row = clustered_regression(table, ["peak"], resamples=99, **how).slopes.loc[0]
            found[name].append(row["p"] <= 0.05)
    assert np.mean(found["wild"]) <= 0.15
    assert np.mean(found["seeds left in"]) > np.mean(found["wild"]) + 0.03


def test_what_cannot_be_fitted_is_said():
    table = study()
    few = clustered_regression(table, ["peak"], cluster="seed")
    assert not few.enough and "4 seeds, at least 5 are needed" in str(few)
    with pytest.raises(InputError, match="no column 'width'"):
        clustered_regression(table, ["width"])
    with pytest.raises(InputError, match="peak, twice do not vary within seed, or determine each other"):
        clustered_regression(table.assign(twice=2 * table["peak"]), ["peak", "twice"])
    with pytest.raises(InputError, match="do not vary within schedule"):
        clustered_regression(
            table.assign(peak=table["schedule"] * 1.0), ["peak"], cluster="schedule", fixed=["schedule"]
        )
