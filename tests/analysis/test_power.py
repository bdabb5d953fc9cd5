"""Simulated power against the formulas where there are formulas."""

import itertools

import numpy as np
import pytest
from fishlens.analysis.correlation.pair import correlation
from fishlens.analysis.power import (
    correlation_power,
    paired_power,
    runs_needed,
    seeds_needed,
    smallest_by_exchange,
)
from statsmodels.stats.power import TTestPower

from fishlens.errors import InputError


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 30), (0.8, 15), (0.3, 60)])
def test_with_many_seeds_it_is_the_t_tests_power(effect, seeds):
    theirs = TTestPower().power(effect, seeds, 0.05)
    assert paired_power(2 * effect, 2.0, seeds, simulations=20_000) == pytest.approx(theirs, abs=0.012)


@pytest.mark.parametrize(
    ("effect", "sd", "seeds"), [(2.0, 2.0, 8), (2.0, 4.9, 8), (2.0, 7.71, 8), (4.4, 4.9, 12), (2.0, 2.2, 12)]
)
def test_it_is_within_two_points_of_how_often_the_sign_flip_test_rejects(effect, sd, seeds):
    rng = np.random.default_rng(1)
    signs = np.array(list(itertools.product([1, -1], repeat=seeds)))
    rejected = 0
    for _ in range(20):
        differences = effect + sd * rng.standard_normal((300, seeds))
        sums = np.abs(differences @ signs.T)
        rejected += ((sums >= sums[:, :1] * (1 - 1e-9)).mean(axis=1) < 0.05).sum()
    assert paired_power(effect, sd, seeds) == pytest.approx(rejected / 6000, abs=0.02)


def test_what_four_seeds_could_have_shown_is_what_their_exchange_finds():
    found = smallest_by_exchange(6, 4, 1)
    rng = np.random.default_rng(5)
    schedule, seed = (part.ravel() for part in np.indices((6, 4)))
    p = []
    for _ in range(300):
        x, e = rng.standard_normal((2, 24))
        y = found * x + np.sqrt(1 - found**2) * e
        p.append(correlation(x, y, method="pearson", strata=schedule, crossed=seed).p)
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.8, abs=0.09)
    assert smallest_by_exchange(6, 4, 8) > found
    assert np.isnan(smallest_by_exchange(3, 3, 1))  # six arrangements


def test_up_to_five_seeds_there_is_none():
    assert paired_power(100.0, 0.1, 5) == 0
    assert paired_power(100.0, 0.1, 6) == 1


def test_without_an_effect_it_is_the_level_at_most():
    assert 0.03 <= paired_power(0.0, 1.0, 8, simulations=5000) <= 0.055
    assert correlation_power(0.0, 12, simulations=20_000) == pytest.approx(0.05, abs=0.006)


@pytest.mark.parametrize(("r", "published"), [(0.3, 84), (0.5, 29), (0.1, None)])
def test_runs_needed_for_a_correlation(r, published):
    """84 and 29: the usual tables for 80 % power at the two-sided 5 % level."""
    found = runs_needed(r, largest=200, simulations=10_000)
    if published is None:
        assert found.needed is None
        assert found.note == "200 runs do not reach a power of 0.8"
    else:
        assert abs(found.needed - published) <= 3


def test_seeds_needed_is_the_first_that_suffices():
    found = seeds_needed(1.0, 1.0, simulations=5000)
    power = found.curve.set_index("size")["power"]
    assert power[found.needed] >= 0.8
    assert power[found.needed - 1] < 0.8
    assert abs(found.needed - TTestPower().solve_power(1.0, power=0.8, alpha=0.05)) <= 1.5
    assert (found.curve["low"] <= found.curve["power"]).all()
    assert seeds_needed(1.0, 1.0, simulations=5000).curve.equals(found.curve)  # seeded


def test_a_large_effect_still_needs_six_seeds():
    assert seeds_needed(50.0, 1.0).needed == 6


def test_bad_input_is_named():
    with pytest.raises(InputError, match="standard deviation of the differences is 0"):
        seeds_needed(1.0, 0.0)
    with pytest.raises(InputError, match=r"power is 1\.0"):
        seeds_needed(1.0, 1.0, power=1.0)
    with pytest.raises(InputError, match=r"correlation is 1\.0"):
        runs_needed(1.0)
    assert np.isfinite(correlation_power(0.99, 5))
