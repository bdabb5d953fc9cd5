"""Intervals from resampled clusters, against scipy's own BCa and the textbook t interval."""

from types import SimpleNamespace

import numpy as np
from fishlens.analysis.correlation.coefficients import coefficient
from fishlens.analysis.inference.bootstrap import bca, jackknife_t, percentile
from fishlens.analysis.inference.clusters import codes_of, deletions, resampled_counts
from scipy import stats


def clustered(seed=0, groups=9, size=4):
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(groups), size)
    return rng.standard_normal((groups, 2))[codes] + rng.standard_normal((groups * size, 2)), codes


def test_bca_is_scipys_given_the_same_resamples_of_clusters():
    columns, codes = clustered()
    counts = resampled_counts(9, 1999, np.random.default_rng(1))
    resampled = coefficient(columns, counts[:, codes], "pearson")
    value = float(coefficient(columns, np.ones((1, 36)), "pearson")[0])
    deleted = coefficient(columns, deletions(9)[:, codes], "pearson")

    def of_clusters(drawn):
        rows = np.concatenate([np.flatnonzero(codes == g) for g in drawn])
        return stats.pearsonr(*columns[rows].T).statistic

    # scipy compares exactly, and a resample of every cluster once differs from the estimate by rounding
    snapped = np.where(np.isclose(resampled, value, rtol=1e-12), of_clusters(np.arange(9)), resampled)
    for level in (0.8, 0.95):
        theirs = stats.bootstrap(
            (np.arange(9),), of_clusters, n_resamples=0, vectorized=False, method="BCa", confidence_level=level,
            bootstrap_result=SimpleNamespace(bootstrap_distribution=snapped),
        ).confidence_interval  # fmt: skip
        np.testing.assert_allclose(bca(value, resampled, deleted, level), theirs, rtol=1e-9)


def test_a_resample_is_the_statistic_of_the_clusters_drawn():
    columns, codes = clustered(2)
    counts = resampled_counts(9, 20, np.random.default_rng(3))
    assert (counts.sum(axis=1) == 9).all()
    for method, theirs in (
        ("pearson", stats.pearsonr),
        ("spearman", stats.spearmanr),
        ("kendall", stats.kendalltau),
    ):
        ours = coefficient(columns, counts[:, codes], method)
        for row, value in zip(counts, ours, strict=True):
            drawn = np.repeat(np.arange(36), row[codes].astype(int))
            assert abs(theirs(*columns[drawn].T).statistic - value) < 1e-12


def test_the_jackknife_interval_of_a_mean_is_students():
    values = np.random.default_rng(0).standard_normal(7)
    ours = jackknife_t(values.mean(), deletions(7) @ values / 6, 0.9)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_percentiles_leave_out_resamples_without_a_value():
    np.testing.assert_allclose(percentile(np.r_[np.arange(101.0), np.nan], 0.9), (5, 95))


def test_bca_says_nothing_when_every_resample_lies_on_one_side():
    assert np.isnan(bca(5.0, np.zeros(10), np.arange(4.0), 0.95)).all()
    assert np.isnan(bca(5.0, np.full(10, np.nan), np.arange(4.0), 0.95)).all()


def test_codes_follow_first_appearance():
    assert codes_of(["b", "a", "b", "c"], 4).tolist() == [0, 1, 0, 2]
    assert codes_of(None, 3).tolist() == [0, 1, 2]
