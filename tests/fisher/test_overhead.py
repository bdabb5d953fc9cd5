"""What a probe costs where launching operations is the cost: counts, which are the same on every machine."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification

from fishlens import Tracker, estimate_fisher, find_blocks
from fishlens.fisher import Plan, transfer

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture
def overhead(monkeypatch):
    pytest.importorskip("adapters")
    monkeypatch.syspath_prepend(BENCHMARKS)
    for name in ("overhead", "fisher", "fisher_contenders"):  # `fisher` is a folder of tests, too
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("overhead")


@pytest.mark.parametrize("trained", ["seq_bn", "lora", "full", "decoder"])
def test_a_probe_dispatches_hardly_more_operations_than_a_training_step_and_waits_twice(overhead, trained):
    with overhead.calls(overhead.tiny(trained)) as named:
        counts = {name: overhead.counted(call) for name, call in named.items()}
    plain = counts.pop("plain")
    idle = counts.pop("Tracker step without one")
    assert (idle.operations.total(), idle.waits.total(), idle.storages) == (0, 0, 0)
    bounds = {
        "mc, trace": 1.15,
        "mc, trace + diagonal": 1.15,
        "exact (3 classes), trace + diagonal": 1.6,
        "Tracker step with a probe (mc)": 1.3,
    }
    for name, found in counts.items():
        assert found.operations.total() <= bounds[name] * plain.operations.total(), name
        assert found.waits.total() - plain.waits.total() <= 2, name


@pytest.mark.parametrize("labels", ["mc", "exact"])
def test_a_proof_costs_at_most_three_percent_of_fifty_probes(overhead, labels):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=500,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=512,
        max_position_embeddings=64,
        num_labels=3,
    )
    model = BertForSequenceClassification(config).eval()
    ids = torch.randint(4, 500, (16, 64))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    blocks = find_blocks(model, by="layer")
    plans = iter([Plan()] * 2 + [Plan()] * 2)

    def probe():
        estimate_fisher(model, batch, blocks=blocks, labels=labels, diagonal=True, plan=next(plans))

    operations = []
    for _ in range(2):
        counts = overhead.Counts()
        with overhead.Operations(counts):
            probe()
        operations.append(counts.operations.total())
    flops = []
    for _ in range(2):
        with FlopCounterMode(display=False) as counter:
            probe()
        flops.append(counter.get_total_flops())
    for first, later in (operations, flops):
        assert 0 < first - later <= 0.03 * 50 * later


class NoFloat64(TorchDispatchMode):
    """A device that refuses float64, as Apple's does."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.is_view or "lift_fresh" in str(func):  # a result that the host has as numpy
            return result
        if any(isinstance(t, torch.Tensor) and t.dtype == torch.float64 for t in tree_leaves(result)):
            raise TypeError(f"{func}: this device has no float64")
        return result


def probed(model, batch, blocks, **options):
    """An estimate, and what a tracker's records of two probes have beside it."""
    estimate = estimate_fisher(model, batch, blocks=blocks, diagonal=True, **options)
    records = []
    data = batch if options["labels"] == "empirical" else {"en": batch, "de": batch}
    tracker = Tracker(model, data, blocks=blocks, every=1, **options)
    describe = tracker._records.fields

    def described(*args):
        records.append(describe(*args))
        return records[-1]

    tracker._records.fields = described
    for step in range(2):
        tracker.step(step)
    assert tracker.trouble is None
    return estimate, records


@pytest.mark.parametrize("labels", ["exact", "mc", "empirical"])
@pytest.mark.parametrize("output", ["classification", "regression"])
def test_nothing_on_a_device_without_float64_asks_for_it(monkeypatch, labels, output):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    blocks, x = find_blocks(model, by="module"), torch.randn(6, 4)
    y = torch.tensor([0, 1, 2, 0, 1, 2]) if output == "classification" else torch.randn(6, 3)
    options = {"labels": labels, "output": output}
    wide, records = probed(model, (x, y), blocks, **options)
    monkeypatch.setattr(transfer, "has_float64", lambda device: False)
    with NoFloat64():
        narrow, narrow_records = probed(model, (x, y), blocks, **options)
        if labels == "empirical":
            scale = estimate_fisher(model, (x, y), blocks=blocks, noise_scale=True, **options).noise_scale
    assert narrow.trace == pytest.approx(wide.trace, rel=1e-6)
    assert narrow.effective_dimension == pytest.approx(wide.effective_dimension, rel=1e-5)
    if labels == "empirical":
        known = estimate_fisher(model, (x, y), blocks=blocks, noise_scale=True, **options).noise_scale
        assert scale == pytest.approx(known, rel=1e-4)
    for one, other in zip(records, narrow_records, strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() & {"weight_norm", "overlap", "rank_overlap", "drift"}:
            assert one[key] == pytest.approx(other[key], rel=1e-4, nan_ok=True)


def test_what_is_fetched_keeps_every_bit_and_its_shape():
    tree = {
        "a": [torch.tensor(2**53 + 1), torch.tensor([[True, False]])],
        "b": (torch.tensor([0.1], dtype=torch.float64), torch.zeros(0, 3), None),
        "c": torch.tensor([1.5], dtype=torch.bfloat16),
    }
    found = transfer.fetched(tree)
    assert found["a"][0] == 2**53 + 1 and found["a"][1].tolist() == [[True, False]]
    assert found["b"][0][0] == 0.1 and found["b"][1].shape == (0, 3) and found["b"][2] is None
    assert found["c"].tolist() == [1.5]
