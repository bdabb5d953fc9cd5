"""Calls of one rule and one shape, reduced together: twelve layers' adapters in one product instead of twelve.

Where launching an operation costs more than its arithmetic, this is most of what a probe costs. Where it does not,
laying calls side by side is a copy for nothing: large calls are reduced alone, as soon as their gradient is there.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fishlens.fisher.taps import Tapped

SMALL = {"cpu": 2**19}
"""Bytes up to which a call (input, output gradient, gradients of its examples) waits for others of its kind."""
SMALL_ELSEWHERE = 2**24
MOST_WAITING = 32  # so many of the largest: the memory that waiting calls may take

Group = tuple[list["Tapped"], Tensor, Tensor]
"""K calls, their inputs and the gradients of their outputs, one call after the other in the leading dimension"""


@dataclass
class Together:
    """Calls wait here for others of their kind until `flush`; `memory`: bytes that gradients may take at a time."""

    memory: int
    waiting: dict[Hashable, list[tuple["Tapped", Tensor, Tensor]]] = field(default_factory=dict)
    bytes: int = 0

    def add(self, tapped: "Tapped", a: Tensor, g: Tensor, names: Hashable, examples: int) -> Iterator[Group]:
        """What is to be reduced now. `a`, `g`: of one call; `names`: of its parameters that are wanted."""
        kind = tapped.rule.kind(tapped.call.module)
        gradients = examples * g.shape[-1] * (a.shape[-1] if a.is_floating_point() else 1)
        size = a.nbytes + g.nbytes + gradients * g.element_size()
        small = min(small_on(a.device), self.memory // MOST_WAITING)
        if kind is None or size > small:
            yield [tapped], a, g
            return
        key = (type(tapped.rule), kind, names, a.shape, g.shape, a.dtype, g.dtype)
        self.waiting.setdefault(key, []).append((tapped, a, g))
        self.bytes += size
        if self.bytes > MOST_WAITING * small:
            yield from self.flush()

    def flush(self) -> Iterator[Group]:
        """All that waits."""
        waiting, self.waiting, self.bytes = self.waiting, {}, 0
        for calls in waiting.values():
            tapped, a, g = zip(*calls, strict=True)
            yield list(tapped), _joined(a), _joined(g)


def small_on(device: torch.device) -> int:
    return SMALL.get(device.type, SMALL_ELSEWHERE)


def _joined(parts: tuple[Tensor, ...]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]
