"""The observer promise: nothing about a model shows that it was measured."""

import copy
import itertools
import random
import threading

import numpy as np
import pytest
import torch

from fishlens import InputError, estimate_fisher, find_blocks

from .models import mad_x, sentences


def state(model):
    """All that a measurement could disturb."""
    np_state = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state().tolist(),
        "python": random.getstate(),
        "numpy": (np_state[1].tolist(), *np_state[2:]),
        "training": [module.training for module in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [id(p.grad) if p.grad is not None else None for p in model.parameters()],
        "values": [p.detach().clone() for p in model.parameters()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "on parameters": [sorted(vars(p)) for p in model.parameters()],
        "hooks": [
            (
                len(m._forward_hooks),
                len(m._forward_pre_hooks),
                len(m._backward_hooks),
                len(m._backward_pre_hooks),
            )
            for m in model.modules()
        ],
    }


def assert_same(before, after):
    for key in before:
        if key == "values":
            assert all(torch.equal(a, b) for a, b in zip(before[key], after[key], strict=True))
        else:
            assert before[key] == after[key], key


WAYS = [
    {"labels": "exact"},
    {"labels": "mc", "samples": 2, "diagonal": True},
    {"labels": "empirical"},
    {"labels": "mode", "granularity": "batch"},
    {"labels": "exact", "mode": "train"},
    {"labels": "exact", "mode": "unchanged"},
    {"labels": "empirical", "spectrum": True, "noise_scale": True},
    {"labels": "exact", "autocast": torch.bfloat16},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_a_probe_changes_nothing(way, training):
    model, batch = mad_x(), sentences()
    model.train(training)
    model(**batch).loss.backward()  # some parameters have a .grad, others None
    for (
        name,
        parameter,
    ) in model.named_parameters():  # one measured block is frozen, one unmeasured part is not
        if ("layer.0" in name and ".task." in name) or "embeddings.LayerNorm" in name:
            parameter.requires_grad_("embeddings" in name)
    before = state(model)
    estimate_fisher(model, batch, **way)
    assert_same(before, state(model))


def test_an_exception_inside_a_probe_changes_nothing_either():
    model, batch = mad_x(), sentences()
    model.train()
    before = state(model)

    def broken():
        yield batch
        torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
        yield {"nothing": "here"}

    with pytest.raises(InputError):
        estimate_fisher(model, broken())
    handle = model.heads["task"].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        estimate_fisher(model, batch)
    handle.remove()
    assert_same(before, state(model))
    estimate_fisher(model, batch)  # and the next probe works


def test_the_training_steps_around_a_probe_are_bit_identical_to_those_without_one():
    def train(measure: bool):
        torch.manual_seed(3)
        model, batch = mad_x(), sentences()
        model.train()
        blocks = find_blocks(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(4):
            if measure:
                estimate_fisher(model, batch, blocks=blocks, labels="mc")
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return [p.detach().clone() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(train(True), train(False), strict=True))


def test_train_mode_measures_with_dropout_from_the_seed():
    model, batch = mad_x(), sentences()
    once, again, other = (estimate_fisher(model, batch, mode="train", seed=seed).trace for seed in (0, 0, 1))
    assert once == again and once != other
    assert once != estimate_fisher(model, batch).trace


def test_the_model_can_be_copied_after_a_probe():
    model, batch = mad_x(), sentences()
    first = estimate_fisher(model, batch)
    again = estimate_fisher(copy.deepcopy(model), batch)
    assert first.trace == again.trace


def test_two_threads_measure_one_after_the_other(tmp_path):
    torch.manual_seed(0)
    log = tmp_path / "log"  # a list would be put back by the probe

    class Logged(torch.nn.Linear):
        def forward(self, x):
            with log.open("a") as file:
                file.write(threading.current_thread().name)
            return super().forward(x)

    models = {"a": Logged(4, 3), "b": Logged(4, 3)}
    batches = list(torch.randn(20, 8, 4))

    def trace(name):
        blocks = find_blocks(models[name], by="module")
        return estimate_fisher(models[name], batches, blocks=blocks, labels="exact").trace

    alone = {name: trace(name) for name in models}
    log.unlink()
    found, together = {}, threading.Barrier(2)

    def measure(name):
        together.wait()
        found[name] = trace(name)

    threads = [threading.Thread(target=measure, args=[name], name=name) for name in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone
    assert len(list(itertools.groupby(log.read_text()))) == 2
