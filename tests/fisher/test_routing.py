"""Experts get rows chosen by index: each row's gradient tells which example it belongs to."""

import pytest
import torch
from torch import nn

from fishlens import estimate_fisher, find_blocks
from fishlens.errors import InputError
from fishlens.fisher import Plan, reference_fisher


class Experts(nn.Module):
    """Every token goes to one of three experts; `shared` adds what it gives to a token of another example too."""

    def __init__(self, shared=False):
        super().__init__()
        torch.manual_seed(0)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 6)) for _ in range(3)
        )
        self.out, self.shared = nn.Linear(6, 3), shared

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        chosen = (rows[:, 0].abs() * 100).long() % 3
        result = rows.clone()
        for number, expert in enumerate(self.experts):
            index = torch.where(chosen == number)[0]
            if len(index):
                given = expert(rows[index])
                result = result.index_add(0, index, given)
                if self.shared:
                    result = result.index_add(0, (index + x.shape[1]) % len(rows), given)
        return self.out(result.reshape(x.shape).mean(1))


def batch(count, seed=1):
    return torch.randn(count, 5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("count", [1, 3, 30])
def test_the_rows_of_experts_are_given_to_their_examples(count):
    model, plan = Experts().double(), Plan()
    blocks = find_blocks(model, by="module")
    for seed in (
        1,
        2,
    ):  # the second batch is routed otherwise, and has the first one's proof where it is the same
        x = batch(count, seed)
        found = estimate_fisher(model, x, blocks=blocks, labels="exact", diagonal=True, plan=plan)
        expected = reference_fisher(model, x, blocks, labels="exact")
        for block in blocks:
            torch.testing.assert_close(
                found.per_example[block.name], expected.per_example[block.name], rtol=1e-9, atol=1e-14
            )
            for name in block.parameters:
                torch.testing.assert_close(
                    found.diagonal[name], expected.diagonal[name], rtol=1e-9, atol=1e-14
                )
        assert not [note for note in found.meta["notes"] if "one example at a time" in note]


def test_a_row_that_serves_two_examples_is_refused():
    model = Experts(shared=True).double()
    with pytest.raises(InputError, match="depend on one another"):
        estimate_fisher(model, batch(3), blocks=find_blocks(model, by="module"), labels="exact")
