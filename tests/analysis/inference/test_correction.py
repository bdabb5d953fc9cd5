"""Corrected p-values, against statsmodels and by hand."""

import numpy as np
import pytest
from fishlens.analysis.inference.correction import benjamini_hochberg, holm
from statsmodels.stats.multitest import multipletests


@pytest.mark.parametrize(("correct", "name"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])
def test_as_statsmodels_computes_them(correct, name):
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 40):
        p = rng.random(size) ** 3
        p[: size // 3] = 0.02  # ties
        np.testing.assert_allclose(correct(p), multipletests(p, method=name)[1], rtol=1e-12)


def test_a_worked_example():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(benjamini_hochberg([0.01, 0.04, 0.03, 0.005]), [0.02, 0.04, 0.04, 0.02])


@pytest.mark.parametrize("correct", [holm, benjamini_hochberg])
def test_a_test_that_could_not_be_done_is_no_member_of_the_family(correct):
    with_gap = correct([0.01, np.nan, 0.04])
    assert np.isnan(with_gap[1])
    np.testing.assert_array_equal(with_gap[[0, 2]], correct([0.01, 0.04]))
    assert len(correct([])) == 0
