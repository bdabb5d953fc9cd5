"""Coefficients against scipy and pingouin, to rounding."""

import numpy as np
import pandas as pd
import pingouin
import pytest
from fishlens.analysis.correlation.coefficients import coefficient
from scipy import stats

from fishlens.errors import InputError

SCIPY = {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}


def data(n=40, ties=True, seed=0):
    rng = np.random.default_rng(seed)
    columns = rng.standard_normal((n, 4)) @ np.array(
        [[1, 0.5, 0.3, 0], [0, 1, 0.2, 0], [0, 0, 1, 0.4], [0, 0, 0, 1]]
    )
    return np.round(columns, 1) if ties else columns


def once(columns, method, strata=None):
    return float(coefficient(columns, np.ones((1, len(columns))), method, strata)[0])


@pytest.mark.parametrize("method", SCIPY)
@pytest.mark.parametrize("ties", [False, True])
def test_as_scipy_computes_them(method, ties):
    columns = data(ties=ties)[:, :2]
    assert once(columns, method) == pytest.approx(SCIPY[method](*columns.T).statistic, abs=1e-12)
    far = columns * 1e-6 + 1e6  # a large mean over a small spread
    assert once(far, "pearson") == pytest.approx(stats.pearsonr(*far.T).statistic, abs=1e-6)


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("controls", [["c"], ["c", "d"]])
def test_partial_as_pingouin_computes_them(method, controls):
    frame = pd.DataFrame(data(), columns=list("abcd"))
    theirs = pingouin.partial_corr(frame, x="a", y="b", covar=controls, method=method)["r"].iloc[0]
    from_residuals = once(frame[["a", "b", *controls]].to_numpy(), method)
    # pingouin rounds nothing here, but the residuals say it without pingouin too
    ranked = frame.rank() if method == "spearman" else frame
    design = np.column_stack([np.ones(40), ranked[controls]])
    rest = ranked[["a", "b"]] - design @ np.linalg.lstsq(design, ranked[["a", "b"]], rcond=None)[0]
    assert from_residuals == pytest.approx(stats.pearsonr(*rest.to_numpy().T).statistic, abs=1e-12)
    assert from_residuals == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("method", SCIPY)
def test_a_weight_of_two_is_the_observation_twice(method):
    columns = data()[:, :2]
    weights = np.random.default_rng(1).integers(0, 3, size=(6, 40)).astype(float)
    values = coefficient(columns, weights, method)
    for row, value in zip(weights.astype(int), values, strict=True):
        assert value == pytest.approx(SCIPY[method](*np.repeat(columns, row, axis=0).T).statistic, abs=1e-12)


def test_within_strata_only_differences_inside_a_stratum_count():
    columns = data()[:, :2]
    strata = np.arange(40) % 3
    shifted = columns + 100 * strata[:, None]  # strata far apart: between them everything goes together
    centred = columns - pd.DataFrame(columns).groupby(strata).transform("mean").to_numpy()
    assert once(shifted, "pearson", strata) == pytest.approx(stats.pearsonr(*centred.T).statistic, abs=1e-9)
    ranks = pd.DataFrame(columns).groupby(strata).rank()
    ranks -= ranks.groupby(strata).transform("mean")
    assert once(shifted, "spearman", strata) == pytest.approx(
        stats.pearsonr(*ranks.to_numpy().T).statistic, abs=1e-12
    )
    concordant, x_untied, y_untied = 0, 0, 0
    for i in range(40):
        for j in range(i):
            if strata[i] == strata[j]:
                x, y = np.sign(columns[i] - columns[j])
                concordant, x_untied, y_untied = concordant + x * y, x_untied + abs(x), y_untied + abs(y)
    assert once(shifted, "kendall", strata) == pytest.approx(
        concordant / np.sqrt(x_untied * y_untied), abs=1e-12
    )
    assert once(shifted, "pearson") > 0.99  # and without strata they all would


@pytest.mark.parametrize("method", SCIPY)
def test_a_constant_column_has_none(method):
    columns = data()[:, :2]
    columns[:, 0] = 0.1
    assert np.isnan(once(columns, method))
    columns = data()[:, :2]
    weights = np.zeros((2, 40))
    weights[0, 3] = 5  # one observation only
    weights[1] = 1
    values = coefficient(columns, weights, method)
    assert np.isnan(values[0])
    assert np.isfinite(values[1])


def test_a_control_that_says_everything_leaves_nothing():
    columns = data(ties=False)[:, :3]
    columns[:, 2] = 2 * columns[:, 0] - 1
    assert np.isnan(once(columns, "pearson"))


def test_unknown_methods_and_partial_kendall_are_refused():
    with pytest.raises(InputError, match="no coefficient 'cosine'"):
        once(data(), "cosine")
    with pytest.raises(InputError, match="Kendall"):
        once(data(), "kendall")


def test_many_weightings_are_done_in_pieces_of_the_same_values(monkeypatch):
    columns, weights = data(), np.random.default_rng(1).integers(0, 3, size=(50, 40)).astype(float)
    whole = coefficient(columns, weights, "spearman")
    monkeypatch.setattr("fishlens.analysis.correlation.coefficients._AT_ONCE", 500)
    np.testing.assert_array_equal(coefficient(columns, weights, "spearman"), whole)
