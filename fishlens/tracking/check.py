"""Before a run: is every parameter measured, by which rule, is the rule right here, and what will it cost?"""

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from fishlens.fisher import Block, Coverage, Plan, SelfCheck, coverage, estimate_fisher, self_check
from fishlens.tracking.probe_set import ProbeSet


@dataclass(frozen=True)
class Forecast:
    """What a probe of `examples` examples costs, measured here and now.

    seconds of one probe and of one forward and backward pass over `update_examples` examples; memory: bytes that a
    probe takes on top of the model (peak on the device; on the CPU the growth of the process).
    """

    examples: int
    probe_seconds: float
    update_examples: int
    update_seconds: float
    memory: int

    def overhead(self, every: int) -> float:
        """Seconds on probes per second of training, with a probe every so many updates."""
        return self.probe_seconds / (every * self.update_seconds)


@dataclass(frozen=True)
class Check:
    """coverage: one row per parameter, bottom to top. self_checks: one per block."""

    coverage: Sequence[Coverage]
    self_checks: Sequence[SelfCheck]
    forecast: Forecast

    @property
    def passed(self) -> bool:
        return all(one.passed for one in self.self_checks)

    def to_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "coverage": [asdict(row) for row in self.coverage],
            "self_checks": [{**asdict(one), "passed": one.passed} for one in self.self_checks],
            "forecast": asdict(self.forecast),
        }


def check(
    model: nn.Module,
    data: Any,
    update: Any,
    blocks: Sequence[Block],
    *,
    output: str = "auto",
    labels: str = "auto",
) -> Check:
    """Examine a model: `data` is the probe set, `update` one training batch with labels. Nothing is trained.

    Raises `InputError` for what cannot be measured, by name.
    """
    probe_set = ProbeSet.of(data)
    first = probe_set.batches[0]
    return Check(
        coverage(model, blocks, first, output=output),
        [
            self_check(model, first, blocks=blocks, block=block.name, labels=labels, output=output)
            for block in blocks
        ],
        _forecast(model, probe_set, update, blocks, output=output, labels=labels),
    )


def _forecast(
    model: nn.Module, probe_set: ProbeSet, update: Any, blocks: Sequence[Block], *, output: str, labels: str
) -> Forecast:
    device = next(model.parameters()).device
    inputs = {key: value.to(device) for key, value in update.items() if isinstance(value, torch.Tensor)}
    trainable = [p for p in model.parameters() if p.requires_grad]

    plan = Plan()  # as a tracker has: what is proved is proved once
    options = {"blocks": blocks, "output": output, "labels": labels, "diagonal": True, "plan": plan}

    def probe() -> None:
        estimate_fisher(model, probe_set.batches, **options)

    def one_update() -> None:
        torch.autograd.grad(model(**inputs).loss, trainable, allow_unused=True)

    one_update()  # the first pass allocates and compiles
    before = _memory(device)
    seconds = _seconds(probe, device)
    memory = max(_memory(device) - before, 0)
    return Forecast(
        probe_set.examples, seconds, len(next(iter(inputs.values()))), _seconds(one_update, device), memory
    )


def _seconds(action: Any, device: torch.device, times: int = 3) -> float:
    """The shortest of a few."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - began)
    return min(found)


def _memory(device: torch.device) -> int:
    """Most bytes used so far, by the device's allocator or by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
