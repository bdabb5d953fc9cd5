"""Schedule and seed as crossed factors: against least squares, every permutation written out, and dense matrices."""

import itertools

import numpy as np
import pytest
from fishlens.analysis.correlation.pair import correlation
from fishlens.analysis.inference.correction import westfall_young
from fishlens.analysis.inference.permutation import rearrange_levels
from fishlens.analysis.inference.reml import fit_reml, slopes
from statsmodels.regression.linear_model import OLS


def dummies(schedule, seed):
    return np.column_stack([schedule[:, None] == np.arange(4), seed[:, None] == np.arange(1, 5)]).astype(
        float
    )


def test_the_coefficient_is_that_of_two_regressions_residuals_and_p_counts_every_exchange_of_seeds():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 4, 5))
    schedule, seed = (part.ravel() for part in np.indices((4, 5)))
    left = [OLS(part.ravel(), dummies(schedule, seed)).fit().resid for part in (x, y)]
    expected = np.corrcoef(*left)[0, 1]
    moved = left[1].reshape(4, 5)
    values = [
        abs(np.corrcoef(left[0], moved[:, list(order)].ravel())[0, 1])
        for order in itertools.permutations(range(5))
    ]
    found = correlation(x.ravel(), y.ravel(), method="pearson", strata=schedule, crossed=seed)
    assert found.estimate == pytest.approx(expected, abs=1e-12)
    assert "all 120" in found.method
    assert found.p == pytest.approx(np.mean(np.array(values) >= abs(expected) - 1e-9), abs=1e-12)


def test_the_interval_leaves_out_one_seed_at_a_time_and_fits_again():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 20))
    schedule, seed = (part.ravel() for part in np.indices((4, 5)))
    z = []
    for k in range(5):
        keep = seed != k
        left = [OLS(v[keep], dummies(schedule, seed)[keep]).fit().resid for v in (x, y)]
        z.append(np.arctanh(np.corrcoef(*left)[0, 1]))
    error = 4 / 5 * np.sqrt(((np.array(z) - np.mean(z)) ** 2).sum())
    found = correlation(x, y, method="pearson", strata=schedule, crossed=seed)
    reach = 2.7764451051977987 * error  # t, 4 degrees of freedom
    centre = np.arctanh(found.estimate)
    assert (found.low, found.high) == pytest.approx(
        tuple(np.tanh([centre - reach, centre + reach])), rel=1e-6
    )


@pytest.mark.parametrize("method", ["pearson", "spearman", "kendall"])
def test_with_four_seeds_the_interval_leaves_out_0_in_one_of_24_exchanges(method):
    """Whatever seeds do to schedules: here they shift one of them a hundred times as much."""
    rng = np.random.default_rng(4)
    schedule, seed = (part.ravel() for part in np.indices((3, 4)))
    shift = np.array([1.0, 10, 100])[schedule]
    x, y = shift * rng.standard_normal((2, 4))[:, seed] + rng.standard_normal((2, 12))
    outside = []
    for order in itertools.permutations(range(4)):
        moved = y.reshape(3, 4)[:, list(order)].ravel()
        found = correlation(x, moved, method=method, strata=schedule, crossed=seed)
        assert "all 24" in found.method and "as wide as its permutations spread" in found.method
        outside.append(found.low > 0 or found.high < 0)
    assert sum(outside) == 1


def test_three_seeds_are_not_enough_and_the_answer_says_how_many_are():
    rng = np.random.default_rng(5)
    schedule, seed = (part.ravel() for part in np.indices((6, 3)))
    found = correlation(*rng.standard_normal((2, 18)), strata=schedule, crossed=seed)
    assert str(found) == (
        "not enough seeds that cross for spearman: 3 seeds that cross, at least 4 are needed (they change places in 6 "
        "ways, so that no p is below 0.167)"
    )


def test_three_seeds_of_each_of_two_tasks_change_places_in_36_ways_and_that_is_enough():
    rng = np.random.default_rng(6)
    task, schedule, seed = (part.ravel() for part in np.indices((2, 4, 3)))
    found = correlation(
        *rng.standard_normal((2, 24)), strata=10 * task + schedule, crossed=10 * task + seed, method="pearson"
    )
    assert found.enough and "all 36" in found.method and found.p * 36 == pytest.approx(round(found.p * 36))


def test_schedules_exchange_their_levels_and_seeds_what_is_left_apart():
    """Rows keep their schedule, so that one with a wide spread keeps it."""
    schedule, seed = (part.ravel() for part in np.indices((4, 3)))
    moves = rearrange_levels(schedule, seed, 199, np.random.default_rng(0))
    assert moves.within.exact and moves.within.possible == 24 * 6 == len(moves.strata)
    level, rest = np.array([[1.0], [2], [3], [4]]), (np.arange(12.0) / 100)[:, None]
    moved = moves.move(level, rest, schedule)[..., 0].reshape(-1, 4, 3)
    assert len(np.unique(moved.round(6), axis=0)) == 144
    for one in moved:
        assert sorted(np.floor(one[:, 0])) == [1, 2, 3, 4]
        left = (one - np.floor(one)) * 100 - 3 * np.arange(4)[:, None]
        assert (left.round(6) == left[0].round(6)).all() and sorted(left[0].round(6)) == [0, 1, 2]


def test_a_stratum_in_which_the_feature_is_constant_is_left_out_of_n():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((2, 24))
    schedule = np.repeat(np.arange(4), 6)
    x[schedule == 3] = 7.0
    found = correlation(x, y, strata=schedule)
    alone = correlation(x[:18], y[:18], strata=schedule[:18])
    assert found.n == 18 and found.estimate == alone.estimate and "6 rows left out" in found.note


def test_westfall_and_youngs_p_worked_out():
    """Two tests, four arrangements, the observed one first: the second test is a copy of the first."""
    permuted = np.array([[3.0, 1, 2, 0], [3.0, 1, 2, 0]])
    np.testing.assert_allclose(westfall_young([3.0, 3.0], permuted, exact=True), [0.25, 0.25])
    apart = np.array([[3.0, 1, 2, 0], [2.0, 3, 0, 1]])
    # smallest p of an arrangement: 1/4, 1/4, 2/4, 3/4; the second test, alone, 2/4
    np.testing.assert_allclose(westfall_young([3.0, 2.0], apart, exact=True), [0.5, 0.5])


def test_the_largest_of_three_can_be_found_among_24_arrangements():
    """By their own p each of three tests has an arrangement of p = 1/24, so that the smallest is 3/24 by chance."""
    others = np.random.default_rng(0).random((3, 23))
    permuted = np.column_stack([[0.5, 2.0, 0.1], others])
    found = westfall_young(permuted[:, 0], permuted, exact=True)
    assert found[1] == pytest.approx(1 / 24)
    assert found[0] == pytest.approx((1 + (others[[0, 2]].max(axis=0) >= 0.5).sum()) / 24)


def test_satterthwaites_degrees_of_freedom_by_dense_matrices():
    rng = np.random.default_rng(0)
    run, language = np.repeat(np.arange(12), 4), np.tile(np.arange(4), 12)
    x = rng.standard_normal(12)[run]
    y = rng.standard_normal(4)[language] + rng.standard_normal(12)[run] + 0.5 * rng.standard_normal(48)
    y += 0.8 * rng.standard_normal(4)[language] * x
    effects = [np.eye(4)[language], slopes(x, language), np.eye(12)[run]]
    design = np.column_stack([np.ones(48), x])
    fit = fit_reml(y, design, effects)
    theta = np.r_[fit.ratios, 1] * fit.residual_variance
    parts = [*(z @ z.T for z in effects), np.eye(48)]

    def variances(at):
        whole = sum(t * part for t, part in zip(at, parts, strict=True))
        return np.diag(np.linalg.inv(design.T @ np.linalg.solve(whole, design)))

    inverse = np.linalg.inv(sum(t * part for t, part in zip(theta, parts, strict=True)))
    hat = inverse @ design @ np.linalg.inv(design.T @ inverse @ design) @ design.T @ inverse
    p = inverse - hat
    alive = np.flatnonzero(theta > 1e-8)
    information = [[np.trace(p @ parts[a] @ p @ parts[b]) / 2 for b in alive] for a in alive]
    step = 1e-5 * np.eye(4)
    slope = np.array([(variances(theta + step[a]) - variances(theta - step[a])) / 2e-5 for a in alive])
    spread = np.einsum("kj,kl,lj->j", slope, np.linalg.inv(information), slope)
    np.testing.assert_allclose(fit.freedom, 2 * variances(theta) ** 2 / spread, rtol=1e-5)
