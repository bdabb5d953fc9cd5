"""A checksum of weights: every entry counts, and where it stands."""

import pytest
import torch
from torch import nn

from fishlens.fisher.fingerprint import weights_of
from fishlens.fisher.walk import walked_once

KINDS = {
    "float32": torch.linspace(1, 2, 15).view(3, 5),
    "float64": torch.linspace(1, 2, 4, dtype=torch.float64),
    "float16": torch.linspace(1, 2, 7).half(),
    "bfloat16": torch.linspace(1, 2, 3).bfloat16(),
    "whole": torch.tensor([1, 2, 3]),
    "bytes": torch.tensor([1, 2, 3], dtype=torch.int8),
    "flags": torch.tensor([True, False, True, True, False]),
    "imaginary": torch.tensor([1 + 2j, 3 + 4j]),
    "large": torch.linspace(1, 2, 90_000),
}


def model():
    module = nn.Module()
    for name, values in KINDS.items():
        module.register_buffer(f"of_{name}", values.clone())
    module.register_buffer("of_view", torch.linspace(1, 2, 9)[1:4])
    module.register_buffer("sparse", torch.eye(2).to_sparse())
    module.register_buffer("empty", torch.zeros(0))
    return module


@pytest.mark.parametrize("kind", [*KINDS, "view"])
def test_one_other_entry_is_another_checksum(kind):
    module = model()
    before = weights_of(module, 0)
    assert before.same_as(weights_of(module, 0))
    entries = getattr(module, f"of_{kind}").view(-1)
    entries.data.copy_(torch.cat([~entries[:1] if kind == "flags" else entries[:1] + 1, entries[1:]]))
    assert not before.same_as(weights_of(module, 0))


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.data.double(),
        lambda p: p.data.half(),
        lambda p: torch.cat([p.data, torch.zeros(3, 7)]),
        lambda p: p.data[:2].clone(),
        lambda p: torch.zeros(0),
    ],
)
def test_tensors_that_change_their_kind_change_the_checksum(change):
    """How they are grouped is kept with the model's tree."""
    module = nn.Linear(7, 5)
    with walked_once(module):
        before = weights_of(module, 0)
        module.weight.data = change(module.weight)
        after = weights_of(module, 0)
        assert not before.same_as(after) and after.same_as(weights_of(module, 0))


@pytest.mark.parametrize("size", [8, 768, 4096, 50_000])
def test_tensors_of_one_size_that_change_places_change_the_checksum(size):
    module = nn.Module()
    for name in "ab":
        module.register_buffer(name, torch.randn(size, dtype=torch.float64))
    before = weights_of(module, 0)
    a = module.a.clone()
    module.a.data.copy_(module.b)
    module.b.data.copy_(a)
    assert not before.same_as(weights_of(module, 0))


@pytest.mark.parametrize("kind", [kind for kind in (*KINDS, "view") if kind != "large"])
def test_the_same_entries_in_another_order_are_another_checksum(kind):
    module = model()
    before = weights_of(module, 0)
    entries = getattr(module, f"of_{kind}").view(-1)
    entries.data.copy_(entries.flip(0))
    assert not before.same_as(weights_of(module, 0))
