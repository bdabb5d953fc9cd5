"""One coefficient with interval and p: exact where the exact answer is known, and an answer when there is none."""

import math

import numpy as np
import pytest
from fishlens.analysis.correlation.pair import correlation
from fishlens.analysis.results import Estimate, NotEnough
from scipy import stats

from fishlens.errors import InputError


def pair(n, slope=0.7, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n)
    return x, slope * x + rng.standard_normal(n)


@pytest.mark.parametrize(
    ("method", "theirs"),
    [("pearson", stats.pearsonr), ("spearman", stats.spearmanr), ("kendall", stats.kendalltau)],
)
def test_with_few_runs_the_p_value_is_exact(method, theirs):
    x, y = pair(6)
    found = correlation(x, y, method=method, resamples=1999)
    observed = abs(theirs(x, y).statistic)
    exact = stats.permutation_test(
        (x,), lambda a: abs(theirs(a, y).statistic) + 1e-12 * (a is x), permutation_type="pairings",
        alternative="greater", n_resamples=math.factorial(6),
    )  # fmt: skip
    assert found.estimate == pytest.approx(theirs(x, y).statistic, abs=1e-12)
    assert abs(found.estimate) == pytest.approx(observed)
    assert found.p == pytest.approx(exact.pvalue, abs=1e-9)
    assert "all 720" in found.method


def test_with_many_runs_the_p_value_is_near_the_t_tests():
    x, y = pair(60, slope=0.3)
    found = correlation(x, y, method="pearson", resamples=19_999)
    assert found.p == pytest.approx(stats.pearsonr(x, y).pvalue, abs=0.004)


def test_more_permutations_than_a_float_can_count_are_no_obstacle():
    x, y = pair(300, slope=0.0)  # 300! is beyond 1e308
    found = correlation(x, y, method="pearson", resamples=1999)
    assert found.p == pytest.approx(stats.pearsonr(x, y).pvalue, abs=0.05)


def test_the_jackknife_interval_worked_out():
    x, y = pair(20)
    found = correlation(x, y, method="pearson")
    z = np.arctanh([stats.pearsonr(np.delete(x, i), np.delete(y, i)).statistic for i in range(20)])
    error = np.sqrt(19 / 20 * ((z - z.mean()) ** 2).sum())
    centre = np.arctanh(stats.pearsonr(x, y).statistic)
    ends = np.tanh(centre + np.array([-1, 1]) * stats.t.ppf(0.975, 19) * error)
    np.testing.assert_allclose([found.low, found.high], ends, rtol=1e-9)
    assert (found.n, found.clusters, found.level, found.seed) == (20, 20, 0.95, 0)


def test_of_six_runs_the_interval_leaves_out_0_in_one_of_twenty_arrangements():
    """t's quantile for the jackknife's error is too large there: 98.6 % of Spearman's intervals contained the truth."""
    x, y = pair(6, seed=2)
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(6), (200, 1)), axis=1)
    found = [correlation(x, y[order], method="pearson", resamples=719) for order in orders]
    outside = np.mean([one.low > 0 or one.high < 0 for one in found])
    assert 0.015 <= outside <= 0.1
    z = [np.arctanh([one.low, one.estimate, one.high]) for one in found]
    np.testing.assert_allclose([b - a for a, b, _ in z], [c - b for _, b, c in z], rtol=1e-6)


def test_a_cluster_counts_once():
    """Every run copied five times is no more evidence than the runs."""
    x, y = pair(12)
    once = correlation(x, y, method="pearson")
    copies = correlation(
        np.repeat(x, 5), np.repeat(y, 5), method="pearson", cluster=np.repeat(np.arange(12), 5)
    )
    assert (copies.estimate, copies.low, copies.high) == pytest.approx(
        (once.estimate, once.low, once.high), abs=1e-9
    )
    assert copies.p == pytest.approx(once.p, abs=0.02)
    assert (copies.n, copies.clusters) == (60, 12)
    careless = correlation(np.repeat(x, 5), np.repeat(y, 5), method="pearson")
    assert careless.high - careless.low < 0.6 * (once.high - once.low)


def test_strata_take_away_what_lies_between_them():
    rng = np.random.default_rng(1)
    task = np.repeat([0, 1, 2], 12)
    x, y = rng.standard_normal((2, 36)) + 10 * task
    assert correlation(x, y, method="pearson").estimate > 0.95
    within = correlation(x, y, method="pearson", strata=task)
    assert abs(within.estimate) < 0.35
    assert within.p > 0.05


@pytest.mark.parametrize("method", ["pearson", "spearman", "kendall"])
@pytest.mark.parametrize("interval", ["jackknife", "bca"])
def test_a_shift_of_a_whole_stratum_changes_nothing(method, interval):
    rng = np.random.default_rng(5)
    task = np.repeat([0, 1, 2], 8)
    x, y = rng.standard_normal((2, 24)) + [[0], [1]] * rng.standard_normal(24)
    options = {"method": method, "strata": task, "interval": interval, "resamples": 99}
    one = correlation(x, y, **options)
    shifted = correlation(x + 64.0 * task, y - 32.0 * task, **options)
    for name in ("estimate", "low", "high", "p"):
        assert getattr(shifted, name) == pytest.approx(getattr(one, name), abs=1e-9)


@pytest.mark.parametrize("interval", ["bca", "percentile"])
def test_the_bootstraps_are_offered_and_say_so(interval):
    x, y = pair(30)
    found = correlation(x, y, interval=interval)
    assert found.low < found.estimate < found.high
    assert "bootstrap" in found.method
    assert correlation(x, y, interval=interval) == found  # seeded
    assert correlation(x, y, interval=interval, seed=1) != found


def test_controls_take_away_a_common_cause():
    rng = np.random.default_rng(2)
    cause = rng.standard_normal(80)
    x, y = cause + 0.5 * rng.standard_normal((2, 80))
    assert correlation(x, y, method="pearson").p < 0.001
    given = correlation(x, y, method="pearson", controls=cause)
    assert given.quantity == "partial pearson"
    assert abs(given.estimate) < 0.25
    assert given.p > 0.05
    assert "Freedman" in given.method


def test_freedman_and_lane_worked_out():
    """The partial coefficient of x and fitted + permuted residuals of y, for every one of 7! permutations."""
    rng = np.random.default_rng(3)
    z, x, y = rng.standard_normal((3, 7))
    design = np.column_stack([np.ones(7), z])
    hat = design @ np.linalg.pinv(design)
    e_x, e_y = x - hat @ x, y - hat @ y
    found = correlation(x, y, method="pearson", controls=z, resamples=5039)
    import itertools

    values = []
    for order in itertools.permutations(range(7)):
        star = hat @ y + e_y[list(order)]
        values.append(abs(np.corrcoef(e_x, star - hat @ star)[0, 1]))
    assert "all 5040" in found.method
    assert found.p == pytest.approx(np.mean(np.array(values) >= abs(found.estimate) - 1e-9), abs=1e-12)


@pytest.mark.parametrize("n", [0, 1, 3, 5])
def test_three_points_are_not_enough_for_a_coefficient(n):
    x, y = pair(n)
    found = correlation(x, y)
    assert isinstance(found, NotEnough)
    assert found.needed == 6
    assert f"{n} run{'s' * (n != 1)}, at least 6 are needed" in str(found)
    assert math.isnan(found.as_row()["estimate"])


def test_schedules_are_counted_when_they_are_the_clusters():
    x, y = pair(50)
    found = correlation(x, y, cluster=np.repeat(np.arange(5), 10), unit="schedules")
    assert isinstance(found, NotEnough)
    assert (found.clusters, found.n, found.unit) == (5, 50, "schedules")


@pytest.mark.parametrize("method", ["pearson", "spearman", "kendall"])
def test_constant_scores_have_no_coefficient(method):
    x, _ = pair(20)
    assert isinstance(correlation(x, np.full(20, 61.3), method=method), NotEnough)
    rounding = 0.1 + 1e-17 * np.arange(20) + 1e-16 * (np.arange(20) % 2)  # equal but for rounding
    assert isinstance(correlation(x, rounding, method=method), NotEnough)


def test_runs_without_a_value_are_left_out_and_counted():
    x, y = pair(20)
    y[3] = np.nan
    x[7] = np.inf
    found = correlation(x, y)
    assert found.n == 18
    assert found.note == "2 of 20 rows left out: no value"
    assert found.estimate == correlation(np.delete(x, [3, 7]), np.delete(y, [3, 7])).estimate


def test_a_perfect_line_is_told_as_such():
    found = correlation(np.arange(10.0), 3 * np.arange(10.0) + 1, method="pearson")
    assert isinstance(found, Estimate)
    assert found.estimate == pytest.approx(1)
    assert np.isnan(found.low) and "no interval: agreement is perfect" in found.note


def test_a_perfect_agreement_of_ranks_has_the_p_of_its_arrangements():
    """Three pairs of runs have eight arrangements; two of them agree perfectly, one way or the other."""
    found = correlation([1, 2, 1, 2, 1, 2], [1, 2, 3, 5, 2, 7], strata=list("aabbcc"))
    assert found.estimate == pytest.approx(1) and found.p == 0.25
    assert np.isnan(found.low)
    assert "with 8 arrangements no p is below 0.125" in found.note


def test_schedules_with_different_numbers_of_seeds_cannot_change_places():
    """Then p is that of the jackknife's t, which the interval inverts: 0 is outside the interval when p < 0.05."""
    sizes = np.array([2, 3, 4, 5, 6, 7, 8, 9])
    cluster = np.repeat(np.arange(8), sizes)
    for slope in (0.1, 0.4, 0.8, 1.5):
        x, y = pair(sizes.sum(), slope=slope)
        found = correlation(x, y, method="pearson", cluster=cluster, unit="schedules")
        assert "jackknife t p (1 permutations of unequal schedules are too few)" in found.method
        assert (found.low > 0 or found.high < 0) == (found.p < 0.05)
    z = np.arctanh(found.estimate)
    error = (z - np.arctanh(found.low)) / stats.t.ppf(0.975, 7)
    assert found.p == pytest.approx(2 * stats.t.sf(z / error, 7), rel=1e-6)


def test_bad_input_is_named():
    x, y = pair(10)
    with pytest.raises(InputError, match="interval 'wald'"):
        correlation(x, y, interval="wald")
    with pytest.raises(InputError, match="differ in length: 10, 9"):
        correlation(x, y[:9])
    with pytest.raises(InputError, match="no coefficient"):
        correlation(x, y, method="mutual information")
