"""coverage and self_check: what `fishlens check` shows before the first number."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fishlens import InputError, estimate_fisher, find_blocks
from fishlens.fisher import Plan, coverage, prices, proof, self_check, self_checks
from fishlens.fisher.coverage import ONE_AT_A_TIME
from fishlens.fisher.extensions import LinearRule
from fishlens.fisher.gradients import Dense, OuterSum
from fishlens.fisher.tolerance import Tolerance

from .models import mad_x, sentences


def test_every_parameter_of_every_block_has_one_row_and_a_rule():
    model = mad_x("lora")
    blocks = find_blocks(model)
    table = coverage(model, blocks, sentences())
    assert [row.parameter for row in table] == [name for block in blocks for name in block.parameters]
    assert {row.rule for row in table} == {"lora", "linear"}
    assert {row.block for row in table} == {"layer.0", "layer.1", "head"}


@pytest.mark.parametrize("labels", ["exact", "mc", "empirical", "mode"])
def test_the_self_check_passes_on_a_sound_model(labels):
    model = mad_x("double_seq_bn")
    check = self_check(model, sentences(), labels=labels)
    assert check.passed and check.examples == 2 and check.error < 1e-9
    single = self_check(model.float(), [sentences()], labels=labels, block="layer.1")
    assert single.passed and single.block == "layer.1" and single.tolerance == 1e-4


def test_the_self_check_draws_another_block_with_another_seed():
    model = mad_x()
    assert {self_check(model, sentences(), seed=seed).block for seed in range(12)} == {
        "layer.0",
        "layer.1",
        "head",
    }
    with pytest.raises(InputError, match=r"no block 'layer.9'; there are layer.0, layer.1, head"):
        self_check(model, sentences(), block="layer.9")


def test_the_self_check_finds_a_rule_that_squares_tokens(monkeypatch):
    def per_token(self, module, a, g):
        return {"weight": OuterSum(g[:, :1], a[:, :1]), "bias": Dense(g.square().sum(1).sqrt())}

    monkeypatch.setattr(LinearRule, "gradients", per_token)
    assert self_check(mad_x(), sentences(), block="layer.0").passed  # the proof sends it one at a time
    monkeypatch.setattr(proof, "CLAIM", Tolerance({}, math.inf))
    assert not self_check(mad_x(), sentences(), block="layer.0").passed


class TimeFirst(nn.Module):
    """Transposes to `[T, N, d]` inside, as some models do: with T = N no shape tells."""

    def __init__(self):
        super().__init__()
        self.embed, self.inner, self.out = nn.Embedding(20, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, input_ids):
        h = torch.tanh(self.inner(self.embed(input_ids).transpose(0, 1)))
        return self.out(h.transpose(0, 1).sum(1))


@pytest.mark.parametrize("count", [4, 3])
def test_a_model_that_puts_time_first_is_measured_one_example_at_a_time_also_in_a_square_batch(count):
    torch.manual_seed(0)
    model = TimeFirst().double()
    blocks = find_blocks(model, by="module")
    batch = {"input_ids": torch.randint(20, (4, 4))[:count]}
    assert self_check(model, batch, blocks=blocks, block="inner", examples=count).passed
    rules = {row.parameter: row.rule for row in coverage(model, blocks, batch)}
    assert rules["inner.weight"] == ONE_AT_A_TIME and rules["out.weight"] == "linear"


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(self.linear(x))


def test_batch_norm_is_refused_in_train_mode_and_measured_in_eval_mode():
    model, x = Normed().double(), torch.randn(5, 4, dtype=torch.float64)
    blocks = find_blocks(model, by="module")
    with pytest.raises(InputError, match=r"module 'norm' \(BatchNorm1d\)"):
        estimate_fisher(model, x, blocks=blocks, mode="train")
    with pytest.raises(InputError, match="norm"):
        estimate_fisher(model.train(), x, blocks=blocks, mode="unchanged")
    before = model.norm.running_mean.clone()
    assert self_check(model, x, blocks=blocks, block="norm").passed
    assert torch.equal(before, model.norm.running_mean)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda m: setattr(m, "linear", m.linear.to("meta")), r"'linear.weight' .* has no data"),
        (lambda m: setattr(m.linear.weight, "ds_id", 0), r"'linear.weight' .* sharded"),
        (
            lambda m: setattr(m, "whole", nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)),
            r"'whole' .* torch.int8",
        ),
        (lambda m: setattr(m, "table", nn.Embedding(3, 2, max_norm=1.0)), r"'table' \(Embedding\) rescales"),
    ],
)
def test_what_cannot_be_right_is_refused_by_name(spoil, says):
    model = Normed()
    spoil(model)
    with pytest.raises(InputError, match=says):
        estimate_fisher(model, torch.randn(2, 4), blocks=find_blocks(model, by="module"))
    with pytest.raises(InputError, match=says):
        coverage(model, find_blocks(model, by="module"))


def test_blocks_of_another_model_are_refused_though_their_names_fit():
    model = mad_x()
    with pytest.raises(InputError, match="is not one of this model's"):
        estimate_fisher(copy.deepcopy(model), sentences(), blocks=find_blocks(model))


def test_gradient_checkpointing_in_train_mode_is_refused():
    model = mad_x()
    model.base_model.gradient_checkpointing_enable()
    with pytest.raises(InputError, match="gradient checkpointing"):
        estimate_fisher(model, sentences(), mode="train")
    assert estimate_fisher(model, sentences()).trace == estimate_fisher(mad_x(), sentences()).trace


@pytest.mark.parametrize("count", [3, 6])
def test_what_no_rule_measures_says_what_it_costs_as_counted(count, capsys):
    from fishlens.cli.check import _print_prices

    torch.manual_seed(0)
    model = TimeFirst().double()
    blocks, batch = find_blocks(model, by="module"), {"input_ids": torch.randint(20, (count, 4))}
    table = coverage(model, blocks, batch)
    slow = {row.parameter for row in table if row.rule == ONE_AT_A_TIME}
    (price,) = prices(model, blocks, batch, table)
    assert {*price.parameters} == slow == {"inner.weight", "inner.bias"}
    counted = []
    for measured in (blocks, [block for block in blocks if block.name != "inner"]):
        plan = Plan()
        estimate_fisher(model, batch, blocks=measured, plan=plan)
        with Counting() as counting:
            estimate_fisher(model, batch, blocks=measured, plan=plan)
        counted.append(counting.count)
    assert [price.operations, price.without] == counted
    assert (price.operations - price.without) / count > 10  # a pass of the network for each example
    _print_prices([price])
    told = capsys.readouterr().out
    assert (
        f"a probe of {count} examples takes {counted[0]} operations instead of {counted[1]}; each example"
        in told
    )


def test_a_model_with_rules_for_everything_has_no_price():
    model = mad_x()
    blocks = find_blocks(model)
    assert prices(model, blocks, sentences(), coverage(model, blocks, sentences())) == []


class Counting(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def test_every_block_and_every_parameter_is_checked_in_one_go():
    model = mad_x("double_seq_bn")
    checks = self_checks(model, sentences())
    assert [one.block for one in checks] == ["layer.0", "layer.1", "head"]
    assert all(one.passed and one.examples == 2 for one in checks)
    apart = self_checks(model.float(), sentences(), examples=None, apart=True)
    assert all(one.passed and one.examples == len(sentences()["labels"]) for one in apart)


def test_a_wrong_rule_for_biases_alone_is_found_apart(monkeypatch):
    right = LinearRule.gradients

    def wrong_biases(self, module, a, g):
        found = right(self, module, a, g)
        return {**found, "bias": Dense(0 * g.sum(1))} if "bias" in found else found

    model = mad_x()
    monkeypatch.setattr(LinearRule, "gradients", wrong_biases)
    monkeypatch.setattr(proof, "CLAIM", Tolerance({}, math.inf))
    assert not all(one.passed for one in self_checks(model, sentences(), apart=True))
