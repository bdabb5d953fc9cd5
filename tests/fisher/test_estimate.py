"""FisherEstimate: what follows from per-example gradients, and merging."""

import copy
import math

import pytest
import torch
from torch.nn import functional

from fishlens import InputError, estimate_fisher, find_blocks
from fishlens.fisher import merge

from .models import batch_for, head, mad_x, sentences


def gradients(model, batch, block, label_of=None):
    """The matrix of ∇ log p(y_n | x_n), one row per example, of the data's labels (or of `label_of`)."""
    rows = []
    for n in range(len(batch["labels"])):
        logits = model(
            input_ids=batch["input_ids"][n : n + 1], attention_mask=batch["attention_mask"][n : n + 1]
        ).logits
        y = batch["labels"][n] if label_of is None else label_of(logits[0])
        found = torch.autograd.grad(functional.log_softmax(logits[0], -1)[y], list(block.parameters.values()))
        rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows)


def test_the_noise_scale_is_the_trace_of_the_covariance_over_the_squared_mean():
    model, batch = mad_x(), sentences(8)
    blocks = find_blocks(model)
    estimate = estimate_fisher(model, batch, blocks=blocks, labels="empirical", noise_scale=True)
    for block in blocks:
        rows = gradients(model, batch, block)
        noise = float(rows.var(0, correction=1).sum())
        signal = float(rows.mean(0).square().sum()) - noise / len(rows)
        expected = noise / signal if signal > 0 else math.inf
        assert estimate.noise_scale[block.name] == pytest.approx(expected, rel=1e-9)


def test_the_noise_scale_of_merged_parts_is_that_of_the_whole():
    model, batch = mad_x(), sentences(8)
    options = {"labels": "empirical", "noise_scale": True, "diagonal": True}
    whole = estimate_fisher(model, batch, **options)
    parts = [
        estimate_fisher(model, {k: v[cut] for k, v in batch.items()}, **options)
        for cut in (slice(0, 5), slice(5, 8))
    ]
    merged = merge(parts)
    assert merged.noise_scale == pytest.approx(whole.noise_scale, rel=1e-9)
    assert merged.effective_dimension == pytest.approx(whole.effective_dimension, rel=1e-9)
    assert merged.stderr == pytest.approx(whole.stderr, rel=1e-9)


def test_the_effective_dimension_is_one_for_one_large_entry_and_n_for_n_equal_ones():
    model = mad_x()
    blocks = find_blocks(model)
    estimate = estimate_fisher(model, sentences(), blocks=blocks, diagonal=True)
    for block in blocks:
        d = torch.cat([estimate.diagonal[name].flatten() for name in block.parameters])
        expected = float(d.sum() ** 2 / d.square().sum())
        assert estimate.effective_dimension[block.name] == pytest.approx(expected, rel=1e-9)
        assert 1 <= expected <= block.size
    assert estimate_fisher(model, sentences(), blocks=blocks).effective_dimension is None


@pytest.mark.parametrize("labels", ["exact", "empirical"])
def test_the_spectrum_holds_the_eigenvalues_of_the_whole_fisher_of_a_block(labels):
    model, batch = mad_x(), sentences(4)
    blocks = find_blocks(model)
    estimate = estimate_fisher(model, batch, blocks=blocks, labels=labels, spectrum=True)
    for block in blocks:
        if labels == "empirical":
            rows = gradients(model, batch, block)
            fisher = rows.T @ rows / 4
        else:
            fisher = torch.zeros(block.size, block.size, dtype=torch.float64)
            for n in range(4):
                one = {k: v[n : n + 1] for k, v in batch.items()}
                for y in range(3):
                    row = gradients(model, one, block, label_of=lambda z, y=y: y)[0]
                    p = (
                        model(input_ids=one["input_ids"], attention_mask=one["attention_mask"])
                        .logits[0]
                        .softmax(-1)
                    )
                    fisher += float(p[y].detach()) * torch.outer(row, row) / 4
        expected = torch.linalg.eigvalsh(fisher).flip(0)
        found = estimate.spectrum[block.name]
        largest = float(expected[0])
        torch.testing.assert_close(found, expected[: len(found)], rtol=1e-8, atol=1e-12 * largest)
        assert float(expected[len(found) :].abs().sum()) < 1e-12 * largest
        assert float(found.sum()) == pytest.approx(estimate.trace[block.name], rel=1e-9)


def test_a_spectrum_over_several_batches_is_that_of_all_their_examples():
    model, batch = mad_x(), sentences(5)
    whole = estimate_fisher(model, batch, labels="exact", spectrum=True).spectrum
    parts = [{k: v[:3] for k, v in batch.items()}, {k: v[3:] for k, v in batch.items()}]
    for block, values in estimate_fisher(model, parts, labels="exact", spectrum=True).spectrum.items():
        torch.testing.assert_close(values, whole[block], rtol=1e-8, atol=1e-13 * float(values[0]))


def test_a_spectrum_that_does_not_fit_is_refused_with_its_size():
    with pytest.raises(InputError, match="keeps every gradient"):
        estimate_fisher(mad_x(), sentences(), spectrum=True, memory=1000)


def published_code(model, batches, parameters):
    """The published loop in plain words: the mean loss of the argmax labels, its squared gradient / N, summed."""
    model = copy.deepcopy(model).eval()
    named = dict(model.named_parameters())
    fims = {name: torch.zeros_like(named[name]) for name in parameters}
    for p in named.values():
        p.requires_grad_(True)
    for step, batch in enumerate(batches):
        model.zero_grad()
        result = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        logits = getattr(result, "logits", None)
        if logits is None:
            logits = torch.cat([result.start_logits, result.end_logits], dim=0)
        label = logits.max(1)[1].detach()
        functional.nll_loss(functional.log_softmax(logits, dim=1), label).backward()
        for name in parameters:
            fims[name] += named[name].grad ** 2 / len(batch["input_ids"])
        if step > 39:
            break
    return fims


@pytest.mark.parametrize("kind", ["classification", "multiple_choice", "question_answering"])
def test_the_preset_published_is_what_the_published_code_computes(kind):
    model = mad_x("seq_bn", None if kind == "classification" else head(kind))
    blocks = find_blocks(model)
    batches = [batch_for(kind, seed=seed) for seed in range(43)]
    estimate = estimate_fisher(model, batches, blocks=blocks, preset="published", diagonal=True)
    fims = published_code(model, batches, list(estimate.diagonal))
    for block in blocks:
        expected = sum(float(fims[name].sum()) for name in block.parameters)
        assert estimate.trace[block.name] == pytest.approx(expected, rel=1e-9)
    for name, fim in fims.items():
        torch.testing.assert_close(estimate.diagonal[name], fim, rtol=1e-9, atol=1e-18)
    assert estimate.meta["batches"] == 41
    assert (estimate.meta["labels"], estimate.meta["granularity"]) == ("mode", "batch")
    with pytest.raises(InputError, match="sums over batches"):
        merge([estimate, estimate])


def test_the_preset_published_is_refused_where_the_published_code_means_nothing():
    model = mad_x("seq_bn", head("tagging"))
    with pytest.raises(InputError, match="not defined for tagging"):
        estimate_fisher(model, batch_for("tagging"), preset="published")


def test_the_batch_granularity_keeps_the_terms_between_examples():
    """‖1/N Σ s_n‖²/N: with equal examples it is the per-example Fisher over N, and never the same
    quantity."""
    model, one = mad_x(), sentences(1)
    four = {k: v.expand(4, *v.shape[1:]) for k, v in one.items()}
    per_example = estimate_fisher(model, four, labels="empirical").trace
    batch = estimate_fisher(model, four, labels="empirical", granularity="batch").trace
    assert batch == pytest.approx({block: trace / 4 for block, trace in per_example.items()}, rel=1e-9)


def test_estimates_of_different_things_are_not_merged():
    model, batch = mad_x(), sentences()
    exact, mc = (estimate_fisher(model, batch, labels=labels) for labels in ("exact", "mc"))
    with pytest.raises(InputError, match="labels 'exact' and 'mc'"):
        merge([exact, mc])
    with pytest.raises(InputError, match="no estimate"):
        merge([])
    other = estimate_fisher(model, batch, blocks=find_blocks(model, head=False), labels="exact")
    with pytest.raises(InputError, match="different blocks"):
        merge([exact, other])


def test_one_example_has_a_trace_and_no_standard_error():
    estimate = estimate_fisher(mad_x(), sentences(1))
    assert all(trace > 0 for trace in estimate.trace.values())
    assert all(math.isnan(error) for error in estimate.stderr.values())


def test_the_identity_of_the_numbers_can_be_written_as_json():
    import json

    meta = estimate_fisher(mad_x(), sentences(), labels="mc", samples=2, seed=3).meta
    back = json.loads(json.dumps(meta))
    wanted = {
        "labels": "mc",
        "samples": 2,
        "granularity": "example",
        "examples": 5,
        "mode": "eval",
        "seed": 3,
    }
    assert {key: back[key] for key in wanted} == wanted
    assert {"dtype", "blocks", "normalisation", "preset", "version", "output"} <= set(back)


def test_noise_scale_needs_the_loss_of_the_data():
    with pytest.raises(InputError, match="noise_scale"):
        estimate_fisher(mad_x(), sentences(), labels="exact", noise_scale=True)


def test_inference_mode_is_refused_and_not_measured_as_zero():
    model, batch = linear_model(), torch.randn(4, 3)
    with torch.inference_mode(), pytest.raises(InputError, match=r"torch.inference_mode\(\) rules out"):
        estimate_fisher(model, batch)


def test_a_preset_does_not_silently_replace_labels():
    with pytest.raises(InputError, match="preset='published' measures with labels='mode', not 'exact'"):
        estimate_fisher(linear_model(), torch.randn(4, 3), preset="published", labels="exact")


def test_labels_between_two_classes_are_no_labels():
    model, batch = linear_model(), (torch.randn(3, 3), torch.tensor([0.9, 1.0, 0.0]))
    with pytest.raises(InputError, match="label of batch 1 is out of the range"):
        estimate_fisher(model, batch, labels="empirical", blocks=find_blocks(model, by="module"))


@pytest.mark.parametrize("blocks", ["auto", ["layer.0"]])
def test_blocks_by_name_are_no_blocks(blocks):
    with pytest.raises(InputError, match="expected blocks from find_blocks"):
        estimate_fisher(linear_model(), torch.randn(4, 3), blocks=blocks)


def linear_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
