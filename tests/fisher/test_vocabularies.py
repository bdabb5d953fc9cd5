"""A vocabulary of 256 thousand: beside the model's own logits, one tensor of their size is made and no other."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fishlens import InputError, estimate_fisher, find_blocks
from fishlens.fisher import Plan, distributions

from .architectures import tiny

EXAMPLES, TOKENS, WORDS = 3, 6, 4200  # certainty takes up to 4096 classes


class Large(TorchDispatchMode):
    """Which operations make a storage of as many bytes as the logits have, or more."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        before = {
            t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)
        }
        made = [t.untyped_storage() for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        size = 4 * EXAMPLES * TOKENS * WORDS
        self.made += [str(func) for store in made if store._cdata not in before and store.nbytes() >= size]
        return result


def decoder():
    model = tiny("Llama", "ForCausalLM", vocab_size=WORDS)
    ids = torch.randint(1, WORDS, (EXAMPLES, TOKENS), generator=torch.Generator().manual_seed(1))
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


@pytest.mark.parametrize("labels", ["mc", "empirical"])
def test_one_tensor_of_the_size_of_the_logits_is_made(monkeypatch, labels):
    monkeypatch.setattr(distributions, "AT_ONCE", 2 * WORDS)
    model, batch = decoder()
    blocks, plan = find_blocks(model, by="layer", head=False), Plan()
    estimate_fisher(model, batch, blocks=blocks, labels=labels, plan=plan)
    with Large() as large:
        estimate_fisher(model, batch, blocks=blocks, labels=labels, diagonal=True, plan=plan)
    assert len(large.made) == 2, large.made  # the model's own, and the cotangent


@pytest.mark.parametrize("at_once", [1, 2 * WORDS, 7 * WORDS, 13 * WORDS])
def test_what_is_drawn_and_measured_is_the_same_in_parts(monkeypatch, at_once):
    model, batch = decoder()
    blocks = find_blocks(model, by="layer", head=False)
    whole = estimate_fisher(model, batch, blocks=blocks, labels="mc", samples=2)
    monkeypatch.setattr(distributions, "AT_ONCE", at_once)
    parts = estimate_fisher(model, batch, blocks=blocks, labels="mc", samples=2)
    assert parts.trace == whole.trace


def test_the_last_token_predicts_nothing():
    model, batch = decoder()
    blocks = find_blocks(model, by="layer", head=False)
    found = estimate_fisher(model, batch, blocks=blocks, labels="empirical")
    other = {**batch, "labels": batch["labels"].clone()}
    other["labels"][:, 0] = 5  # predicted from nothing
    assert estimate_fisher(model, other, blocks=blocks, labels="empirical").trace == found.trace
    with pytest.raises(InputError, match="leaves nothing to predict"):
        estimate_fisher(model, {"input_ids": batch["input_ids"][:, :1]}, blocks=blocks, labels="mc")
