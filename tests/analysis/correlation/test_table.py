"""The feature × outcome table: every row as the one coefficient, p-values corrected over their family."""

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis.correlation.pair import correlation
from fishlens.analysis.correlation.table import correlate
from statsmodels.stats.multitest import multipletests

from fishlens.errors import InputError


def study():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        rng.standard_normal((24, 5)), columns=["peak", "area", "source", "average", "lowest"]
    )
    table["average"] += table["peak"]
    return table.assign(
        schedule=np.repeat([f"s{k}" for k in range(8)], 3), task=np.repeat(["xnli", "xquad"], 12)
    )


def test_every_row_is_the_one_coefficient():
    table = study()
    found = correlate(
        table, ["peak", "area"], ["average", "lowest"], methods=("pearson", "kendall"), controls=()
    )
    assert len(found) == 8
    row = found.query("feature == 'area' and outcome == 'lowest' and coefficient == 'kendall'").iloc[0]
    alone = correlation(table["area"], table["lowest"], method="kendall")
    assert (row["estimate"], row["low"], row["high"], row["p"]) == (
        alone.estimate,
        alone.low,
        alone.high,
        alone.p,
    )


def test_p_values_are_corrected_within_a_method():
    found = correlate(study(), ["peak", "area"], ["average", "lowest"], methods=("pearson", "spearman"))
    for _, rows in found.groupby("coefficient"):
        np.testing.assert_allclose(rows["p_holm"], multipletests(rows["p"], method="holm")[1])
        np.testing.assert_allclose(rows["p_bh"], multipletests(rows["p"], method="fdr_bh")[1])


def test_clusters_and_strata_reach_the_coefficient():
    table = study()
    table[["peak", "average"]] += 3.0 * np.random.default_rng(1).standard_normal((8, 2)).repeat(3, axis=0)
    found = correlate(table, ["peak"], ["average"], cluster="schedule", strata="task").iloc[0]
    assert found["clusters"] == 8
    assert "schedules" in found["method"]
    means = table.groupby(["task", "schedule"])[["peak", "average"]].mean().reset_index()
    alone = correlation(means["peak"], means["average"], strata=means["task"].to_numpy())
    assert found["estimate"] == pytest.approx(alone.estimate)
    assert found["p"] == pytest.approx(alone.p, abs=0.03)


def test_over_schedules_is_the_correlation_of_their_means():
    """Means that agree, runs that disagree inside every schedule."""
    rng = np.random.default_rng(3)
    schedule = np.repeat(np.arange(8), 5)
    within = rng.standard_normal(40)
    level = np.arange(8.0)[schedule]
    table = pd.DataFrame({"peak": level + within, "average": level - within, "schedule": schedule})
    found = correlate(table, ["peak"], cluster="schedule", methods=("pearson",)).iloc[0]
    means = table.groupby("schedule").mean()
    assert found["estimate"] == pytest.approx(np.corrcoef(means["peak"], means["average"])[0, 1])
    assert (found["n"], found["clusters"]) == (40, 8)


def test_a_cluster_in_several_strata_stays_one_cluster():
    table = study().assign(schedule=np.tile([f"s{k}" for k in range(6)], 4))
    table[["peak", "average"]] += (
        9.0 * np.random.default_rng(1).standard_normal((6, 2))[np.tile(np.arange(6), 4)]
    )
    found = correlate(table, ["peak"], cluster="schedule", strata="task").iloc[0]
    assert (found["n"], found["clusters"]) == (24, 6)
    seeds = table.assign(seed=np.tile(np.arange(6), 4), schedule=np.repeat(list("abcd"), 6))
    found = correlate(seeds, ["peak"], cluster="seed", strata="schedule", crossed=None).iloc[0]
    assert (found["n"], found["clusters"]) == (24, 6) and "seeds" in found["method"]


def test_schedules_that_cannot_be_told_apart_have_no_coefficient():
    """Seeds that move some schedules more than others do so in feature and outcome: that is no correlation."""
    rng = np.random.default_rng(4)
    schedule, seed = (part.ravel() for part in np.indices((8, 5)))
    scale = np.exp(rng.standard_normal(8))[schedule]
    table = pd.DataFrame(
        {"schedule": schedule, "seed": seed, "apart": schedule + 0.1 * rng.standard_normal(40)}
    )
    for name in ("peak", "average"):
        seeds = rng.permutation([-1.8, -1.0, 0.4, 1.1, 2.0])
        table[name] = scale * seeds[seed] + 0.1 * rng.standard_normal(40)
    found = correlate(table, ["peak", "apart"], cluster="schedule", methods=("spearman", "pearson"))
    assert found["estimate"].isna().all() and found["p_max"].isna().all()
    assert found["note"].iloc[0] == "schedules cannot be told apart by average"
    alone = correlate(table, ["peak"], ["apart"], cluster="schedule").iloc[0]
    assert "by peak" in alone["note"]
    once = correlate(table[table["seed"] == 0], ["peak"], cluster="schedule", methods=("pearson",))
    assert np.isfinite(
        once["estimate"]
    ).all()  # one run a schedule: nothing to tell them apart by, runs are schedules


def test_a_schedule_without_its_good_seed_is_not_the_worse_for_it():
    """Over schedules the means are of the additive fit: with nothing but schedules and seeds it is exact."""
    schedule, seed = (part.ravel() for part in np.indices((6, 4)))
    table = pd.DataFrame({"peak": 1.0 * schedule**2, "average": schedule + 50.0 * seed})
    table = table.assign(schedule=schedule, seed=seed)[(schedule != 5) | (seed != 3)]
    table["peak"] += 20 * (table["seed"] % 2)
    found = correlate(table, ["peak"], cluster="schedule", methods=("pearson",)).iloc[0]
    levels = np.arange(6.0)
    assert found["estimate"] == pytest.approx(np.corrcoef(levels**2, levels)[0, 1])


def test_a_control_is_not_held_against_itself():
    found = correlate(study(), ["peak"], ["average", "source"], controls=["source"]).set_index("outcome")
    assert found.loc["average", "given"] == "source"
    assert found.loc["average", "quantity"] == "partial spearman"
    assert found.loc["source", "given"] == ""


def test_rows_without_enough_runs_stay_and_say_so():
    found = correlate(study().head(4), ["peak"], ["average"]).iloc[0]
    assert np.isnan(found["estimate"])
    assert found["needed"] == 6
    assert np.isnan(found["p_holm"])


def test_an_unknown_column_is_named():
    with pytest.raises(InputError, match="no column 'width'"):
        correlate(study(), ["width"])
    assert correlate(study(), []).empty


def test_runs_of_a_stratum_in_which_clusters_do_not_differ_are_not_counted():
    """A task with one schedule says nothing over schedules: its runs are not among those that the number is of."""
    rng = np.random.default_rng(3)
    task, schedule, seed = (part.ravel() for part in np.indices((2, 7, 3)))
    table = pd.DataFrame({"task": task, "schedule": schedule, "seed": seed})
    table["peak"], table["average"] = schedule + rng.standard_normal((2, 42)) / 9
    alone = table[(table["task"] == 0) | (table["schedule"] == 0)]
    found = correlate(alone, ["peak"], cluster="schedule", strata="task", crossed=["task", "seed"]).iloc[0]
    assert len(alone) == 24 and found["n"] == 21
