"""Label sources: unbiased, reproducible, independent of batch size and padding."""

import pytest
import torch

from fishlens import InputError, estimate_fisher
from fishlens.fisher.distributions import Bernoulli, Categorical, Gaussian
from fishlens.fisher.labels import MonteCarlo
from fishlens.fisher.outputs import BatchLogits

from .models import batch_for, head, mad_x, sentences


def logits(*shape, scale=2.0, seed=0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everything(z):
    return torch.ones(z.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_c_minus_one_vectors_make_up_the_covariance_of_the_score(classes):
    z = logits(4, 1, classes)
    vectors = list(Categorical().exact(z, everything(z)))
    assert len(vectors) == Categorical().passes(z, everything(z)) == classes - 1
    for n in range(4):
        p = z[n, 0].softmax(-1)
        total = sum(torch.outer(v[n, 0], v[n, 0]) for v in vectors)
        torch.testing.assert_close(total, torch.diag(p) - torch.outer(p, p), rtol=0, atol=1e-15)


def test_the_vectors_stay_finite_where_the_model_is_certain():
    z = torch.tensor(
        [[[800.0, 0.0, -800.0]], [[-800.0, 0.0, 800.0]], [[0.0, -800.0, 0.0]]], dtype=torch.float64
    )
    vectors = torch.stack(list(Categorical().exact(z, everything(z))))
    assert torch.isfinite(vectors).all()
    total = torch.einsum("knc,knd->ncd", vectors[:, :, 0], vectors[:, :, 0])
    p = z[:, 0].softmax(-1)
    torch.testing.assert_close(total, torch.diag_embed(p) - p[:, :, None] * p[:, None], rtol=0, atol=1e-15)


@pytest.mark.parametrize("family", [Categorical(), Bernoulli(), Gaussian()], ids=lambda f: f.name)
def test_samples_follow_the_distribution(family):
    z = logits(1, 2, 3, scale=1.0)
    prediction = BatchLogits(z, everything(z), family)
    samples = 4000
    drawn = [t for t, _ in MonteCarlo(5, samples).targets(prediction, {}, None, 0)]
    values = torch.stack(drawn).double()[:, 0]
    if family.name == "categorical":
        values = torch.nn.functional.one_hot(values.long(), 3).double()
        mean = z[0].softmax(-1)
        spread = (mean * (1 - mean)).sqrt()
    elif family.name == "bernoulli":
        mean = torch.sigmoid(z[0])
        spread = (mean * (1 - mean)).sqrt()
    else:
        mean, spread = z[0], torch.ones_like(z[0])
        assert values.var(0).sub(1).abs().max() < 5 * (2 / samples) ** 0.5
    assert ((values.mean(0) - mean).abs() / (spread / samples**0.5)).max() < 4


@pytest.mark.parametrize(
    "kind", ["classification", "question_answering", "tagging", "multilabel", "regression"]
)
def test_mc_is_unbiased(kind):
    """Over many seeds its mean lies within 3 standard errors of `exact`, for every block."""
    model = mad_x("seq_bn", None if kind == "classification" else head(kind))
    batch = batch_for(kind)
    exact = estimate_fisher(model, batch, labels="exact", max_passes=99)
    draws = [estimate_fisher(model, batch, labels="mc", samples=4, seed=seed).trace for seed in range(60)]
    for block, trace in exact.trace.items():
        values = torch.tensor([draw[block] for draw in draws], dtype=torch.float64)
        assert abs(float(values.mean()) - trace) < 3 * float(values.std()) / len(values) ** 0.5


def test_the_labels_of_an_example_depend_on_the_seed_and_its_place_in_the_stream_alone():
    model, batch = mad_x(), sentences(6)
    kw = {"labels": "mc", "samples": 2}
    whole = estimate_fisher(model, batch, **kw)
    assert estimate_fisher(model, batch, **kw).trace == whole.trace
    torch.rand(7)
    assert estimate_fisher(model, batch, **kw).trace == whole.trace
    assert estimate_fisher(model, batch, seed=1, **kw).trace != whole.trace
    last = {k: v[4:] for k, v in batch.items()}
    alone = estimate_fisher(model, last, first_example=4, **kw)
    for block, values in whole.per_example.items():
        torch.testing.assert_close(alone.per_example[block], values[4:], rtol=1e-9, atol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_the_labels_of_the_tokens(side):
    z = logits(3, 5, 4)
    scored = torch.tensor([[1, 1, 0, 1, 1], [0, 1, 1, 1, 1], [1, 0, 0, 0, 0]], dtype=torch.bool)
    source = MonteCarlo(7, 3)
    plain = source.targets(BatchLogits(z, scored, Categorical()), {}, None, 0)
    pad, off = (2, 0) if side == "left" else (0, 2)
    wide = torch.nn.functional.pad(z, (0, 0, pad, off))
    mask = torch.nn.functional.pad(scored, (pad, off))
    padded = source.targets(BatchLogits(wide, mask, Categorical()), {}, None, 0)
    for (a, _), (b, _) in zip(plain, padded, strict=True):
        assert torch.equal(a[scored], b[mask])


def test_auto_is_exact_for_few_classes_and_mc_for_many():
    few, many = mad_x(), mad_x("seq_bn", lambda m: m.add_classification_head("task", num_labels=9))
    assert estimate_fisher(few, sentences()).meta["labels"] == "exact"
    assert estimate_fisher(many, sentences()).meta["labels"] == "mc"
    tags = mad_x("seq_bn", head("tagging"))
    assert estimate_fisher(tags, batch_for("tagging")).meta["labels"] == "mc"


def test_exact_with_many_classes_names_its_cost_and_suggests_mc():
    model = mad_x("seq_bn", head("masked_lm"))
    with pytest.raises(InputError, match=r"would cost \d{3} backward passes .* use labels='mc'"):
        estimate_fisher(model, batch_for("masked_lm"), labels="exact")


def test_mode_is_refused_where_it_is_zero_for_every_model():
    model = mad_x("seq_bn", head("regression"))
    with pytest.raises(InputError, match="labels='mode' is zero for every regression model"):
        estimate_fisher(model, batch_for("regression"), labels="mode")


def test_ignored_labels_do_not_count():
    model, batch = mad_x("seq_bn", head("tagging")), batch_for("tagging")
    kept = estimate_fisher(model, batch, labels="empirical")
    nothing = estimate_fisher(
        model, batch | {"labels": torch.full_like(batch["labels"], -100)}, labels="empirical"
    )
    assert all(trace > 0 for trace in kept.trace.values())
    assert all(trace == 0 for trace in nothing.trace.values())


def test_labels_in_the_batch_make_no_loss_and_change_nothing_but_what_is_scored():
    model, batch = mad_x(), sentences()
    seen = []
    handle = model.register_forward_pre_hook(lambda m, a, kw: seen.append(set(kw)), with_kwargs=True)
    with_labels = estimate_fisher(model, batch)
    without = estimate_fisher(model, {k: v for k, v in batch.items() if k != "labels"})
    handle.remove()
    assert all(keys == {"input_ids", "attention_mask"} for keys in seen)
    assert with_labels.trace == without.trace
