"""Which rows make up an update depends on the seed and the step alone."""

import pytest
import torch
from torch import nn

from fishlens.fisher import Block
from fishlens.fisher.relative_gradient import relative_gradient_norms
from fishlens.recipe.recipe import Train
from fishlens.training.batches import Order, total_steps
from fishlens.training.optimizer import learning_rate, make_optimizer, set_learning_rate


def test_an_epoch_has_every_row_once_and_the_next_one_in_another_order():
    order = Order(rows=10, batch_size=4, seed=3)
    epochs = [[order.batch(step) for step in range(start, start + 3)] for start in (0, 3)]
    assert [[len(b) for b in epoch] for epoch in epochs] == [[4, 4, 2], [4, 4, 2]]
    flat = [[row for batch in epoch for row in batch] for epoch in epochs]
    assert sorted(flat[0]) == sorted(flat[1]) == list(range(10))
    assert flat[0] != flat[1]


def test_a_batch_can_be_asked_for_out_of_order():
    order = Order(rows=10, batch_size=4, seed=3)
    late = order.batch(7)
    assert [Order(rows=10, batch_size=4, seed=3).batch(step) for step in range(8)][7] == late
    assert order.batch(7) != Order(rows=10, batch_size=4, seed=4).batch(7)


def test_rows_grouped_by_length_come_once_an_epoch_in_batches_with_less_padding_and_in_no_order_of_length():
    lengths = torch.randint(5, 60, (203,), generator=torch.Generator().manual_seed(0)).tolist()
    grouped, plain = Order(203, 8, seed=3, lengths=lengths), Order(203, 8, seed=3)

    def padded(order, epoch):
        batches = [order.batch(step) for step in range(26 * epoch, 26 * epoch + 26)]
        assert sorted(row for batch in batches for row in batch) == list(range(203))
        return [len(batch) * max(lengths[row] for row in batch) for batch in batches]

    assert sum(padded(grouped, 0)) < 1.25 * sum(lengths) < 1.4 * sum(lengths) < sum(padded(plain, 0))
    longest = padded(grouped, 0)
    assert longest not in (sorted(longest), sorted(longest, reverse=True))
    assert padded(grouped, 1) != longest
    assert Order(203, 8, seed=3, lengths=lengths).batch(40) == grouped.batch(40)


@pytest.mark.parametrize(("steps", "epochs", "expected"), [(7, None, 7), (None, 2, 6), (None, 0.5, 2)])
def test_the_length_of_a_run_in_steps_or_epochs(steps, epochs, expected):
    assert total_steps(rows=10, batch_size=4, steps=steps, epochs=epochs) == expected


def test_the_learning_rate_falls_from_the_first_update_to_zero_after_the_last_like_transformers():
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=3e-4)
    theirs = get_linear_schedule_with_warmup(optimizer, 0, 9)
    ours = Train(steps=9, learning_rate=3e-4)
    for step in range(9):
        assert learning_rate(step, 9, ours) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        theirs.step()
    assert learning_rate(5, 9, Train(steps=9, learning_rate=3e-4, lr_schedule="constant")) == 3e-4


def test_a_blocks_weight_scales_its_learning_rate_alone():
    blocks = [Block(name, {name: nn.Parameter(torch.ones(2))}) for name in ("a", "b")]
    optimizer = make_optimizer(blocks, Train(steps=1))
    set_learning_rate(optimizer, 0.5, {"a": 0.25})
    assert [(g["name"], g["lr"]) for g in optimizer.param_groups] == [("a", 0.125), ("b", 0.5)]


def test_relative_gradient_norms_are_those_of_the_mean_loss_and_leave_no_trace():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.drop = nn.Linear(3, 4), nn.Linear(4, 2), nn.Dropout(0.5)

        def forward(self, x):
            class Output:
                loss = self.two(self.drop(torch.tanh(self.one(x)))).square().mean()

            return Output

    torch.manual_seed(0)
    net = Net().double()
    blocks = [
        Block(n, {f"{n}.{k}": p for k, p in net.get_submodule(n).named_parameters()}) for n in ("one", "two")
    ]
    net.one.requires_grad_(False)
    net.train()
    batches = [{"x": torch.randn(5, 3, dtype=torch.float64)} for _ in range(2)]
    before = torch.get_rng_state()
    found = relative_gradient_norms(net, blocks, batches)
    assert torch.equal(torch.get_rng_state(), before)
    assert net.training and not net.one.weight.requires_grad and net.two.weight.grad is None

    net.eval().requires_grad_(True)
    sum(net(**batch).loss for batch in batches).div(2).backward()
    for block in blocks:
        gradient = sum(p.grad.square().sum() for p in block.parameters.values()).sqrt()
        weight = sum(p.detach().square().sum() for p in block.parameters.values()).sqrt()
        assert found[block.name] == pytest.approx(float(gradient / weight), rel=1e-9)


def test_the_learning_rate_rises_over_the_warm_up_and_falls_to_zero_after_the_last_update():
    settings = Train(steps=10, learning_rate=0.5, warmup=4)
    rates = [learning_rate(step, 10, settings) for step in range(11)]
    assert rates == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 5 / 12, 4 / 12, 0.25, 2 / 12, 1 / 12, 0])
    assert all(
        learning_rate(step, 10, Train(steps=10, learning_rate=0.5)) == 0.5 * (10 - step) / 10
        for step in range(10)
    )
