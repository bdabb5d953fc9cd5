"""Rows that only look like examples, rules that do not hold, examples that depend on one another: proved, not
guessed. All against plain autograd, one example at a time, in float64."""

import math
from unittest.mock import Mock

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint
from transformers import (
    MixtralConfig,
    MixtralForSequenceClassification,
    T5Config,
    T5ForSequenceClassification,
)

from fishlens import InputError, estimate_fisher, find_blocks
from fishlens.fisher import Plan, passes, proof, reference_fisher
from fishlens.fisher.rows import example_weights
from fishlens.fisher.tolerance import Tolerance
from fishlens.fisher.zeros import depends

from .models import adapters_library, batch_for, config, mad_x, sentences, shaken


def assert_right(model, batch, blocks=None, plan=None, labels="exact", rtol=1e-9, **options):
    """Every example's term of every block, to 1e-9; returns the notes."""
    blocks = find_blocks(model, by="module") if blocks is None else blocks
    estimate = estimate_fisher(model, batch, blocks=blocks, labels=labels, plan=plan, **options)
    expected = reference_fisher(model, batch, blocks, labels=labels, **options)
    for block in blocks:
        torch.testing.assert_close(
            estimate.per_example[block.name], expected.per_example[block.name], rtol=rtol, atol=1e-14
        )
    return estimate.meta["notes"]


def prompt_tuning(tokens):
    adapters = adapters_library()
    model = adapters.AutoAdapterModel.from_config(config())
    model.add_adapter("t", config=adapters.PromptTuningConfig(prompt_length=tokens))
    model.add_classification_head("t", num_labels=3)
    model.train_adapter("t")
    return shaken(model).eval()


def t5():
    small = T5Config(
        vocab_size=60,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        num_labels=3,
        decoder_start_token_id=0,
        eos_token_id=1,
    )
    return shaken(T5ForSequenceClassification(small)).eval()


def mixtral(experts, chosen):
    small = MixtralConfig(
        experts_implementation="eager",  # transformers 5: its grouped products know no float64
        vocab_size=60,
        hidden_size=16,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=experts,
        num_experts_per_tok=chosen,
        num_labels=3,
        pad_token_id=0,
        max_position_embeddings=32,
    )
    return shaken(MixtralForSequenceClassification(small)).eval()


def test_a_prompt_of_as_many_tokens_as_there_are_examples():
    torch.manual_seed(0)
    model = prompt_tuning(4)
    assert_right(model, sentences(4), find_blocks(model))


def test_a_table_of_relative_positions_in_a_square_batch():
    torch.manual_seed(0)
    batch = {"input_ids": torch.randint(4, 60, (6, 6), generator=torch.Generator().manual_seed(1))}
    batch["input_ids"][:, -1] = 1  # each has its end
    notes = assert_right(t5(), batch, rtol=1e-5)  # (norms in float32)
    assert sum("relative_attention_bias" in note for note in notes) == 2


@pytest.mark.parametrize(("experts", "chosen", "tokens"), [(8, 2, 2), (4, 2, 4), (2, 2, 3)])
def test_experts_that_get_as_many_tokens_as_there_are_examples(experts, chosen, tokens):
    """With two of two chosen an expert gets all tokens of every batch, in another order each time."""
    torch.manual_seed(0)
    model, plan = mixtral(experts, chosen), Plan()
    for seed in range(3):
        batch = {
            "input_ids": torch.randint(4, 60, (4, tokens), generator=torch.Generator().manual_seed(seed))
        }
        assert_right(model, batch, plan=plan, rtol=1e-5)  # (routes in float32)


class Sorted(nn.Module):
    """Sorts the rows of a batch inside, as packed sequences do, and back again."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        order = x[:, 0].argsort()
        h = torch.tanh(self.inner(x[order]))
        return self.out(h[order.argsort()])


def test_rows_that_a_model_sorts_by_the_data_also_where_the_first_batch_was_sorted_already():
    model, plan = shaken(Sorted()), Plan()
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert_right(model, x[x[:, 0].argsort()], plan=plan)
    assert any("inner" in note for note in assert_right(model, x, plan=plan))


class Coupled(nn.Module):
    """Examples that depend on one another in one of several `ways`."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.norm = nn.BatchNorm1d(8, track_running_stats=False)

    def forward(self, x):
        h = self.a(x)
        if self.way == "norm":
            h = self.norm(h)
        elif self.way == "centre":
            h = h - h.mean(0)
        elif self.way == "attention":
            h = torch.softmax(h @ self.b(x).T, -1) @ x
        elif self.way == "pairs":
            h = h.view(-1, 2, 8).flip(1).reshape(-1, 8) * h
        elif self.way == "halves":
            h = h * h.roll(len(h) // 2, 0)
        elif self.way == "negatives":
            return h @ self.b(x).T
        return self.c(torch.tanh(h))


@pytest.mark.parametrize("way", ["norm", "centre", "attention", "pairs", "halves", "negatives"])
@pytest.mark.parametrize("count", [2, 4, 12])
def test_examples_that_depend_on_one_another_are_refused_by_name(way, count):
    torch.manual_seed(0)
    model = shaken(Coupled(way)).eval()
    x = torch.randn(count, 8, dtype=torch.float64)
    with pytest.raises(InputError, match="examples of a batch depend on one another"):
        estimate_fisher(model, x, blocks=find_blocks(model, by="re:^(a|b|c)"), labels="exact")
    mean = estimate_fisher(
        model, x, blocks=find_blocks(model, by="re:^(a|c)"), labels="mode", granularity="batch"
    )
    assert mean.meta["normalisation"] == "mean over batches"


class TimeOutside(nn.Module):
    """torch's default layout, `[T, N, …]` in and out, or one output for every column."""

    def __init__(self, kind, pooled):
        super().__init__()
        self.table, self.out, self.pooled = nn.Embedding(20, 8), nn.Linear(8, 4), pooled
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0)
        self.inner = nn.LSTM(8, 8) if kind == "LSTM" else nn.TransformerEncoder(layer, 1)

    def forward(self, ids):
        h = self.inner(self.table(ids))
        h = h[0] if isinstance(h, tuple) else h
        return self.out(h.mean(0) if self.pooled else h)


@pytest.mark.parametrize("kind", ["LSTM", "Transformer"])
@pytest.mark.parametrize(("pooled", "count"), [(False, 4), (False, 6), (True, 4)])
def test_a_layout_with_time_first_is_refused_by_that_name(kind, pooled, count):
    torch.manual_seed(0)
    model = shaken(TimeOutside(kind, pooled))
    ids = torch.randint(0, 20, (4, count))
    blocks = find_blocks(model, by="module")
    with pytest.raises(InputError, match=r"time first, \[T, N, …\], of which T = 4 was taken"):
        estimate_fisher(
            model, ids, blocks=blocks, labels="mc", output="classification" if pooled else "tagging"
        )


def test_an_output_for_every_column_of_the_batch_is_a_layout_with_time_first_too():
    model = shaken(TimeOutside("LSTM", True))
    blocks = find_blocks(model, by="module")
    with pytest.raises(InputError, match=r"for 6 examples .* expected 4.* time first"):
        estimate_fisher(model, torch.randint(0, 20, (4, 6)), blocks=blocks, labels="mc")


class Roughly(nn.Module):
    """A float64 model that computes a part of itself in float32: rounding is no slope."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        scores = (self.query(x) @ self.key(x).transpose(1, 2)).float().softmax(-1)
        return self.out(scores.to(x.dtype) @ x).mean(1)


def test_rounding_is_no_slope_along_a_parameter_that_cancels():
    """The bias of the keys shifts all scores of a query alike."""
    torch.manual_seed(0)
    model = shaken(Roughly())
    x = torch.randn(4, 3, 6, dtype=torch.float64)
    assert depends(lambda: model(x), [model.key.weight])
    assert not depends(lambda: model(x), [model.key.bias])


def test_a_scale_of_one_number_has_one_number_for_every_example():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.scale * x / x.square().mean(-1, keepdim=True).sqrt()

    torch.manual_seed(0)
    model = shaken(nn.Sequential(nn.Linear(4, 6), Scaled(), nn.Tanh(), nn.Linear(6, 3)))
    assert not assert_right(model, torch.randn(5, 4, dtype=torch.float64))


def test_a_temperature_without_a_dimension_has_one_number_for_every_example():
    class Tempered(nn.Module):
        def __init__(self):
            super().__init__()
            self.temperature, self.inner = nn.Parameter(torch.tensor(0.7)), nn.Linear(4, 3)

        def forward(self, x):
            return self.inner(x) * self.temperature.exp()

    torch.manual_seed(0)
    model, x = shaken(Tempered()), torch.randn(5, 4, dtype=torch.float64)
    blocks = find_blocks(model, by=lambda name, _: name)
    assert not assert_right(model, x, blocks)
    whole = estimate_fisher(model, x, blocks=blocks, labels="exact", diagonal=True, spectrum=True)
    assert whole.diagonal["temperature"].item() == pytest.approx(whole.trace["temperature"], rel=1e-9)
    assert whole.spectrum["temperature"].sum().item() == pytest.approx(whole.trace["temperature"], rel=1e-9)


def test_a_complex_parameter_is_refused_as_complex():
    class Waves(nn.Module):
        def __init__(self):
            super().__init__()
            self.waves, self.out = nn.Parameter(torch.randn(4, 4, dtype=torch.complex64)), nn.Linear(4, 3)

        def forward(self, x):
            return self.out((torch.fft.fft(x) @ self.waves).abs())

    model = Waves()
    with pytest.raises(
        InputError, match=r"'waves' of block 'waves' is complex .* leave it out of the blocks"
    ):
        estimate_fisher(model, torch.randn(5, 4), blocks=find_blocks(model, by=lambda name, _: name))
    assert estimate_fisher(model, torch.randn(5, 4), blocks=find_blocks(model, by="re:^out")).trace["out"] > 0


def test_one_column_is_no_layout_with_time_first():
    norm = nn.BatchNorm1d(2, track_running_stats=False)
    model = shaken(nn.Sequential(nn.Conv1d(1, 2, 3), norm, nn.Flatten(), nn.Linear(4, 3))).eval()
    with pytest.raises(InputError, match="examples of a batch depend on one another"):
        estimate_fisher(model, torch.randn(4, 1, 4).double(), blocks=find_blocks(model, by="module"))


def test_a_block_above_what_couples_the_examples_is_measured_in_its_batch_and_the_note_says_so():
    torch.manual_seed(0)
    model = shaken(Coupled("centre"))
    x = torch.randn(6, 8, dtype=torch.float64)
    estimate = estimate_fisher(model, x, blocks=find_blocks(model, by="re:^(c)"), labels="exact")
    log_p = functional.log_softmax(model(x), -1)
    terms = [
        sum(
            float(log_p[n, c].detach().exp())
            * sum(
                float(g.square().sum())
                for g in torch.autograd.grad(log_p[n, c], list(model.c.parameters()), retain_graph=True)
            )
            for c in range(3)
        )
        for n in range(6)
    ]
    assert estimate.trace["c"] == pytest.approx(sum(terms) / 6, rel=1e-9)
    assert any("as they are" in note for note in estimate.meta["notes"])


def test_without_the_proof_these_numbers_are_wrong(monkeypatch):
    """The guard removed: no difference is too large."""
    torch.manual_seed(0)
    model = prompt_tuning(4)
    monkeypatch.setattr(proof, "ROWS", Tolerance({}, math.inf))
    with pytest.raises(AssertionError):
        assert_right(model, sentences(4), find_blocks(model))


@pytest.mark.parametrize("count", [1, 2, 3, 8, 24, 25, 60])
def test_no_two_of_24_neighbours_weigh_the_same_in_a_proof(count):
    weights = example_weights(count, 24)
    assert len(weights) == count and (weights == 0).sum() == (count > 1)
    assert len({*weights[:24]}) == min(count, 24)
    assert all(weight == 0 or math.frexp(weight)[0] == 0.5 for weight in weights)


def test_every_parameter_that_is_used_in_some_batch_is_measured_in_it():
    """One prompt a task: which of them is used, the calls of modules do not tell."""

    class Tasks(nn.Module):
        def __init__(self):
            super().__init__()
            self.prompt = nn.ParameterDict({task: nn.Parameter(torch.zeros(8)) for task in "abc"})
            self.fc, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x, task):
            return self.head(torch.tanh(self.fc(x + self.prompt[task])))

    torch.manual_seed(0)
    model = shaken(Tasks())
    batches = [{"x": torch.randn(3, 8, dtype=torch.float64), "task": task} for task in "abc"]
    notes = assert_right(model, batches, find_blocks(model, by=lambda name, _: name))
    assert not any("does not depend" in note for note in notes)


def test_a_plan_makes_every_proof_once():
    model, batch = mad_x(), sentences()
    calls = Mock(return_value=None)
    model.register_forward_hook(calls)
    plan, counts = Plan(), []
    for _ in range(3):
        estimate_fisher(model, batch, plan=plan)
        counts.append(calls.call_count)
        calls.reset_mock()
    assert counts[0] > 1 and counts[1:] == [1, 1]
    estimate_fisher(model, sentences(4), plan=plan)
    assert calls.call_count > 1  # another shape


class Positions(nn.Module):
    """A table read without the batch, and a linear map that sees the batch, or not, or both."""

    def __init__(self, sees):
        super().__init__()
        self.sees = sees
        self.table, self.inner, self.out = nn.Embedding(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        positions = self.table(torch.arange(5).unsqueeze(0))
        if "positions" in self.sees:
            positions = torch.tanh(self.inner(positions))
        h = x + positions
        if "batch" in self.sees:
            h = torch.tanh(self.inner(h))
        return self.out(torch.tanh(h).mean(1))


@pytest.mark.parametrize("sees", [("positions",), ("batch",), ("positions", "batch")], ids=" and ".join)
@pytest.mark.parametrize("count", [4, 5])
def test_what_sees_no_example_is_followed_from_the_first_forward_pass_on(sees, count):
    torch.manual_seed(0)
    model, plan, runs = shaken(Positions(sees)), Plan(), Mock(return_value=None)
    x = torch.randn(count, 5, 8, dtype=torch.float64)
    model.register_forward_hook(runs)
    blocks = find_blocks(model, by="module")
    estimate_fisher(model, x, blocks=blocks, plan=plan)
    assert runs.call_count == (
        2 if len(sees) == 1 else 3
    )  # the probe's own, and one without the other examples
    runs.reset_mock()
    estimate = estimate_fisher(model, x, blocks=blocks, labels="exact", plan=plan)
    assert runs.call_count == 1 and not estimate.meta["notes"]
    assert_right(model, x, blocks, plan)
    assert_right(model, x, blocks)


def test_a_gradient_that_comes_in_parts_is_no_gradient_to_square(monkeypatch):
    """The sum of the parts is autograd's gradient, the sum of their squares is nothing."""
    torch.manual_seed(0)
    model = shaken(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)))
    x = torch.randn(5, 4, dtype=torch.float64)
    original = passes.Pass._reduce

    def halved(self, calls, a, g, wanted):
        original(self, calls, a, g / 2, wanted)
        original(self, calls, a, g / 2, wanted)

    monkeypatch.setattr(passes.Pass, "_reduce", halved)
    assert all("does more than its rule says" in note for note in assert_right(model, x))


def test_what_had_no_gradient_yet_is_proved_when_it_has_one():
    """LoRA's A while B is zero: at step 0 there is nothing to compare."""
    model, batch, plan = mad_x("lora"), sentences(), Plan()
    blocks = find_blocks(model)
    tables = [p for name, p in model.named_parameters() if "lora_B" in name]
    saved = [p.detach().clone() for p in tables]
    for p in tables:
        p.data.zero_()
    assert_right(model, batch, blocks, plan)
    (found,) = plan.proofs.values()
    assert found.unseen and all("lora_A" in name for name in found.unseen)
    for p, value in zip(tables, saved, strict=True):
        p.data.copy_(value)
    assert_right(model, batch, blocks, plan)
    (found,) = plan.proofs.values()
    assert not found.unseen


# -- what a leaf computes, whatever is done to it -----------------------------------------------------------------


def chain():
    torch.manual_seed(0)
    return shaken(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)))


def doubled_by_a_hook(model):
    model[2].register_forward_hook(lambda module, args, out: 2 * out)


def doubled_in_place_by_a_hook(model):
    model[2].register_forward_hook(lambda module, args, out: out.mul_(2))


def replaced_forward(model):
    inner = model[2]
    inner.forward = lambda x: 2 * functional.linear(x, inner.weight, inner.bias)


def changed_arguments(model):
    model[2].register_forward_pre_hook(lambda module, args: (args[0] * 3,))


def weight_norm(model):
    nn.utils.weight_norm(model[2])


def pruned(model):
    prune.l1_unstructured(model[2], "weight", amount=0.5)


def parametrized(model):
    nn.utils.parametrizations.weight_norm(model[2])


def backward_hook(model):
    model[2].register_full_backward_hook(lambda module, inputs, outputs: None)


@pytest.mark.parametrize(
    "change",
    [
        doubled_by_a_hook,
        doubled_in_place_by_a_hook,
        replaced_forward,
        changed_arguments,
        weight_norm,
        pruned,
        parametrized,
        backward_hook,
    ],
    ids=lambda change: change.__name__,
)
def test_a_tap_sees_what_the_leaf_itself_computed(change):
    model = chain()
    change(model)
    x = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert_right(model, x)


def test_what_a_hook_makes_of_an_output_is_no_part_of_the_leaf():
    """The tap comes before it, so that the rule holds and no example is measured alone."""
    model, plan = chain(), Plan()
    doubled_by_a_hook(model)
    x = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        assert assert_right(model, x, plan=plan) == []


class AddsInPlace(nn.Module):
    """`x += frozen(x)` is legal in training: a frozen linear map does not keep its input."""

    def __init__(self):
        super().__init__()
        self.inp, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))

    def forward(self, x):
        x = self.inp(x)
        for layer in self.layers:
            x += layer(x)
        return self.head(x)


class AddsInPlaceLater(AddsInPlace):
    """Only when it is told to, after what it does has been proved."""

    in_place = False

    def forward(self, x):
        x = self.inp(x)
        for layer in self.layers:
            if self.in_place:
                x += layer(x)
            else:
                x = x + layer(x)
        return self.head(x)


def test_an_input_that_is_changed_in_place_only_after_the_proof():
    torch.manual_seed(0)
    model, plan = shaken(AddsInPlaceLater()), Plan()
    model.in_place = False
    x = torch.randn(5, 4, dtype=torch.float64)
    blocks = find_blocks(model, by="module")
    expected = reference_fisher(model, x, blocks, labels="exact")
    for in_place in (False, False, True, True):
        model.in_place = in_place
        found = estimate_fisher(model, x, blocks=blocks, labels="exact", plan=plan)
        assert found.trace == pytest.approx(expected.trace, rel=1e-9)


def test_an_input_that_is_changed_in_place_after_the_call():
    model = shaken(AddsInPlace())
    x = torch.randn(5, 4, dtype=torch.float64)
    estimate = estimate_fisher(model, x, blocks=find_blocks(model, by="module"), labels="exact")

    class Apart(AddsInPlace):
        def forward(self, x):
            x = self.inp(x)
            for layer in self.layers:
                x = x + layer(x)
            return self.head(x)

    apart = Apart().double()
    apart.load_state_dict(model.state_dict())
    expected = reference_fisher(apart, x, find_blocks(apart, by="module"), labels="exact")
    for block, values in expected.per_example.items():
        torch.testing.assert_close(estimate.per_example[block], values, rtol=1e-9, atol=1e-14)


def test_a_sparse_table():
    class Bags(nn.Module):
        def __init__(self):
            super().__init__()
            self.bag, self.out = nn.EmbeddingBag(10, 4, sparse=True, mode="sum"), nn.Linear(4, 3)

        def forward(self, ids):
            return self.out(self.bag(ids))

    torch.manual_seed(0)
    model = shaken(Bags())
    assert_right(model, torch.randint(0, 10, (5, 3)))


# -- zero, or not measurable ----------------------------------------------------------------------------------------


class Hidden(nn.Module):
    """A layer that no gradient reaches, though the output depends on it."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.inp, self.layer, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        if self.how == "detached":
            return self.out(torch.tanh(self.layer(x)).detach() + x)
        if self.how == "no_grad":
            with torch.no_grad():
                h = self.layer(x)
            return self.out(h)
        if self.how == "checkpoint":
            return self.out(checkpoint(self.layer, x, use_reentrant=True))
        if self.how == "checkpoint above":
            return self.out(checkpoint(self.layer, self.inp(x), use_reentrant=True))
        return self.out(x) if self.how == "never" else self.out(x + 0 * self.layer(x))


@pytest.mark.filterwarnings("ignore:.*requires_grad.*")
@pytest.mark.parametrize("how", ["detached", "no_grad", "checkpoint"])
def test_zero_is_not_recorded_where_the_output_depends_on_the_block(how):
    model = shaken(Hidden(how))
    blocks = find_blocks(model, by="re:^(layer|out)")
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(
        InputError, match=r"depends on parameter 'layer\.weight' of block 'layer', but no gradient"
    ):
        estimate_fisher(model, torch.randn(4, 4, dtype=torch.float64), blocks=blocks)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_reentrant_checkpoint_above_a_block_is_refused_in_one_sentence():
    model = shaken(Hidden("checkpoint above"))
    with pytest.raises(InputError, match="use_reentrant=True"):
        estimate_fisher(model, torch.randn(4, 4, dtype=torch.float64), blocks=find_blocks(model, by="module"))


@pytest.mark.parametrize("how", ["never", "times zero"])
def test_zero_is_recorded_where_the_output_does_not_depend_on_the_block(how):
    model = shaken(Hidden(how))
    blocks = find_blocks(model, by="re:^(layer|out)")
    estimate = estimate_fisher(model, torch.randn(4, 4, dtype=torch.float64), blocks=blocks)
    assert estimate.trace["layer"] == 0 and estimate.trace["out"] > 0


def test_a_product_of_two_zeros_has_no_slope():
    """Both factors of a low-rank product at zero: the gradient is zero, and the output's change of second order."""
    model = mad_x("lora")
    for name, parameter in model.named_parameters():
        if "lora_" in name and "layer.0" in name:
            parameter.data.zero_()
    assert estimate_fisher(model, batch_for("classification"), labels="exact").trace["layer.0"] == 0


class Padded(nn.Module):
    """Reads a table at its padding row alone, which autograd never trains; `hidden`: another row too, detached."""

    def __init__(self, table, hidden=False):
        super().__init__()
        self.table, self.out, self.hidden = table, nn.Linear(4, 3), hidden

    def forward(self, x):
        h = x + self.table(torch.full((len(x), 2), 1)).sum(1)
        return self.out(h + self.table.weight[3].detach() if self.hidden else h)


class OwnLookup(nn.Embedding):
    def forward(self, ids):
        return 2 * functional.embedding(ids, self.weight, padding_idx=1)


TABLES = {
    "a table": lambda: nn.Embedding(5, 4, padding_idx=1),
    "counted from behind": lambda: nn.Embedding(5, 4, padding_idx=-4),
    "a function": lambda: OwnLookup(5, 4),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_padding_row_is_never_trained_and_zero_is_recorded_where_only_it_is_read(kind):
    model = shaken(Padded(TABLES[kind]()))
    estimate = estimate_fisher(
        model, torch.randn(4, 4, dtype=torch.float64), blocks=find_blocks(model, by="module")
    )
    assert estimate.trace["table"] == 0 and estimate.trace["out"] > 0
    assert any("table.weight: a batch reads only its padding row" in note for note in estimate.meta["notes"])


@pytest.mark.parametrize("kind", TABLES)
def test_other_rows_of_a_padded_table_count_as_ever(kind):
    model = shaken(Padded(TABLES[kind](), hidden=True))
    with pytest.raises(InputError, match=r"depends on parameter 'table\.weight'"):
        estimate_fisher(model, torch.randn(4, 4, dtype=torch.float64), blocks=find_blocks(model, by="module"))
