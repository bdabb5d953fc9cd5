"""Calls of one rule and one shape, reduced together: twelve layers' adapters in one product instead of twelve.

Where launching an operation costs more than its arithmetic, this is most of what a probe costs. Where it does not,
laying calls side by side is a copy for nothing: large calls are reduced alone, as soon as their gradient is there.
"""

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
    open_groups: dict[Hashable, list[Tapped]] = {}
    limits: dict[torch.device, int] = {}
    for tapped in calls:
        kind, a, shape = kind_of(tapped), tapped.call.stored, tapped.shape
        if (small := limits.get(a.device)) is None:
            small = limits[a.device] = min(small_on(a.device), memory // MOST_WAITING)
        gradients = examples * shape[-1] * (a.shape[-1] if a.is_floating_point() else 1)
        size = a.nbytes + 4 * (shape.numel() + gradients)  # as float32
        if kind is None or size > small:
            groups.append([tapped])
            continue
        key = (kind, a.shape, shape, a.dtype)
        group = open_groups.get(key)
        if group is None or size * len(group) >= MOST_WAITING * small:
            groups.append(group := [])
            open_groups[key] = group
        group.append(tapped)
    return groups


def small_on(device: torch.device) -> int:
    return SMALL.get(device.type, SMALL_ELSEWHERE)


def joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]  # type: ignore[arg-type]
