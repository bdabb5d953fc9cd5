"""Every rule, with every label source, for every output shape, is what plain autograd finds: float64, to
1e-9."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    XLMRobertaForSequenceClassification,
)

from fishlens import estimate_fisher, find_blocks
from fishlens.fisher import coverage, passes, reference_fisher, taps, together
from fishlens.fisher.coverage import AGAIN

from .models import batch_for, config, head, mad_x, shaken

SOURCES = [("exact", 1), ("mc", 2), ("empirical", 1), ("mode", 1)]
SHAPES = [
    "classification",
    "two classes",
    "regression",
    "multilabel",
    "multiple_choice",
    "question_answering",
    "tagging",
    "masked_lm",
    "causal_lm",
]


def assert_agrees(model, batch, blocks, labels="exact", samples=1, rtol=1e-9, **options):
    estimate = estimate_fisher(
        model, batch, blocks=blocks, labels=labels, samples=samples, diagonal=True, max_passes=999, **options
    )
    expected = reference_fisher(model, batch, blocks, labels=labels, samples=samples)
    for block in blocks:
        assert float(expected.per_example[block.name].max()) > 0, block.name
        torch.testing.assert_close(
            estimate.per_example[block.name], expected.per_example[block.name], rtol=rtol, atol=1e-14
        )
    for block in blocks:
        largest = max(float(expected.diagonal[name].max()) for name in block.parameters)
        for name in block.parameters:  # (the bias of attention's keys has gradient zero, but for rounding)
            torch.testing.assert_close(
                estimate.diagonal[name].double(), expected.diagonal[name], rtol=rtol, atol=rtol * largest
            )
    without = estimate_fisher(
        model, batch, blocks=blocks, labels=labels, samples=samples, max_passes=999, **options
    )
    for block in blocks:  # the trace is computed in ways of its own (Gram form)
        torch.testing.assert_close(
            without.per_example[block.name], expected.per_example[block.name], rtol=rtol, atol=1e-14
        )
    return estimate


CASES = [
    (kind, *source)
    for kind in SHAPES
    for source in SOURCES
    if (kind, source[0]) != ("regression", "mode")  # refused: zero for every model
]


@pytest.mark.parametrize(("kind", "labels", "samples"), CASES)
def test_the_blocks_of_a_task_adapter(kind, labels, samples):
    model = mad_x("seq_bn", None if kind == "classification" else head(kind))
    estimate = assert_agrees(model, batch_for(kind), find_blocks(model), labels, samples)
    assert estimate.meta["output"] == kind.replace("two classes", "classification")
    assert estimate.meta["notes"] == []
    if (kind, labels) == ("two classes", "exact"):
        assert estimate.meta["passes"] == 1


def bert(cls, **changes):
    torch.manual_seed(0)
    small = BertConfig(
        vocab_size=12,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=10,
        **changes,
    )
    return shaken(cls(small)).eval()


STATIC = [
    ("classification", BertForSequenceClassification, {"num_labels": 3}),
    (
        "multilabel",
        BertForSequenceClassification,
        {"num_labels": 3, "problem_type": "multi_label_classification"},
    ),
    ("regression", BertForSequenceClassification, {"num_labels": 1}),
    ("multiple_choice", BertForMultipleChoice, {}),
    ("question_answering", BertForQuestionAnswering, {}),
    ("tagging", BertForTokenClassification, {"num_labels": 3}),
    ("masked_lm", BertForMaskedLM, {}),
]


@pytest.mark.parametrize(("kind", "cls", "changes"), STATIC, ids=[kind for kind, _, _ in STATIC])
@pytest.mark.parametrize(("labels", "samples"), [("mc", 1), ("empirical", 1)])
def test_all_layers_and_the_embeddings_of_a_model_without_adapters(kind, cls, changes, labels, samples):
    """Position embeddings of leading dimension 1, and (masked LM) a table that is also the decoder's
    weight."""
    model = bert(cls, **changes)
    blocks = find_blocks(model, embeddings=True)
    everything = {id(p) for block in blocks for p in block.parameters.values()}
    assert everything == {id(p) for p in model.parameters()}
    estimate = assert_agrees(model, batch_for(kind, vocabulary=12), blocks, labels, samples)
    assert not [note for note in estimate.meta["notes"] if "one example at a time" in note]


def test_gpt2_with_conv1d_and_a_tied_decoder():
    torch.manual_seed(0)
    small = GPT2Config(vocab_size=12, n_embd=8, n_layer=2, n_head=2, n_positions=10)
    model = shaken(GPT2LMHeadModel(small)).eval()
    blocks = find_blocks(model, embeddings=True)
    table = {row.parameter: row.rule for row in coverage(model, blocks)}
    assert table["transformer.h.0.attn.c_attn.weight"] == "conv1d"
    assert table["transformer.wte.weight"] == "embedding + linear"
    estimate = assert_agrees(model, batch_for("causal_lm", vocabulary=12), blocks, "mc")
    assert estimate.meta["output"] == "causal_lm"


def test_albert_runs_one_layer_many_times():
    torch.manual_seed(0)
    small = AlbertConfig(
        vocab_size=12,
        embedding_size=6,
        hidden_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=10,
        num_labels=3,
    )
    model = shaken(AlbertForSequenceClassification(small)).eval()
    assert_agrees(model, batch_for("classification", vocabulary=12), find_blocks(model, by="layer"))


@pytest.mark.parametrize("task", ["seq_bn", "double_seq_bn", "par_bn", "lora"])
def test_the_layers_under_a_stack_of_adapters_whose_norms_run_more_than_once(task):
    model = mad_x(task)
    blocks = find_blocks(model, by="layer", embeddings=True)
    estimate = assert_agrees(model, batch_for("classification"), blocks, "mc")
    assert estimate.meta["notes"] == []


def test_a_language_adapter_with_invertible_layers():
    model = mad_x("seq_bn")
    assert_agrees(model, batch_for("classification"), find_blocks(model, adapter="en"), "mc")


def test_lora_of_peft():
    torch.manual_seed(0)
    base = XLMRobertaForSequenceClassification(config(num_labels=3))
    model = get_peft_model(
        base, LoraConfig(r=2, target_modules=["query", "value"], task_type="SEQ_CLS", lora_dropout=0.1)
    )
    model = shaken(model).eval()
    blocks = find_blocks(model)
    assert [block.name for block in blocks] == ["layer.0", "layer.1", "head"]
    assert all(".lora_" in name for block in blocks[:-1] for name in block.parameters)
    estimate = assert_agrees(model, batch_for("classification"), blocks)
    assert estimate.meta["notes"] == []
    assert_agrees(model, batch_for("classification"), find_blocks(model, by="layer"), "mc")


class Odd(nn.Module):
    """Raw parameters, a weight that is read behind its module's back, a module that is never called, a
    keyword call."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(12, 6, padding_idx=1)
        self.scale = nn.Parameter(torch.ones(6))
        self.keyword = nn.Linear(6, 6)
        self.behind = nn.Linear(6, 6, bias=False)
        self.never = nn.Linear(6, 6)
        self.conv = nn.Conv1d(6, 6, 3, padding=1)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.out = nn.Linear(6, 3)

    def forward(self, input_ids):
        h = self.keyword(input=self.embed(input_ids) * self.scale)
        h = h + torch.tanh(self.behind(h)) + h @ self.behind.weight
        h = h + self.conv(h.transpose(1, 2)).transpose(1, 2)
        h = h + self.attention(h, h, h, need_weights=False)[0]
        return self.out(h.mean(1))


def odd():
    torch.manual_seed(0)
    return shaken(Odd()).eval()


def test_what_no_rule_covers_is_measured_by_running_its_module_again_and_said_so():
    model = odd()
    ids = torch.tensor([[4, 5, 5, 1], [6, 1, 7, 7], [8, 9, 10, 11]])
    blocks = [
        block for block in find_blocks(model, by=lambda name, _: name.split(".")[0]) if block.name != "never"
    ]
    estimate = assert_agrees(model, {"input_ids": ids}, blocks)
    assert not estimate.meta["notes"]
    table = {row.parameter: row.rule for row in coverage(model, blocks, {"input_ids": ids})}
    assert {name for name, rule in table.items() if rule == AGAIN} == {
        "attention.in_proj_weight",
        "attention.in_proj_bias",
        "attention.out_proj.weight",
        "attention.out_proj.bias",
    }


def test_a_parameter_that_the_output_ignores_has_zero_fisher_and_a_note():
    model = odd()
    blocks = find_blocks(model, by=lambda name, _: name.split(".")[0])
    estimate = estimate_fisher(model, {"input_ids": torch.full((2, 4), 5)}, blocks=blocks, diagonal=True)
    assert estimate.trace["never"] == 0
    assert not estimate.diagonal["never.weight"].any()
    notes = [note for note in estimate.meta["notes"] if note.startswith("never")]
    assert len(notes) == 2 and all("does not depend" in note for note in notes)
    table = {r.parameter: r.rule for r in coverage(model, blocks, {"input_ids": torch.full((2, 4), 5)})}
    assert table["never.weight"].startswith("unused")


def test_a_leaf_whose_output_is_changed_in_place():
    model = shaken(nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)))
    x = torch.randn(5, 4, dtype=torch.float64)
    estimate = assert_agrees(model, x, find_blocks(model, by="module"))
    assert estimate.meta["notes"] == []


@pytest.mark.parametrize("room", [0, 200])
def test_gradients_that_are_asked_for_at_once_or_handed_on_one_by_one_are_the_same(monkeypatch, room):
    """`room`: of four outputs of 160 and 96 bytes none fits, or only the first of each forward pass."""
    torch.manual_seed(0)
    layers = (nn.Linear(4, 5), nn.ReLU(inplace=True), nn.LayerNorm(5), nn.Linear(5, 5), nn.Linear(5, 3))
    model, x = nn.Sequential(*layers).double(), torch.randn(4, 4, dtype=torch.float64)
    blocks = find_blocks(model, by="module")
    usual = estimate_fisher(model, x, blocks=blocks, labels="exact", diagonal=True)
    monkeypatch.setattr(taps, "small_on", lambda device: room)
    monkeypatch.setattr(taps, "MOST_WAITING", 1)
    handed_on = estimate_fisher(model, x, blocks=blocks, labels="exact", diagonal=True)
    by_autograd = reference_fisher(model, x, blocks=blocks, labels="exact")
    for found in (usual, handed_on):
        assert found.meta["notes"] == []
        for name, values in by_autograd.diagonal.items():
            torch.testing.assert_close(found.diagonal[name], values, rtol=1e-12, atol=0)


@pytest.mark.parametrize("sizes", [(2, 5, 3), (5, 2, 2, 5)])
def test_batches_whose_calls_go_together_in_other_groups_add_up_to_the_same(monkeypatch, sizes):
    """Of a batch of 5, each call is too large to wait for the others; of a smaller one, three layers go together."""
    torch.manual_seed(0)
    layers = [layer for _ in range(3) for layer in (nn.Linear(6, 6), nn.Tanh())]
    model = nn.Sequential(*layers, nn.Linear(6, 3)).double()
    unused = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    model.register_parameter("unused", unused)
    blocks, x = find_blocks(model, by="module"), torch.randn(sum(sizes), 6, dtype=torch.float64)
    monkeypatch.setitem(together.SMALL, "cpu", 900)
    kinds = set()

    def counted(calls, *rest, **options):
        groups = grouped(calls, *rest, **options)
        kinds.add(tuple(map(len, groups)))
        return groups

    grouped = together.grouped
    monkeypatch.setattr(passes, "grouped", counted)
    found = estimate_fisher(model, iter(x.split(list(sizes))), blocks=blocks, labels="exact", diagonal=True)
    assert {(1, 1, 1, 1), (3, 1)} <= kinds
    by_autograd = reference_fisher(model, x, blocks=blocks, labels="exact")
    for name, values in by_autograd.diagonal.items():
        torch.testing.assert_close(found.diagonal[name], values, rtol=1e-12, atol=1e-18)
    assert found.diagonal["unused"].count_nonzero() == 0 and list(found.diagonal) == list(
        by_autograd.diagonal
    )
    for block, names in found.parameters.items():
        d = torch.cat([by_autograd.diagonal[name].flatten() for name in names])
        expected = float(d.sum() ** 2 / d.square().sum())
        assert found.effective_dimension[block] == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_a_wrapped_model_is_measured_itself():
    model, batch = mad_x(), batch_for("classification")
    wrapped = nn.DataParallel(model)
    assert [b.name for b in find_blocks(wrapped)] == ["layer.0", "layer.1", "head"]
    assert estimate_fisher(wrapped, batch).trace == estimate_fisher(model, batch).trace


@pytest.mark.parametrize("memory", [1, 3000])
def test_a_memory_bound_cuts_the_examples_into_chunks_and_changes_nothing(memory):
    model = mad_x("seq_bn")
    for by in ("adapter", "layer"):
        assert_agrees(model, batch_for("classification"), find_blocks(model, by=by), "mc", memory=memory)


def test_float32_agrees_to_1e_4():
    model = mad_x("seq_bn").float()
    assert_agrees(model, batch_for("classification"), find_blocks(model), rtol=1e-4)
    assert_agrees(model, batch_for("classification"), find_blocks(model, by="layer"), "mc", rtol=1e-4)


def test_autocast_squares_in_float32():
    """bfloat16 has eight bits of mantissa: the estimate is near the float32 one, and its tensors are
    float32."""
    model, batch = mad_x("seq_bn").float(), batch_for("classification", count=6)
    wide = estimate_fisher(model, batch, labels="exact")
    narrow = estimate_fisher(model, batch, labels="exact", autocast=torch.bfloat16, diagonal=True)
    assert all(d.dtype == torch.float32 for d in narrow.diagonal.values())
    assert "bfloat16" in narrow.meta["dtype"]
    for block, trace in wide.trace.items():
        assert narrow.trace[block] == pytest.approx(trace, rel=0.1)
    with torch.autocast("cpu", torch.bfloat16):  # the caller's own context reaches the forward pass alone
        inside = estimate_fisher(model, batch, labels="exact", diagonal=True)
    assert inside.trace == narrow.trace
