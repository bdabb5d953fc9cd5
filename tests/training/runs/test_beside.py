"""What is measured beside the Fisher information: held against independent computations on a real run."""

import numpy as np
import pytest
import torch

from fishlens.errors import InputError
from fishlens.fisher import estimate_fisher
from fishlens.fisher.representation import linear_cka
from fishlens.journal import load_runs, read_run
from fishlens.recipe.loading import load_recipe
from fishlens.training.model import assemble
from fishlens.training.beside import Beside, adam_direction
from fishlens.training.optimizer import make_optimizer
from fishlens.training.preparation import prepare_task
from fishlens.training.run import train
from fishlens.training.targets import target_inputs


@pytest.fixture
def settings(recipe):
    tracking = {
        "every": 4, "examples": 8, "languages": ["de", "es"], "cka": True, "critical_sharpness": True,
    }  # fmt: skip
    return {**recipe, "tracking": tracking, "schedule": {"name": "standard"}}


@pytest.fixture
def prepared(settings):
    """(recipe, task, assembly, {language: inputs}), in float64 and without dropout"""
    recipe = load_recipe(settings)
    task = prepare_task(recipe)
    assembly = assemble(recipe, task)
    assembly.model.double().eval()
    inputs = {language: target_inputs(recipe, task, assembly.tokenizer, language, 8) for language in ("de", "es")}
    return recipe, task, assembly, inputs


def beside(recipe, task, assembly, inputs, rows=(), optimizer=None):
    optimizer = optimizer or make_optimizer(assembly.blocks, recipe.train)
    return Beside(
        recipe, task, assembly.model, assembly.tokenizer, assembly.blocks, optimizer, rows, inputs, 16
    )


def test_a_run_has_them_at_every_probe_and_ends_in_the_same_bits(settings, tmp_path):
    train(settings, tmp_path / "with")
    train({**settings, "tracking": {"every": None}}, tmp_path / "without")
    ends = [
        (tmp_path / name / "checkpoints" / "step-8" / "weights.safetensors").read_bytes()
        for name in ("with", "without")
    ]
    assert ends[0] == ends[1]
    probes = load_runs(tmp_path / "with").probes
    after = probes[probes["step"] > 0]
    assert (after["critical_sharpness"] > 0).all() and probes[probes["step"] == 0]["critical_sharpness"].isna().all()
    targets = after[after["language"].notna()]
    assert targets["atc"].between(0, 100).all() and len(targets) == 4  # validated at steps 4 and 8
    cka = load_runs(tmp_path / "with").fisher_series.set_index("block")["cka"]
    assert cka.drop("head").le(1).all() and cka["head"].isna().all()


def test_cka_is_of_mean_representations_of_the_same_examples(prepared):
    recipe, task, assembly, inputs = prepared
    found = beside(recipe, task, assembly, inputs)
    with torch.no_grad():
        found._cka(None)
    with assembly.in_language("de"), torch.no_grad():
        cka = found._cka("de")["cka"]
    german = {e.id: e for e in task.load(recipe.data.root, "validation", "de")}
    english = {e.id: e for e in task.load(recipe.data.root, "validation", "en")}
    ids = list(dict.fromkeys(inputs["de"].ids))

    def representations(examples, language):
        rows = []
        with assembly.in_language(language), torch.no_grad():
            for example in examples:
                encoded = assembly.tokenizer(example.first, return_tensors="pt")
                states = assembly.model(**encoded, output_hidden_states=True).hidden_states
                rows.append([state[0].mean(0) for state in states[1:]])
        return [torch.stack(layer) for layer in zip(*rows, strict=True)]

    ours = representations([german[i] for i in ids], "de")
    theirs = representations([english[i] for i in ids], "en")
    for block in assembly.blocks:
        if block.layer is not None:
            expected = linear_cka(ours[block.layer], theirs[block.layer])
            assert cka[block.name] == pytest.approx(expected, abs=1e-6)
    assert len(cka) == 4


def test_adam_s_direction_is_what_it_subtracts_when_the_gradient_repeats(prepared):
    """With one gradient again and again, m̂ is the gradient and v̂ its square: the next update is the direction."""
    recipe, _, assembly, _ = prepared
    optimizer = make_optimizer(assembly.blocks, recipe.train)
    parameters = assembly.parameters()
    gradients = {name: torch.randn_like(p) for name, p in parameters.items() if "head" not in name}
    for _ in range(3):
        for name, gradient in gradients.items():
            parameters[name].grad = gradient.clone()
        before = {name: p.detach().clone() for name, p in parameters.items()}
        optimizer.step()
    direction = adam_direction(optimizer, assembly.blocks)
    assert direction.keys() == gradients.keys()  # what has no gradient has no direction
    for name, u in direction.items():
        moved = before[name] - parameters[name].detach()
        torch.testing.assert_close(recipe.train.learning_rate * u, moved, rtol=1e-6, atol=1e-12)


def test_critical_sharpness_is_of_the_mean_loss_along_that_direction(prepared):
    recipe, task, assembly, inputs = prepared
    optimizer = make_optimizer(assembly.blocks, recipe.train)
    rows = inputs["de"].rows
    batch = task.collate(rows, assembly.tokenizer)
    for _ in range(2):
        optimizer.zero_grad()
        assembly.model(**batch).loss.backward()
        optimizer.step()
    before = {name: p.detach().clone() for name, p in assembly.parameters().items()}
    direction = adam_direction(optimizer, assembly.blocks)
    (found,) = beside(recipe, task, assembly, inputs, rows, optimizer)._critical_sharpness(None).values()

    def loss(step):  # by moving the weights themselves
        with torch.no_grad():
            for name, p in assembly.parameters().items():
                p.copy_(before[name] - step * direction.get(name, torch.zeros(())))
            value = float(assembly.model(**batch).loss)
            for name, p in assembly.parameters().items():
                p.copy_(before[name])
        return value

    edge = 2 / found
    assert loss(0.97 * edge) <= loss(0.0) < loss(1.03 * edge)


def test_atc_is_only_said_at_the_step_of_a_validation(prepared):
    recipe, task, assembly, inputs = prepared
    found = beside(recipe, task, assembly, inputs)
    batch = task.unlabelled(task.collate(inputs["de"].rows, assembly.tokenizer))
    estimate = estimate_fisher(assembly.model, batch, blocks=assembly.blocks)
    found.threshold, found.step = (4, -float(np.median(estimate.entropy))), 4
    assert found._atc(estimate)["atc"] == 100 * float((estimate.entropy <= estimate.entropy.median()).double().mean())
    found.step = 5
    assert found._atc(estimate) == {}


def test_examples_that_are_not_parallel_are_said_before_training(settings, tmp_path):
    for language, words in {"de": "eins\n", "es": "uno\n", "en": "one\n"}.items():
        (tmp_path / f"{language}.txt").write_text(words * 2, encoding="utf-8")
    settings["tracking"]["text"] = str(tmp_path / "{language}.txt")
    with pytest.raises(InputError, match="tracking.cka compares parallel examples, but 2 of .*de.txt have the id"):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_says_of_its_probes_what_an_uninterrupted_one_says(settings, tmp_path):
    settings["checkpoint"] = {"every": 2}
    settings["tracking"] |= {"examples": 4, "languages": ["de"]}
    train(settings, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(step):
        if step == 6:
            raise Stop

    with pytest.raises(Stop):
        train(settings, tmp_path / "resumed", on_step=stop)
    train(settings, tmp_path / "resumed")
    wanted = ("step", "language", "trace", "drift", "overlap", "cka", "entropy", "atc", "critical_sharpness")
    one, other = (
        [{key: r.get(key) for key in wanted} for r in read_run(tmp_path / name).records if r["kind"] == "fisher"]
        for name in ("whole", "resumed")
    )
    assert one == other and one[-1]["drift"]
