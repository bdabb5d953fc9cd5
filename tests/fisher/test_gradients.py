"""The forms of a per-example gradient agree with the gradient written out."""

import pytest
import torch

from fishlens.fisher.gradients import Dense, OuterSum, RowSum, Sum, joined


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


INDEX = torch.tensor([[3, 3, 0, 1, 3], [0, 0, 0, 0, 0], [4, 1, 2, 1, 1]])


def table_gradient(index, g, rows, ignored=None):
    """Row by row, in the most literal way."""
    out = torch.zeros(len(index), rows, g.shape[2], dtype=g.dtype)
    for n in range(len(index)):
        for t in range(index.shape[1]):
            if index[n, t] != ignored:
                out[n, index[n, t]] += g[n, t]
    return out


def cases():
    left, right = random(3, 5, 4), random(3, 5, 6)
    wide_left, wide_right = random(3, 2, 8), random(3, 2, 9)
    g = random(3, 5, 2)
    yield "dense", Dense(left), left
    yield "outer", OuterSum(left, right), torch.einsum("nto,nti->noi", left, right)
    yield "outer, Gram", OuterSum(wide_left, wide_right), torch.einsum("nto,nti->noi", wide_left, wide_right)
    yield "rows", RowSum(INDEX, g, 5), table_gradient(INDEX, g, 5)
    yield "rows, padding", RowSum(INDEX, g, 5, ignored=0), table_gradient(INDEX, g, 5, ignored=0)
    both = [RowSum(INDEX, g, 5), OuterSum(random(3, 4, 5), random(3, 4, 2))]
    yield "sum", Sum(both), both[0].dense() + both[1].dense()


@pytest.mark.parametrize(("form", "expected"), [c[1:] for c in cases()], ids=[c[0] for c in cases()])
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_norms_squares_and_sums_are_those_of_the_gradient_itself(form, expected, chunk):
    assert form.shape == expected.shape[1:] and form.examples == 3
    torch.testing.assert_close(form.dense(), expected)
    torch.testing.assert_close(form.dense(1, 3), expected[1:3])
    torch.testing.assert_close(form.total(), expected.sum(0))
    norms = expected.square().flatten(1).sum(1)
    torch.testing.assert_close(form.squared_norms(chunk), norms)
    diagonal = torch.ones(form.shape, dtype=torch.float64)
    torch.testing.assert_close(form.squares(chunk, diagonal, weight=0.5), norms)
    torch.testing.assert_close(diagonal, 1 + 0.5 * expected.square().sum(0))


def test_the_gram_form_is_taken_where_it_is_cheaper():
    assert OuterSum(random(1, 2, 8), random(1, 2, 9)).gram_is_cheaper
    assert not OuterSum(random(1, 5, 4), random(1, 5, 6)).gram_is_cheaper


def test_several_calls_of_one_module_are_summed_before_squaring():
    for _, form, expected in cases():
        both = joined([form, form])
        torch.testing.assert_close(both.squared_norms(2), 4 * expected.square().flatten(1).sum(1))
        torch.testing.assert_close(both.dense(), 2 * expected)


def test_a_memory_bound_says_how_many_examples_are_materialised_at_once():
    form = OuterSum(random(3, 5, 4), random(3, 5, 6))  # 24 float64 an example
    assert [form.chunk_for(memory) for memory in (1, 192, 400, 10**6)] == [1, 1, 2, 3]
