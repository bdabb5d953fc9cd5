"""Ctrl-C at a random operation of a probe, many times: is everything as before, bit for bit?

    python benchmarks/interrupts.py 2000

Two models (BERT, and one that keeps a counter, a queue and running statistics in its forward), four kinds of probe,
first probes and later ones, in training mode and not, take turns. The process sends itself a signal when the probe has
dispatched a random number of operations; in every tenth case four of them, which nothing holds back. Compared: weights,
buffers, gradients, flags, hooks, attributes, counters, random states, and that signals have their handlers again.
"""

import argparse
import random
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, BertForSequenceClassification
from transformers.utils import logging

from fishlens import estimate_fisher, find_blocks
from fishlens.fisher import Plan


class Keeping(nn.Module):
    """Keeps a counter, a queue and a running mean in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.drop, self.out = nn.Linear(8, 12), nn.Dropout(0.2), nn.Linear(12, 3)
        self.norm = nn.BatchNorm1d(12)
        self.register_buffer("queue", torch.zeros(4, 12))
        self.calls, self.seen = 0, []

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(self.calls)
        h = self.norm(torch.tanh(self.inner(x)))
        self.queue[self.calls % 4] = h[0].detach()
        return self.out(self.drop(h) + self.queue.mean(0))


class Strikes(TorchDispatchMode):
    """Sends SIGINT to this process after `after` operations, `times` times."""

    def __init__(self, after: int, times: int) -> None:
        super().__init__()
        self.left, self.times = after, times

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left <= 0 and self.times:
            self.times -= 1
            signal.raise_signal(signal.SIGINT)
        return func(*args, **(kwargs or {}))


def bert() -> tuple[nn.Module, Any]:
    config = BertConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        num_labels=3,
    )
    ids = torch.randint(4, 60, (4, 6))
    return BertForSequenceClassification(config), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def keeping() -> tuple[nn.Module, Any]:
    return Keeping(), torch.randn(5, 8)


MODELS: tuple[Callable[[], tuple[nn.Module, Any]], ...] = (bert, keeping)
OPTIONS: tuple[dict[str, Any], ...] = (
    {"labels": "exact"},
    {"labels": "mc", "diagonal": True},
    {"labels": "mode", "granularity": "batch"},
    {"labels": "exact", "spectrum": True},
)


def everything(model: nn.Module) -> dict[str, Any]:
    """All that a probe could leave behind, as values that can be compared."""
    state = np.random.get_state()  # noqa: NPY002 (the global generator is what must not move)
    tensors = [*model.parameters(), *model.buffers()]
    return {
        "random": (random.getstate(), state[1].tobytes(), state[2:], bytes(torch.get_rng_state().tolist())),
        "values": [t.detach().numpy().tobytes() for t in tensors],
        "gradients": [None if t.grad is None else (id(t.grad), t.grad.numpy().tobytes()) for t in tensors],
        "flags": [m.training for m in model.modules()] + [t.requires_grad for t in tensors],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in model.modules()
        ],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "kept": [(getattr(m, "calls", 0), list(getattr(m, "seen", ()))) for m in model.modules()],
        "handlers": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)],
        "grad mode": torch.is_grad_enabled(),
    }


def operations(probe: Callable[[], object]) -> int:
    counting = Strikes(10**9, 0)
    with counting:
        probe()
    return 10**9 - counting.left


def strike(number: int, draw: random.Random) -> tuple[str, list[str]]:
    """(how the probe ended, what is not as before)."""
    torch.manual_seed(number)
    model, data = MODELS[number % len(MODELS)]()
    options = OPTIONS[number // len(MODELS) % len(OPTIONS)]
    model.train(number % 3 > 0)
    blocks, plan = find_blocks(model, by="module"), Plan()
    if number % 2:  # some parameters have a gradient
        output = model(**data).logits if isinstance(data, dict) else model(data)
        output.sum().backward()

    def probe() -> object:
        return estimate_fisher(model, data, blocks=blocks, output="classification", plan=plan, **options)

    if number % 5 == 0:
        probe()  # later probes take other ways than the first
    total = operations(probe) if number % 5 == 0 else LONGEST[number % len(MODELS)]
    before = everything(model)
    ended = "finished before the strike"
    striking = Strikes(draw.randrange(1, total + 1), 4 if number % 10 == 0 else 1)
    try:
        with striking:
            probe()
    except KeyboardInterrupt:
        ended = "interrupted"
    after = everything(model)
    return ended, [key for key, value in before.items() if value != after[key]]


LONGEST = (3000, 600)
"""More operations than the first probe of each model dispatches."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("probes", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    draw, ends, left = random.Random(chosen.seed), Counter[str](), Counter[str]()
    number = 0
    while ends["interrupted"] < chosen.probes:
        ended, changed = strike(number, draw)
        ends[ended] += 1
        left.update(changed)
        number += 1
    print(
        f"{ends['interrupted']} probes interrupted, {ends.total() - ends['interrupted']} ended before the signal"
    )
    print("left behind:", dict(left) or "nothing")


if __name__ == "__main__":
    main()
