"""Permutations move whole clusters, stay in their stratum, and count exactly when they are few."""

import numpy as np
import pytest
from fishlens.analysis.inference.permutation import rearrange, share_as_large, sign_flips
from scipy import stats

from fishlens.errors import InputError


def one_stratum(n):
    return np.zeros(n, dtype=int)


def test_few_are_enumerated_each_once():
    moves = rearrange(np.arange(5), one_stratum(5), 1999, np.random.default_rng(0))
    assert moves.exact
    assert moves.possible == 120
    assert len({tuple(row) for row in moves.index}) == 120


def test_many_are_drawn():
    moves = rearrange(np.arange(9), one_stratum(9), 500, np.random.default_rng(0))
    assert not moves.exact
    assert moves.possible == 362880
    assert moves.index.shape == (500, 9)
    assert (np.sort(moves.index, axis=1) == np.arange(9)).all()
    assert np.abs((moves.index == np.arange(9)).mean() - 1 / 9) < 0.03  # every place equally likely


def test_clusters_move_whole_and_keep_their_order():
    clusters = np.array([0, 0, 1, 1, 2, 2, 0, 1, 2])
    moves = rearrange(clusters, one_stratum(9), 1999, np.random.default_rng(0))
    assert len(moves.index) == 6
    for row in moves.index:
        for g in range(3):
            places = row[clusters == g]
            assert len(set(clusters[places])) == 1
            assert (np.diff(places) > 0).all()


def test_only_clusters_of_one_size_and_stratum_change_places():
    clusters = np.array([0, 0, 1, 1, 2, 3, 4])
    strata = np.array([0, 0, 0, 0, 0, 0, 1])
    moves = rearrange(clusters, strata, 1999, np.random.default_rng(0))
    assert moves.possible == 4  # {0, 1} and {2, 3}
    assert (moves.index[:, 6] == 6).all()
    assert set(map(tuple, moves.index[:, :2])) == {(0, 1), (2, 3)}


def test_a_cluster_in_two_strata_is_refused():
    with pytest.raises(InputError, match="several strata"):
        rearrange(np.array([0, 0, 1]), np.array([0, 1, 0]), 99, np.random.default_rng(0))


def test_the_exact_p_is_scipys():
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((2, 6))
    moves = rearrange(np.arange(6), one_stratum(6), 10_000, rng)
    observed = abs(stats.pearsonr(x, y).statistic)
    statistics = np.abs([stats.pearsonr(x, y[row]).statistic for row in moves.index])
    theirs = stats.permutation_test(
        (x,), lambda a: np.abs(stats.pearsonr(a, y).statistic), permutation_type="pairings",
        alternative="greater", n_resamples=10_000,
    )  # fmt: skip
    assert moves.p_value(observed, statistics) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_a_drawn_p_is_never_zero_and_rounding_decides_nothing():
    assert share_as_large(5.0, np.zeros(99), exact=False) == 0.01
    assert share_as_large(0.3, np.array([0.1 + 0.2, 0.3, 0.2]), exact=True) == 2 / 3
    assert np.isnan(share_as_large(np.nan, np.zeros(3), exact=True))
    assert (
        share_as_large(0.3, np.array([np.nan, 0.1]), exact=True) == 0.5
    )  # cautious: no statistic counts as large


def test_all_sign_patterns_when_few():
    signs, exact = sign_flips(6, 9999, np.random.default_rng(0))
    assert exact
    assert len({tuple(row) for row in signs}) == 64
    signs, exact = sign_flips(20, 9999, np.random.default_rng(0))
    assert not exact
    assert signs.shape == (9999, 20)
    assert abs(signs.mean()) < 0.01
    assert set(np.unique(signs)) == {-1.0, 1.0}
