"""estimate_fisher against sums over labels by plain autograd, in float64."""

import pytest
import torch
from torch.nn import functional

from fishlens import InputError, estimate_fisher, find_blocks
from fishlens.fisher import merge

from .models import mad_x, sentences

EXACTLY = {"rtol": 1e-9, "atol": 0.0}


def scores(model, batch, parameters):
    """(n, y, p(y | x_n), ∇ log p(y | x_n)) of a classifier, one example and one label at a time."""
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    flags = [p.requires_grad for p in parameters]
    for p in parameters:
        p.requires_grad_(True)
    for n in range(len(batch["input_ids"])):
        logits = model(**{k: v[n : n + 1] for k, v in inputs.items()}).logits[0]
        log_p = functional.log_softmax(logits, -1)
        for y in range(len(log_p)):
            gradient = torch.autograd.grad(log_p[y], parameters, retain_graph=True)
            yield n, y, float(log_p[y].detach().exp()), gradient
    for p, flag in zip(parameters, flags, strict=True):
        p.requires_grad_(flag)


@pytest.mark.parametrize("task", ["seq_bn", "double_seq_bn", "par_bn", "lora"])
def test_exact_is_the_expectation_over_the_models_own_labels(task):
    model, batch = mad_x(task), sentences()
    blocks = find_blocks(model)
    estimate = estimate_fisher(model, batch, blocks=blocks, labels="exact", diagonal=True)
    for block in blocks:
        names, parameters = list(block.parameters), list(block.parameters.values())
        expected = [torch.zeros_like(p) for p in parameters]
        per_example = torch.zeros(5, dtype=torch.float64)
        for n, _, p, gradient in scores(model, batch, parameters):
            for total, g in zip(expected, gradient, strict=True):
                total += p * g.square() / 5
                per_example[n] += p * g.square().sum()
        torch.testing.assert_close(estimate.per_example[block.name], per_example, **EXACTLY)
        for name, diagonal in zip(names, expected, strict=True):
            torch.testing.assert_close(estimate.diagonal[name], diagonal.detach(), rtol=1e-9, atol=1e-15)
        trace = float(per_example.mean())
        assert estimate.trace[block.name] == pytest.approx(trace, rel=1e-9)
        assert estimate.stderr[block.name] == pytest.approx(float(per_example.std()) / 5**0.5, rel=1e-9)
    assert estimate.meta["notes"] == []
    assert estimate.meta["passes"] == 2


@pytest.mark.parametrize(("labels", "choose"), [("empirical", "given"), ("mode", "likely")])
def test_empirical_and_mode_square_the_gradient_of_one_label(labels, choose):
    model, batch = mad_x(), sentences()
    blocks = find_blocks(model)
    estimate = estimate_fisher(model, batch, blocks=blocks, labels=labels)
    for block in blocks:
        found = list(scores(model, batch, list(block.parameters.values())))
        for n in range(5):
            of_n = [(y, p, sum(float(g.square().sum()) for g in grads)) for m, y, p, grads in found if m == n]
            likely = max(of_n, key=lambda item: item[1])[0]
            wanted = int(batch["labels"][n]) if choose == "given" else likely
            assert float(estimate.per_example[block.name][n]) == pytest.approx(of_n[wanted][2], rel=1e-9)


def cut(batch, *sizes):
    start = 0
    for size in sizes:
        yield {k: v[start : start + size] for k, v in batch.items()}
        start += size


@pytest.mark.parametrize("labels", ["exact", "mc", "empirical", "mode"])
def test_an_estimate_does_not_depend_on_how_the_examples_are_cut_into_batches(labels):
    model, batch = mad_x(), sentences()
    whole = estimate_fisher(model, batch, labels=labels, diagonal=True)
    split = estimate_fisher(model, cut(batch, 2, 2, 1), labels=labels, diagonal=True)
    parts = [
        estimate_fisher(model, part, labels=labels, diagonal=True, first_example=first)
        for part, first in zip(cut(batch, 3, 2), (0, 3), strict=True)
    ]
    for other in (split, merge(parts)):
        assert other.examples == 5
        for block in whole.trace:
            torch.testing.assert_close(other.per_example[block], whole.per_example[block], **EXACTLY)
            assert other.stderr[block] == pytest.approx(whole.stderr[block], rel=1e-9)
        for name, diagonal in whole.diagonal.items():
            torch.testing.assert_close(other.diagonal[name], diagonal, rtol=1e-9, atol=1e-15)


def test_a_frozen_block_is_measured_too():
    model, batch = mad_x(), sentences()
    thawed = estimate_fisher(model, batch)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    frozen = estimate_fisher(model, batch)
    assert frozen.trace == thawed.trace
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": "true"}, "labels='true' is unknown"),
        ({"output": "ranking"}, "output='ranking' is unknown"),
        ({"granularity": "token"}, "granularity='token'"),
        ({"labels": "exact", "granularity": "batch"}, "granularity='batch'"),
        ({"preset": "paper"}, "preset='paper'"),
        ({"samples": 0}, "samples=0"),
        ({"labels": "exact", "samples": 3}, "only 'mc' draws samples"),
        ({"seed": -1}, "seed=-1"),
        ({"mode": "test"}, "mode='test'"),
        ({"blocks": []}, "no block"),
    ],
)
def test_a_choice_that_does_not_exist_is_refused_in_one_sentence(change, says):
    with pytest.raises(InputError, match=says):
        estimate_fisher(mad_x(), sentences(), **change)


def test_bad_data_is_refused_in_one_sentence():
    model, batch = mad_x(), sentences()
    with pytest.raises(InputError, match="data has no batches"):
        estimate_fisher(model, [])
    with pytest.raises(InputError, match="no input tensor"):
        estimate_fisher(model, {"labels": batch["labels"]})
    with pytest.raises(InputError, match="batch 1 is out of the range"):
        estimate_fisher(model, batch | {"labels": batch["labels"] + 7}, labels="empirical")
    with pytest.raises(InputError, match="needs the data's labels"):
        estimate_fisher(model, {"input_ids": batch["input_ids"]}, labels="empirical")
    with torch.no_grad():
        next(model.heads["task"].parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match="logits of batch 1 are not finite"):
        estimate_fisher(model, batch)
