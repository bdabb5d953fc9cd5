"""The Fisher penalty: its gradient, its expectation, what it costs, and that 0 is no penalty at all."""

import numpy as np
import pytest
import torch

from fishlens.errors import InputError
from fishlens.fisher import estimate_fisher
from fishlens.fisher.labels import MonteCarlo
from fishlens.journal import read_run
from fishlens.recipe.loading import load_recipe
from fishlens.training import fisher_penalty as module
from fishlens.training.model import assemble
from fishlens.training.checkpoint import list_checkpoints
from fishlens.training.fisher_penalty import fisher_penalty, twice_differentiable
from fishlens.training.preparation import load_split, prepare_task
from fishlens.training.run import train


def weights_of(place) -> bytes:
    there = list_checkpoints(place / "checkpoints")
    return (there[max(there)] / "weights.safetensors").read_bytes()


@pytest.fixture
def prepared(recipe):
    """(task, assembly, batch) in float64, without dropout"""
    loaded = load_recipe(recipe)
    task = prepare_task(loaded)
    assembly = assemble(loaded, task)
    assembly.model.double().eval()
    rows = task.encode(load_split(loaded, task, "train", "en"), assembly.tokenizer, train=True)[:6]
    return task, assembly, task.collate(rows, assembly.tokenizer)


def parameters_of(assembly):
    return [p for block in assembly.blocks if block.name in ("layer.1", "layer.3") for p in block.parameters.values()]


def test_the_gradient_is_that_of_loss_plus_alpha_times_the_trace(prepared):
    """Against a central difference of the objective, written out here example by example with the labels held fixed."""
    task, assembly, batch = prepared
    parameters, alpha, seed = parameters_of(assembly), 0.3, 7
    with twice_differentiable():
        outputs = assembly.model(**batch)
    total = outputs.loss + alpha * fisher_penalty(outputs, batch, parameters, output=task.output, seed=seed, first=20)
    gradient = torch.autograd.grad(total, parameters)
    generators = [np.random.Generator(np.random.Philox(key=seed + module._OWN_STREAM, counter=[0, 0, 0, 20 + n])) for n in range(6)]
    with torch.no_grad():
        p = assembly.model(**batch).logits.softmax(-1)
    labels = [
        int((p[n].cumsum(0) < float(generators[n].random((1, 1, 1)).item()) * p[n].sum()).sum()) for n in range(6)
    ]

    def objective():
        with twice_differentiable():
            outputs = assembly.model(**batch)
        scores = [
            torch.autograd.grad(outputs.logits.log_softmax(-1)[n, label], parameters, retain_graph=True)
            for n, label in enumerate(labels)
        ]
        mean = [torch.stack(each).mean(0) for each in zip(*scores, strict=True)]
        return outputs.loss.item() + alpha * 6 * float(sum(m.square().sum() for m in mean))

    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    def moved(by):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(by * d)
        value = objective()
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.sub_(by * d)
        return value

    step = 1e-6
    difference = (moved(step) - moved(-step)) / (2 * step)
    along = float(sum((g * d).sum() for g, d in zip(gradient, direction, strict=True)))
    assert along == pytest.approx(difference, rel=1e-6)
    assert abs(along - float(sum((g * d).sum() for g, d in zip(
        torch.autograd.grad(assembly.model(**batch).loss, parameters), direction, strict=True
    )))) > 1e-3 * abs(along)  # the penalty has its share in it  # fmt: skip


def test_its_expectation_over_labels_is_the_trace(prepared):
    task, assembly, batch = prepared
    blocks = [block for block in assembly.blocks if block.name in ("layer.1", "layer.3")]
    exact = estimate_fisher(assembly.model, batch, blocks=blocks, labels="exact").trace
    with twice_differentiable():
        outputs = assembly.model(**batch)
    drawn = torch.tensor(
        [
            fisher_penalty(
                outputs, batch, parameters_of(assembly), output=task.output, seed=0, first=6 * n
            ).item()
            for n in range(144)
        ]
    )
    error = float(drawn.std()) / 12
    assert abs(float(drawn.mean()) - sum(exact.values())) < 4 * error < 0.8 * sum(exact.values())


def test_a_penalty_of_zero_is_none_and_another_changes_training_and_says_its_cost(recipe, tmp_path, capsys):
    train(recipe, tmp_path / "none")
    recipe["train"]["fisher_penalty"] = 0.0
    train(recipe, tmp_path / "zero")
    assert capsys.readouterr().err == ""
    recipe["train"]["fisher_penalty"] = 0.1
    train(recipe, tmp_path / "some")
    assert weights_of(tmp_path / "none") == weights_of(tmp_path / "zero") != weights_of(tmp_path / "some")
    assert "the Fisher penalty makes forward and backward pass" in capsys.readouterr().err
    notes = [r["text"] for r in read_run(tmp_path / "some").records if r["kind"] == "note"]
    assert any("s an update, on the first batch" in text for text in notes)


def test_measuring_its_cost_disturbs_nothing(recipe, tmp_path, monkeypatch):
    recipe["train"]["fisher_penalty"] = 0.1
    train(recipe, tmp_path / "measured")
    monkeypatch.setattr("fishlens.training.run.cost_of_training", lambda job: None)
    train(recipe, tmp_path / "unmeasured")
    assert weights_of(tmp_path / "measured") == weights_of(tmp_path / "unmeasured")


def test_half_precision_gradients_are_not_squared(recipe, tmp_path):
    recipe["train"] |= {"fisher_penalty": 0.1, "precision": "fp16"}
    with pytest.raises(InputError, match="fisher_penalty squares gradients, which fp16 does not hold"):
        train(recipe, tmp_path / "run")
