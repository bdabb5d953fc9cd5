"""Schedules against a baseline, paired by seed."""

import inspect
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis.paired import (
    compare,
    compare_over,
    equivalence,
    paired_difference,
    scored_runs,
    table_one,
)
from fishlens.analysis.results import NotEnough
from scipy import stats
from statsmodels.stats.multitest import multipletests

from fishlens.errors import InputError

GENERATOR = (
    "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"
)  # scipy < 1.15


def differences(n=7, effect=0.8, seed=0):
    return effect + np.random.default_rng(seed).standard_normal(n)


def test_the_interval_is_students_and_the_p_value_scipys_exact_one():
    values = differences()
    found = paired_difference(values)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.estimate == pytest.approx(values.mean(), rel=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(theirs), rel=1e-9)
    exact = stats.permutation_test(
        (values,),
        lambda d: abs(np.mean(d)),
        permutation_type="samples",
        alternative="greater",
        n_resamples=1000,
    )
    assert found.p == pytest.approx(exact.pvalue, abs=1e-12)
    assert "all 128" in found.method


def test_many_seeds_draw_signs():
    values = differences(40, effect=0.35)
    found = paired_difference(values)
    assert "random 9999" in found.method
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.02)
    assert paired_difference(values) == found
    assert paired_difference(values, seed=1).p != found.p


@pytest.mark.parametrize(("interval", "name"), [("bca", "BCa"), ("percentile", "percentile")])
def test_the_paired_bootstraps_agree_with_scipys(interval, name):
    values = differences(20)
    found = paired_difference(values, interval=interval, resamples=19_999)
    theirs = stats.bootstrap(
        (values,), np.mean, method=name, n_resamples=19_999, **{GENERATOR: np.random.default_rng(5)}
    )
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.03)


def test_five_seeds_have_an_interval_and_no_p_since_none_could_be_005():
    found = paired_difference([1.0, 1.1, 0.9, 1.2, 1.0])
    assert math.isnan(found.p) and found.low > 0.8
    assert found.note == "no p: not enough seeds, 5 pairs of at least 6 (none could be below 0.0625)"
    assert paired_difference([1.0, 1.1, 0.9, 1.2, 1.0, 1.1]).p == pytest.approx(2 / 64)
    assert paired_difference([1.0, 1.1, 0.9, 1.2], level=0.8).p == 0.125


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [1.0, np.nan, 2.0]])
def test_one_or_two_seeds_are_not_enough(values):
    found = paired_difference(values)
    assert isinstance(found, NotEnough)
    assert found.needed == 3
    assert isinstance(equivalence(values, 1.0), NotEnough)


def test_equal_scores_differ_by_nothing():
    found = paired_difference([0.0] * 6)
    assert (found.estimate, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert equivalence([0.0] * 6, 1.0).p == 0
    assert equivalence([2.0] * 6, 1.0).p == 1


@pytest.mark.parametrize("margin", [0.5, 1.0, 3.0])
def test_equivalence_is_two_one_sided_t_tests(margin):
    values = differences(9, effect=0.2)
    found = equivalence(values, margin)
    above = stats.ttest_1samp(values, -margin, alternative="greater")
    below = stats.ttest_1samp(values, margin, alternative="less")
    assert found.p == pytest.approx(max(above.pvalue, below.pvalue), rel=1e-9)
    ends = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx(tuple(ends), rel=1e-9)
    assert found.level == pytest.approx(0.9)
    assert (found.p < 0.05) == (-margin < found.low and found.high < margin)
    with pytest.raises(InputError, match="margin is 0"):
        equivalence(values, 0)


def scores(schedules=("standard", "gu", "fun"), seeds=8):
    rng = np.random.default_rng(3)
    level = rng.standard_normal(seeds)
    rows = [
        {
            "run": f"{s}-{k}",
            "schedule": s,
            "seed": k,
            "average": 50 + 2 * i + level[k] + 0.3 * rng.standard_normal(),
        }
        for i, s in enumerate(schedules)
        for k in range(seeds)
    ]
    return pd.DataFrame(rows)


def test_schedules_are_compared_with_the_baseline_seed_by_seed():
    table = scores()
    found = compare(table.sample(frac=1, random_state=0), margin=3.0).set_index("schedule")
    assert found.index[0] == "standard"
    wide = table.pivot(index="seed", columns="schedule", values="average")
    for schedule in ("gu", "fun"):
        row = found.loc[schedule]
        theirs = stats.ttest_rel(wide[schedule], wide["standard"])
        assert row["estimate"] == pytest.approx((wide[schedule] - wide["standard"]).mean())
        assert (row["low"], row["high"]) == pytest.approx(tuple(theirs.confidence_interval()), rel=1e-9)
        assert (row["mean"], row["sd"]) == pytest.approx((wide[schedule].mean(), wide[schedule].std()))
        assert row["n"] == 8
    p = found["p"].to_numpy()
    assert math.isnan(p[0])
    np.testing.assert_allclose(found["p_holm"][1:], multipletests(p[1:], method="holm")[1])
    assert found.loc["gu", "equivalent"]
    assert not found.loc["fun", "equivalent"]


def test_a_run_without_its_partner_is_counted_and_not_paired():
    table = scores().query("not (schedule == 'standard' and seed == 2)")
    found = compare(table).set_index("schedule")
    assert found.loc["gu", "n"] == 7
    assert found.loc["gu", "runs"] == 8
    assert "1 run without a partner in standard" in found.loc["gu", "note"]


def test_over_groups_a_seed_is_one_observation_whatever_it_did_in_each():
    rng = np.random.default_rng(1)
    seeds = {"pairs": range(1, 9), "topic": range(3, 11)}  # six in common
    groups = [
        pd.DataFrame(
            [
                {"schedule": schedule, "seed": seed, "average": 50 + 10 * rng.standard_normal()}
                for schedule in ("standard", "gu", *(["fun"] if task == "topic" else []))
                for seed in of
            ]
        )
        for task, of in seeds.items()
    ]
    found = compare_over(groups)
    wide = [table.pivot(index="seed", columns="schedule", values="average") for table in groups]
    by_hand = [np.mean([w.loc[s, "gu"] - w.loc[s, "standard"] for w in wide]) for s in range(3, 9)]
    expected = paired_difference(by_hand)
    assert found["schedule"].tolist() == ["gu"] and found["groups"].tolist() == [
        2
    ]  # fun is in one group alone
    row = found.iloc[0]
    assert (row["estimate"], row["low"], row["p"], row["n"]) == pytest.approx(
        (expected.estimate, expected.low, expected.p, 6), rel=1e-12
    )
    assert row["p_holm"] == row["p"]
    assert compare_over(groups[:1]).empty
    with pytest.raises(InputError, match="no group has a run with schedule 'lpft'"):
        compare_over(groups, baseline="lpft")


def test_one_seed_only_gives_means_without_more():
    found = compare(scores(seeds=1)).set_index("schedule")
    assert math.isnan(found.loc["gu", "sd"])
    assert math.isnan(found.loc["gu", "estimate"])
    assert found.loc["gu", "needed"] == 3
    assert found.loc["gu", "note"].startswith("1 seed, at least 3 are needed")
    assert found.loc["gu", "mean"] > 0


def test_bad_input_is_named():
    with pytest.raises(InputError, match="no run has schedule 'full'; expected one of fun, gu, standard"):
        compare(scores(), baseline="full")
    with pytest.raises(InputError, match="no 'f1'"):
        compare(scores(), "f1")
    twice = pd.concat([scores(), scores().query("run == 'gu-3'").assign(run="again")])
    with pytest.raises(InputError, match="several runs have schedule gu and seed 3: gu-3, again"):
        compare(twice)
    with pytest.raises(InputError, match="nothing can be compared"):
        compare(scores().assign(seed=None))
    with pytest.raises(InputError, match="interval 'wald'"):
        paired_difference([1.0, 2, 3], interval="wald")


def test_table_one_of_a_study(study):
    table = table_one(study).set_index("schedule")
    scored = scored_runs(study).set_index("run")
    gu = scored[scored["schedule"] == "gu"]
    assert table.loc["gu", "runs"] == 4
    assert table.loc["gu", "average"] == pytest.approx(gu["average"].mean())
    assert table.loc["gu", "average_sd"] == pytest.approx(gu["average"].std(ddof=1))
    assert table.loc["gu", "lowest_own"] == pytest.approx(gu["lowest"].mean())
    assert (table["lowest_language"] == "th").all()


def test_the_fixed_lowest_language_is_the_baselines_and_never_below_each_runs_own(study):
    """As in the paper: one label for all schedules, even where another language is lower for some of them."""
    evaluation = study.evaluation.copy()
    low = evaluation["run"].isin([f"gu-{k}" for k in range(4)]) & (evaluation["language"] == "sw")
    evaluation.loc[low & (evaluation["split"] == "test"), "value"] = 5.0
    table = table_one(replace(study, evaluation=evaluation)).set_index("schedule")
    assert (table["lowest_language"] == "th").all()
    assert table.loc["gu", "lowest_own"] == 5.0
    assert table.loc["gu", "lowest_fixed"] > 40
    assert (table["lowest_fixed"] >= table["lowest_own"] - 1e-9).all()
    without = table_one(replace(study, evaluation=evaluation), baseline="absent")
    assert (without["lowest_language"] == "sw").all()  # then the lowest on average over all runs


def test_runs_without_scores_are_not_counted_in_table_one(study):
    evaluation = study.evaluation[(study.evaluation["run"] != "gu-2").to_numpy()]
    rows = table_one(replace(study, evaluation=evaluation)).set_index("schedule")
    assert rows["runs"].to_dict() == {"standard": 4, "gu": 3, "gu-reverse": 4, "fun": 4}
