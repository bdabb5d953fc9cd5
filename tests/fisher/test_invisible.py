"""A probe is invisible to the model by construction: what its code, its hooks and the user's Ctrl-C could leave
behind."""

import contextlib
import importlib
import random
import signal
import sys
from collections import deque
from pathlib import Path
from unittest.mock import Mock

import loralib
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from fishlens import InputError, estimate_fisher, find_blocks
from fishlens.fisher import Plan, reference_fisher
from fishlens.tracking.probe_set import ProbeSet

from .models import shaken
from .test_observe import assert_same, state

EXACTLY = {"rtol": 1e-9, "atol": 1e-14}


class Counting(nn.Module):
    """Anneals by the number of its forward passes, kept in a buffer and as a number, and remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))
        self.number, self.seen, self.last = 0, [], deque(maxlen=2)
        self.loose = torch.zeros(2, dtype=torch.float64)  # no buffer

    def forward(self, x):
        self.calls += 1
        self.number += 1
        self.seen.append(self.number)
        self.last.append(x)
        self.loose.add_(1)
        self.loose.data.mul_(2)
        return self.b(
            torch.tanh(self.a(x) * (1 + 0.1 * self.calls + 0.1 * self.number + 0.01 * self.loose[0]))
        )


class Momentum(nn.Module):
    """MoCo: forward itself moves the key encoder and the queue."""

    def __init__(self, rebind):
        super().__init__()
        self.rebind = rebind
        self.q, self.k = nn.Linear(4, 5), nn.Linear(4, 5)
        self.register_buffer("queue", functional.normalize(torch.randn(5, 8), dim=0))
        self.register_buffer("at", torch.zeros(1, dtype=torch.long))

    def forward(self, x):
        q = self.q(x)
        with torch.no_grad():
            for a, b in zip(self.q.parameters(), self.k.parameters(), strict=True):
                if self.rebind:
                    b.data = 0.9 * b.data + 0.1 * a.data
                else:
                    b.data.mul_(0.9).add_(a.data, alpha=0.1)
            k = self.k(x)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ self.queue.clone()], 1)
        at = int(self.at)
        if at + len(k) <= 8:
            self.queue[:, at : at + len(k)] = k.T
            self.at[0] = (at + len(k)) % 8
        return logits


class Codebook(nn.Module):
    """Replaces its buffer in forward, and writes into the batch it was given."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        out = self.b(torch.tanh(self.a(x.clone())))
        x.clamp_(-0.5, 0.5)
        return out


class OwnNorm(nn.Module):
    """Running statistics that move whatever the mode is, by torch's own kernel."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))

    def forward(self, x):
        functional.batch_norm(x.detach(), self.mean, self.var, training=True)
        return self.b(torch.tanh(self.a(x - self.mean.clone())))


def everything(model):
    values = [t.detach().clone() for t in [*model.parameters(), *model.buffers()]]
    plain = {
        (name, key): list(value) if isinstance(value, (list, deque)) else value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (int, list, deque, torch.Tensor))
    }
    plain = {key: v.clone() if isinstance(v, torch.Tensor) else v for key, v in plain.items()}
    return values, plain, [id(t) for t in [*model.parameters(), *model.buffers()]]


def assert_unchanged(model, before):
    values, plain, identity = everything(model)
    assert all(torch.equal(a, b) for a, b in zip(values, before[0], strict=True))
    assert identity == before[2] and plain.keys() == before[1].keys()
    for key, value in plain.items():
        same = (
            torch.equal(value, before[1][key]) if isinstance(value, torch.Tensor) else value == before[1][key]
        )
        assert same, key


@pytest.mark.parametrize(
    "make", [Counting, lambda: Momentum(True), lambda: Momentum(False), Codebook, OwnNorm]
)
def test_state_that_forward_keeps_is_as_before_and_every_example_is_measured_at_it(make):
    torch.manual_seed(0)
    model, plan = shaken(make()), Plan()
    model.double()
    x = torch.randn(4, 4, dtype=torch.float64)
    given, before = x.clone(), everything(model)
    blocks = find_blocks(model, by="re:^(a|b|q)")
    estimates = [estimate_fisher(model, x, blocks=blocks, labels="mc", plan=plan) for _ in range(2)]
    assert_unchanged(model, before)
    assert torch.equal(x, given)
    assert estimates[0].trace == estimates[1].trace
    if not isinstance(model, OwnNorm):  # (its statistics are of the batch)
        expected = reference_fisher(model, x, blocks, labels="mc")
        assert_unchanged(model, before)
        for block, values in expected.per_example.items():
            torch.testing.assert_close(estimates[1].per_example[block], values, **EXACTLY)


def test_a_model_that_writes_only_later_is_refused_by_name():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 3)
            self.register_buffer("sums", torch.zeros(()))

        def forward(self, x):
            if self.late:
                self.sums += 1
            return self.a(x)

    model, plan, x = Late(), Plan(), torch.randn(3, 4)
    blocks = find_blocks(model, by="module")
    model.late = False
    estimate_fisher(model, x, blocks=blocks, plan=plan)
    model.late = True
    with pytest.raises(InputError, match="forward wrote to 'sums'"):
        estimate_fisher(model, x, blocks=blocks, plan=plan)


def test_loralib_neither_merges_nor_stops_learning():
    torch.manual_seed(0)
    model = nn.Sequential(loralib.Linear(4, 6, r=2), nn.Tanh(), nn.Linear(6, 3))
    loralib.mark_only_lora_as_trainable(model)
    model = shaken(model).train()
    blocks = find_blocks(model, by="re:(lora_[AB]|^2)")
    x = torch.randn(4, 4, dtype=torch.float64)
    before = everything(model)
    estimate = estimate_fisher(model, x, blocks=blocks, labels="exact")
    assert_unchanged(model, before)
    assert not model[0].merged
    expected = reference_fisher(model, x, blocks, labels="exact")
    for block, values in expected.per_example.items():
        assert values.max() > 0
        torch.testing.assert_close(estimate.per_example[block], values, **EXACTLY)


def test_an_adapter_that_is_merged_is_refused_by_name():
    model = shaken(nn.Sequential(loralib.Linear(4, 6, r=2), nn.Tanh(), nn.Linear(6, 3)))
    model.train().eval()  # merges
    with pytest.raises(InputError, match=r"module '0' \(Linear\) has merged its adapter"):
        estimate_fisher(model, torch.randn(2, 4).double(), blocks=find_blocks(model, by="re:(lora_[AB])"))


class Dropping(nn.Dropout):
    """Monte Carlo dropout: on in every mode."""

    def train(self, mode=True):
        return super().train(True)


class Frozen(nn.BatchNorm1d):
    """As detectors freeze their norms: never in training."""

    def train(self, mode=True):
        return super().train(False)


def test_a_module_with_a_train_of_its_own_says_what_its_mode_is():
    seen = Mock(return_value=None)
    model = nn.Sequential(nn.Linear(4, 4), Dropping(0.5), Frozen(4), nn.Linear(4, 3)).double()
    model.register_forward_hook(lambda m, *_: seen([part.training for part in m]))
    for flag in (True, False):
        for module in model.modules():
            module.training = flag
        estimate_fisher(model, torch.randn(3, 4).double(), blocks=find_blocks(model, by="re:^3"), labels="mc")
        assert seen.call_args.args == ([False, True, False, False],)
        assert all(module.training is flag for module in model.modules())
    estimate_fisher(
        model, torch.randn(3, 4).double(), blocks=find_blocks(model, by="re:^3"), labels="mc", mode="train"
    )
    assert seen.call_args.args == ([True, True, False, True],)


def test_hooks_on_gradients_neither_run_nor_change_a_number():
    torch.manual_seed(0)
    model = shaken(nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)))
    x, blocks, ran = torch.randn(4, 1, 8).double(), find_blocks(model, by="module"), []
    plain = estimate_fisher(model, x, blocks=blocks, labels="exact")

    def mask(gradient):
        ran.append(1)
        return gradient * 0

    handles = [model[0].weight.register_hook(mask), model[3].weight.register_hook(mask)]
    handles.append(model[3].register_full_backward_hook(lambda m, i, o: (ran.append(1), i)[1]))
    model[3].bias.register_post_accumulate_grad_hook(lambda p: ran.append(1))
    frozen = model[0].bias
    handles.append(frozen.register_hook(mask))
    frozen.requires_grad_(False)
    assert estimate_fisher(model, x, blocks=blocks, labels="exact").trace == plain.trace
    assert reference_fisher(model, x, blocks, labels="exact").trace == pytest.approx(plain.trace, rel=1e-9)
    assert not ran
    model(x).sum().backward()
    assert len(ran) == 4 and not model[0].weight.grad.any()
    for handle in handles:
        handle.remove()
    ran.clear()
    model(x).sum().backward()
    assert len(ran) == 1  # the one after the accumulation


def test_reading_the_data_moves_no_generator():
    x = torch.randn(8, 4)
    own = torch.Generator().manual_seed(5)
    for shuffle in (False, True):
        loader = DataLoader(TensorDataset(x, torch.zeros(8).long()), batch_size=4, shuffle=shuffle)
        before = torch.get_rng_state()
        ProbeSet.of(loader)
        model = nn.Sequential(nn.Linear(4, 3))
        before = torch.get_rng_state()
        estimate_fisher(model, loader, blocks=find_blocks(model, by="module"))
        ProbeSet.of(loader)
        assert torch.equal(torch.get_rng_state(), before)
    seeded = DataLoader(TensorDataset(x, x), batch_size=4, shuffle=True, generator=own)
    before = own.get_state()
    ProbeSet.of(seeded)
    assert torch.equal(own.get_state(), before)


class Stack(nn.Sequential):
    """With a forward of its own: torch before 2.7 does not compile torch's own."""

    def forward(self, x):
        for layer in self:
            x = layer(x)
        return x


class Layer(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, self.weight, self.bias)


@pytest.mark.parametrize("how", ["model.compile", "layer.compile", "inner", "forward"])
def test_what_is_compiled_is_measured_as_it_is_written(how):
    torch.manual_seed(0)
    model = shaken(Stack(Layer(4, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3)))
    x = torch.randn(4, 4).double()
    names = find_blocks(model, by="module")
    plain = estimate_fisher(model, x, blocks=names, labels="exact")
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    if how == "model.compile":
        model.compile(backend=backend)
    elif how == "layer.compile":
        model[0].compile(backend=backend)
    elif how == "inner":
        model[0] = torch.compile(model[0], backend=backend)
    else:
        model.forward = torch.compile(model.forward, backend=backend)
    model.train()
    model(x)
    made = len(compiled)
    assert made
    blocks = find_blocks(model, by="module")
    estimate = estimate_fisher(model, x, blocks=blocks, labels="exact")
    assert list(estimate.trace.values()) == pytest.approx(list(plain.trace.values()), rel=1e-9)
    model(x)
    assert len(compiled) == made  # neither for the probe nor after it


class Interrupted:
    """Sends SIGINT to this process at the n-th line that is run of the modules that measure."""

    def __init__(self, at):
        self.at, self.count = at, 0

    def trace(self, frame, event, _):
        name = frame.f_code.co_filename
        if "fishlens/fisher" not in name and "contextlib" not in name:
            return None
        if event == "line":
            self.count += 1
            if self.count == self.at:
                signal.raise_signal(signal.SIGINT)
        return self.trace

    def __enter__(self):
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_):
        sys.settrace(None)


def test_ctrl_c_at_any_line_of_a_probe_leaves_nothing_behind():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 4), Dropping(0.1), nn.Conv1d(1, 1, 3, padding=1), nn.Flatten(), nn.Linear(4, 3)
    )
    model[0].weight.register_hook(lambda gradient: gradient)
    model[2].requires_grad_(False)
    model.train()
    blocks, x = find_blocks(model, by="module"), torch.randn(2, 1, 4)
    handler = signal.getsignal(signal.SIGINT)

    def probe():
        estimate_fisher(model, x, blocks=blocks, labels="mc")

    probe()
    with Interrupted(0) as whole:
        probe()
    before, hooks = state(model), [p._backward_hooks for p in model.parameters()]
    stopped = 0
    for at in range(1, whole.count, max(1, whole.count // 60)):
        with contextlib.suppress(KeyboardInterrupt), Interrupted(at):
            probe()
            stopped -= 1
        stopped += 1
        assert_same(before, state(model))
        assert all(p._backward_hooks is h for p, h in zip(model.parameters(), hooks, strict=True))
        assert signal.getsignal(signal.SIGINT) is handler
    assert stopped > 40


def test_a_probe_that_ctrl_c_stops_at_any_operation_leaves_nothing_behind(monkeypatch):
    """A sample of `python benchmarks/interrupts.py 2000`."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    interrupts = importlib.import_module("interrupts")
    draw = random.Random(1)
    ends = [interrupts.strike(number, draw) for number in (*range(8), 10, 15, 20, 21)]
    assert all(not left for _, left in ends)
    assert sum(ended == "interrupted" for ended, _ in ends) >= 8


def test_what_an_interrupted_probe_leaves_behind_would_be_seen(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    interrupts = importlib.import_module("interrupts")
    model, x = interrupts.keeping()
    before = interrupts.everything(model)
    model.drop.eval()
    model(x)
    torch.rand(1)
    after = interrupts.everything(model)
    assert {key for key in before if before[key] != after[key]} == {"random", "values", "flags", "kept"}
