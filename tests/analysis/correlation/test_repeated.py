"""Repeated-measures correlation against pingouin and an analysis of covariance."""

import numpy as np
import pandas as pd
import pingouin
import pytest
import statsmodels.formula.api as formula
from fishlens.analysis.correlation.repeated import repeated_measures
from fishlens.analysis.results import NotEnough


def measured(subjects=6, each=7, seed=0):
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(subjects), each)
    x = rng.standard_normal(len(subject)) + 3 * subject
    y = 0.6 * x - 5 * subject + rng.standard_normal(len(subject))  # falls between subjects, rises within them
    return pd.DataFrame({"x": x, "y": y, "subject": [f"run {s}" for s in subject]})


@pytest.mark.parametrize("drop", [[], [0, 9, 10, 33]])
def test_as_pingouin_and_statsmodels_compute_it(drop):
    table = measured().drop(index=drop)
    found = repeated_measures(table["x"], table["y"], table["subject"])
    theirs = pingouin.rm_corr(table, x="x", y="y", subject="subject").iloc[0]
    assert found.estimate == pytest.approx(theirs["r"], abs=1e-9)
    p = theirs["pval"] if "pval" in theirs else theirs["p_val"]
    assert found.p == pytest.approx(p, rel=1e-6)
    ends = theirs["CI95%"] if "CI95%" in theirs else theirs["CI95"]
    np.testing.assert_allclose(
        [found.low, found.high], ends, atol=0.006
    )  # pingouin rounds the ends to 2 digits
    covariance = formula.ols("y ~ C(subject) + x", table).fit()
    assert found.p == pytest.approx(covariance.pvalues["x"], rel=1e-9)
    freedom = covariance.df_resid
    assert f"{freedom:.0f} degrees" in found.method
    reach = 1.959963984540054 / np.sqrt(
        freedom - 1
    )  # Bakdash & Marusich: Fisher's z with df + 2 observations
    ends = np.tanh(np.arctanh(found.estimate) + np.array([-reach, reach]))
    np.testing.assert_allclose([found.low, found.high], ends, rtol=1e-9)


def test_clusters_are_what_counts_when_x_is_one_number_per_run():
    rng = np.random.default_rng(1)
    run = np.repeat(np.arange(10), 8)
    language = np.tile(np.arange(8), 10)
    x = rng.standard_normal(10)[run]
    y = rng.standard_normal(10)[run] - 5 * language + 0.3 * rng.standard_normal(80)
    careless = repeated_measures(x, y, language)
    careful = repeated_measures(x, y, language, cluster=run)
    assert careful.estimate == pytest.approx(careless.estimate, abs=1e-12)
    assert careful.high - careful.low > 1.5 * (careless.high - careless.low)
    assert (careful.n, careful.clusters) == (80, 10)


def test_runs_scored_in_other_languages_do_not_change_places():
    rng = np.random.default_rng(2)
    run = np.repeat(np.arange(8), 4)
    language = np.where(run < 4, 0, 10) + np.tile(np.arange(4), 8)
    x, y = rng.standard_normal(8)[run], rng.standard_normal(32)
    found = repeated_measures(x, y, language, cluster=run, resamples=9999)
    assert found.p * 576 == pytest.approx(round(found.p * 576), abs=1e-9)  # 4! · 4! permutations, not 8!


def test_the_order_of_rows_means_nothing():
    table = measured()
    run = np.tile(np.arange(7), 6)
    shuffled = np.random.default_rng(3).permutation(len(table))
    one = repeated_measures(table["x"], table["y"], table["subject"], cluster=run)
    other = repeated_measures(
        *(table[c].to_numpy()[shuffled] for c in ("x", "y", "subject")), cluster=run[shuffled]
    )
    assert other.estimate == pytest.approx(one.estimate, abs=1e-12)
    assert (other.low, other.high) == pytest.approx((one.low, one.high), abs=1e-9)


def test_too_little_says_so():
    table = measured(subjects=2)
    assert isinstance(repeated_measures(table["x"], table["y"], table["subject"]), NotEnough)
    single = measured(each=1)
    assert isinstance(repeated_measures(single["x"], single["y"], single["subject"]), NotEnough)
    table = measured()
    found = repeated_measures(table["x"], table["y"], table["subject"], cluster=np.tile(np.arange(2), 21))
    assert isinstance(found, NotEnough)
    assert found.unit == "runs"
    flat = repeated_measures(np.repeat(np.arange(6.0), 7), table["y"], table["subject"])
    assert isinstance(flat, NotEnough)  # x does not vary within any subject
