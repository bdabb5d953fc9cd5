"""Linear CKA: what it must not see, and what it is for unrelated representations."""

import math

import pytest
import torch

from fishlens.fisher.representation import linear_cka


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_it_does_not_see_rotation_size_and_offset(generator):
    x = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))
    assert linear_cka(x, 3 * x @ rotation + 5) == pytest.approx(1, abs=1e-10)


def test_it_is_the_unbiased_estimator_s_definition(generator):
    """By the sum over quadruples of different rows, which needs no closed form (Song et al. 2012, Eq. 4)."""
    from itertools import permutations

    x = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    y = x[:, :2] + torch.randn(6, 2, generator=generator, dtype=torch.float64)

    def hsic(k, m):
        return sum(
            float(k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])) for i, j, q, r in permutations(range(6), 4)
        )

    k, m = x @ x.T, y @ y.T
    expected = hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-9)


def test_unrelated_representations_are_about_zero_also_with_fewer_rows_than_dimensions(generator):
    values = [
        linear_cka(torch.randn(12, 64, generator=generator), torch.randn(12, 64, generator=generator))
        for _ in range(200)
    ]
    assert abs(sum(values) / 200) < 0.03  # the usual estimator is at 0.85 here


def test_too_few_rows_and_constant_ones_say_nothing(generator):
    assert math.isnan(linear_cka(torch.randn(3, 2), torch.randn(3, 2)))
    assert math.isnan(linear_cka(torch.ones(8, 2), torch.randn(8, 2, generator=generator)))
