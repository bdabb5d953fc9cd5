"""What tells the languages of a run apart, alone and given rivals."""

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis.targets import language_slopes, over_languages, over_training
from fishlens.analysis.targets.association import partial_spearman
from fishlens.analysis.targets.clustered import mean_correlation
from scipy import stats


def test_partial_spearman_is_of_what_the_ranks_of_the_others_leave():
    random = np.random.default_rng(1)
    table = pd.DataFrame(random.normal(size=(12, 4)), columns=["x", "y", "u", "v"])
    assert partial_spearman(table, "x", "y") == pytest.approx(
        stats.spearmanr(table["x"], table["y"]).statistic
    )
    precision = np.linalg.inv(table.rank().corr().to_numpy())  # partial correlations from the inverse
    expected = -precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1])
    assert partial_spearman(table, "x", "y", ["u", "v"]) == pytest.approx(expected)
    assert np.isnan(partial_spearman(table.assign(x=1.0), "x", "y"))
    assert np.isnan(partial_spearman(table.head(4), "x", "y"))
    assert np.isnan(partial_spearman(table.assign(u=table["x"]), "x", "y", ["u"]))


def test_a_feature_that_tells_the_score_is_found_and_noise_is_not(make_points):
    found = over_languages(make_points(), ["trace", "distance", "entropy"]).set_index("feature")
    assert found.loc["trace", "low"] > 0.4 and found.loc["trace", "p"] < 1e-6
    assert found.loc["distance", "high"] < -0.4
    assert found.loc["entropy", "low"] < 0 < found.loc["entropy", "high"]
    assert (found.loc["trace", "clusters"], found.loc["trace", "n"]) == (12, 24)


def test_a_feature_that_only_repeats_a_rival_says_nothing_beside_it(make_points):
    points = make_points(slope=0.0)
    points["trace"] = points["distance"] + 0.05 * np.random.default_rng(2).normal(size=len(points))
    alone = over_languages(points, ["trace"]).iloc[0]
    given = over_languages(points, ["trace"], given=["distance"]).iloc[0]
    assert alone["high"] < -0.5 and given["low"] < 0 < given["high"] and given["given"] == "distance"


def test_seeds_are_what_is_counted(make_points):
    """Schedules of one seed add runs and no independent units; fewer than five seeds are not enough."""
    one, two = (
        over_languages(make_points(schedules=s), ["trace"]).iloc[0] for s in [("gu",), ("gu", "standard")]
    )
    assert one["clusters"] == two["clusters"] == 12 and two["n"] == 2 * one["n"]
    few = over_languages(make_points(seeds=4), ["trace"]).iloc[0]
    assert np.isnan(few["estimate"]) and "4 seeds, at least 5 are needed" in few["note"]


def test_steps_before_training_and_missing_values_are_left_out(make_points):
    points = make_points()
    spoiled = points.copy()
    spoiled.loc[spoiled["step"] == 0, "trace"] = -100 * spoiled["score"]
    assert over_languages(points, ["trace"]).equals(over_languages(spoiled, ["trace"]))
    assert np.isnan(over_languages(points.assign(cka=np.nan), ["cka"]).iloc[0]["estimate"])


def test_under_the_null_five_in_a_hundred_are_significant():
    """Two runs a seed, which have most of their deviation in common; 400 studies of eight seeds."""
    random, p = np.random.default_rng(3), []
    for _ in range(400):
        of_seed = random.normal(scale=0.3, size=8)
        r = {f"{s}-{k}": np.tanh(of_seed[s] + random.normal(scale=0.1)) for s in range(8) for k in range(2)}
        units = pd.Series({run: run[0] for run in r})
        p.append(mean_correlation("r", pd.Series(r), units, 0.95).p)
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.085  # 0.05 within three standard errors


def test_slopes_are_points_per_standard_deviation(make_points):
    points = make_points()
    model = language_slopes(points, ["trace", "entropy"])
    slope = model.fixed.set_index("term").loc["trace"]
    assert model.converged and slope["low"] > 0
    means = points[points["step"] > 0].groupby(["run", "language"])["trace"].mean()
    assert slope["estimate"] == pytest.approx(means.std(), rel=0.15)  # the true slope is 1 per unit


def test_a_score_that_follows_a_feature_one_interval_later_shows_at_lag_one(make_points):
    points = make_points(seeds=6, steps=range(0, 120, 10)).sort_values(["run", "language", "step"])
    later = points.groupby(["run", "language"])["trace"].shift(1).fillna(0.0)
    points["score"] = 5 * later + 0.05 * points["step"]
    found = over_training(points).set_index(["course", "lag"])
    for course in ("whole", "own"):
        assert found.loc[(course, 1), "low"] > 0.9
        assert found.loc[(course, -1), "estimate"] < 0.5


def test_a_course_that_all_runs_share_is_no_evidence(make_points):
    points = make_points(seeds=6, steps=range(0, 120, 10), slope=0.0)
    shape = np.exp(-(points["step"] - 40.0).abs() / 20)
    points["score"] = 30 * shape + points["score"] * 0.1
    points["trace"] = shape + 0.005 * points["trace"]
    found = over_training(points).set_index(["course", "lag"])
    assert found.loc[("whole", 0), "low"] > 0.8
    assert found.loc[("own", 0), "low"] < 0 < found.loc[("own", 0), "high"]
