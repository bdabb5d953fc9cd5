"""Calls of one rule and one shape, reduced together: twelve layers' adapters in one product instead of twelve.

Where launching an operation costs more than its arithmetic, this is most of what a probe costs. Where it does not,
laying calls side by side is a copy for nothing: large calls are reduced alone, as soon as their gradient is there.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fishlens.fisher.taps import Tapped

SMALL = {"cpu": 2**19}
"""Bytes up to which a call (input, output gradient, gradients of its examples) goes together with others."""
SMALL_ELSEWHERE = 2**24
MOST_WAITING = 32  # so many of the largest: the memory that the calls of a group may take


def grouped(
    calls: Iterable["Tapped"], kind_of: Callable[["Tapped"], Hashable], examples: int, memory: int
) -> list[list["Tapped"]]:
    """The calls, those of one kind (None: each alone) and shape together; `memory`: bytes that the gradients of a group
    may take."""
    groups: list[list[Tapped]] = []
    last: dict[Hashable, list[Tapped]] = {}  # the group that the next call of a kind and shape goes to
    most: dict[Hashable, int] = {}  # calls of a kind and shape that go together
    for tapped in calls:
        kind, a, shape = kind_of(tapped), tapped.call.stored, tapped.shape
        key = None if kind is None else (kind, a.shape, shape, a.dtype, a.device)
        if key not in most:
            most[key] = 1 if kind is None else _most_of(a, shape, examples, memory)
        if key not in last or len(last[key]) >= most[key]:
            last[key] = []
            groups.append(last[key])
        last[key].append(tapped)
    return groups


def _most_of(a: Tensor, shape: tuple[int, ...], examples: int, memory: int) -> int:
    """How many calls with such an input, and outputs of this shape, go together."""
    gradients = examples * shape[-1] * (a.shape[-1] if a.is_floating_point() else 1)
    size = a.nbytes + 4 * (math.prod(shape) + gradients)  # as float32
    small = min(small_on(a.device), memory // MOST_WAITING)
    return MOST_WAITING * small // size if size <= small else 1


def small_on(device: torch.device) -> int:
    return SMALL.get(device.type, SMALL_ELSEWHERE)


def joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]  # type: ignore[arg-type]
