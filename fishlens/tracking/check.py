"""Before a run: is every parameter measured, by which rule, is the rule right here, and what will it cost?"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from fishlens.fisher import (
    Block,
    Coverage,
    Plan,
    Price,
    SelfCheck,
    coverage,
    estimate_fisher,
    prices,
    self_checks,
)
from fishlens.tracking.memory import peak_of
from fishlens.tracking.probe_set import ProbeSet

ENOUGH = 2.0  # seconds: what takes longer is timed once


@dataclass(frozen=True)
class Forecast:
    """What a probe of `examples` examples costs, measured here and now.

    seconds of one probe and of one forward and backward pass over `update_examples` examples; memory: bytes that each
    takes at most on top of what was there before, None where the system does not tell.
    """

    examples: int
    probe_seconds: float
    update_examples: int
    update_seconds: float
    memory: int | None
    update_memory: int | None

    def overhead(self, every: float) -> float:
        """Seconds on probes per second of training, with a probe every so many updates."""
        return self.probe_seconds / (every * self.update_seconds)


@dataclass(frozen=True)
class Check:
    """coverage: one row per parameter, bottom to top. self_checks: one per block. forecast: None if not priced.

    prices: of what no rule measures."""

    coverage: Sequence[Coverage]
    self_checks: Sequence[SelfCheck]
    forecast: Forecast | None
    prices: Sequence[Price] = ()

    @property
    def passed(self) -> bool:
        return all(one.passed for one in self.self_checks)

    def to_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "coverage": [asdict(row) for row in self.coverage],
            "self_checks": [{**asdict(one), "passed": one.passed} for one in self.self_checks],
            "prices": [asdict(one) for one in self.prices],
            "forecast": asdict(self.forecast) if self.forecast is not None else None,
        }


def check(
    model: nn.Module,
    data: Any,
    update: Any,
    blocks: Sequence[Block],
    *,
    output: str = "auto",
    labels: str = "auto",
    probe: Callable[[], Any] | None = None,
    probe_examples: int = 0,
    parts: float = 1.0,
    priced: bool = True,
    apart: bool = False,
) -> Check:
    """Examine a model: `data` is the probe set, `update` one training batch with labels. Nothing is trained.

    `probe` is what will be measured, of `probe_examples` examples; without it a probe of all of `data` with its
    diagonal is priced. `apart`: check every parameter for itself, on all examples of the first batch. An update is
    `parts` times the batch `update`. Raises `InputError` for what cannot be measured.
    """
    probe_set = ProbeSet.of(data)
    first = probe_set.batches[0]
    if probe is None:
        probe_examples = probe_set.examples

        plan = Plan()  # as a tracker has: what is proved is proved once
        options: dict[str, Any] = {"blocks": blocks, "output": output, "labels": labels, "plan": plan}

        def probe() -> Any:
            return estimate_fisher(model, probe_set.batches, diagonal=True, **options)

    rows = coverage(model, blocks, first, output=output)
    checked = self_checks(
        model, first, blocks=blocks, labels=labels, output=output, examples=None if apart else 2, apart=apart
    )
    forecast = _forecast(model, probe, probe_examples, update, parts) if priced else None
    return Check(rows, checked, forecast, prices(model, blocks, first, rows, labels=labels, output=output))


def _forecast(
    model: nn.Module, probe: Callable[[], Any], examples: int, update: Any, parts: float
) -> Forecast:
    device = next(model.parameters()).device
    inputs = {key: value.to(device) for key, value in update.items() if isinstance(value, torch.Tensor)}
    trainable = [p for p in model.parameters() if p.requires_grad]

    def one_part() -> None:
        torch.autograd.grad(model(**inputs).loss, trainable, allow_unused=True)

    one_part()  # the first pass allocates and compiles
    update_memory = peak_of(one_part, device)
    memory = peak_of(probe, device)
    return Forecast(
        examples,
        _seconds(probe, device),
        round(len(next(iter(inputs.values()))) * parts),
        _seconds(one_part, device) * parts,
        memory,
        update_memory,
    )


def _seconds(action: Callable[[], Any], device: torch.device, times: int = 3) -> float:
    """The shortest of a few, or of one where that takes long."""
    found: list[float] = []
    while len(found) < times and sum(found) < ENOUGH:
        began = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - began)
    return min(found)
