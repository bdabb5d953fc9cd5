"""One number for every entry of every parameter, summed over passes and batches; and what every block needs of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fishlens.fisher.transfer import widest

Groups = Mapping[tuple[str, ...], Tensor]
"""The names of K parameters of one shape -> their entries, `[K, *shape]`."""


class Sums:
    """Parameters that are reduced together lie in one tensor, so that adding to all of them is one operation."""

    def __init__(self, shapes: Mapping[str, torch.Size], dtype: torch.dtype, device: torch.device) -> None:
        self.shapes, self.dtype, self.device = shapes, dtype, device
        self.groups: dict[tuple[str, ...], Tensor] = {}
        self._parts: dict[str, Tensor] = {}

    def add(self, names: tuple[str, ...], values: Tensor, weight: float) -> None:
        """`weight` times the entries of K parameters, `[K, …]`: a tensor that nobody else has a use for."""
        values = values.to(self.device, self.dtype).view(len(names), *self.shapes[names[0]])
        if names in self.groups:
            self.groups[names].add_(values, alpha=weight)
        elif self._parts.keys().isdisjoint(names):
            self._begin(names, values if weight == 1 else values.mul_(weight))
        else:  # another batch, of other groups
            torch._foreach_add_([self.part(name) for name in names], list(values.unbind(0)), alpha=weight)

    def part(self, name: str) -> Tensor:
        """The entries of one parameter, of its shape: zeros at first."""
        if name not in self._parts:
            zeros = torch.zeros((1, *self.shapes[name]), dtype=self.dtype, device=self.device)
            self._begin((name,), zeros)
        return self._parts[name]

    def _begin(self, names: tuple[str, ...], values: Tensor) -> None:
        self.groups[names] = values
        self._parts |= zip(names, values.unbind(0), strict=True)

    def divide(self, divisor: float) -> None:
        """The end: sums become means, and what never got anything is zero."""
        for name in self.shapes.keys() - self._parts.keys():
            self.part(name)
        torch._foreach_div_(list(self.groups.values()), divisor)

    @property
    def parts(self) -> dict[str, Tensor]:
        """The entries of every parameter, by name."""
        return {name: self._parts[name] for name in self.shapes}


@dataclass(frozen=True)
class BlockSums:
    """Of every block: Σd and Σd² of its diagonal (`diagonal`), and ‖mean gradient‖²; empty where there is none."""

    diagonal: Mapping[str, tuple[float, float]]
    mean_square: Mapping[str, float]

    @classmethod
    def of(
        cls,
        parameters: Mapping[str, Sequence[str]],
        both_groups: Sequence[Groups | None],
        waiting: Sequence[Any],
    ) -> "BlockSums":
        """From what `waiting_sums` left on the device, once it is fetched. `parameters`: names by block."""
        row_of = {name: row for row, names in enumerate(parameters.values()) for name in names}
        both = []
        for groups, moments in zip(both_groups, waiting, strict=True):
            table: list[list[float]] = [[], []]
            if groups is not None:
                rows = [row_of[name] for names in groups for name in names]
                one, norm, largest = moments
                each = (one * largest, (norm * largest) ** 2)
                table = [np.bincount(rows, values, len(parameters)).tolist() for values in each]
            both.append(table)
        (sums, squares), (_, mean_square) = both
        moments_of = zip(sums, squares, strict=True)
        return cls(
            dict(zip(parameters, moments_of, strict=False)), dict(zip(parameters, mean_square, strict=False))
        )


def waiting_sums(both_groups: Sequence[Groups | None]) -> list[Any]:
    """What `BlockSums` needs of a diagonal and of a mean gradient, on the device."""
    return [None if groups is None else _moments(list(groups.values())) for groups in both_groups]


def _moments(groups: Sequence[Tensor]) -> tuple[Tensor, Tensor, Any]:
    """Σx, ‖x‖, and what both are relative to, of every parameter of every group, one after the other."""
    if widest(groups[0].device) is not torch.float64:  # relative to the largest entry, so that float32 does
        flat = [group.flatten(1) for group in groups]
        largest = [x.abs().amax(1).clamp(min=torch.finfo(x.dtype).tiny) for x in flat]
        parts = [
            (x.sum(1), torch.linalg.vector_norm(x, dim=1))
            for x in (x / m.unsqueeze(1) for x, m in zip(flat, largest, strict=True))
        ]
        return *map(torch.cat, zip(*parts, strict=True)), torch.cat(largest)  # type: ignore[return-value]
    alone = [group for group in groups if len(group) == 1]
    norms = iter(torch._foreach_norm(alone, dtype=torch.float64) if alone else ())
    parts = []
    for group in groups:
        if len(group) == 1:
            parts.append((group.sum(dtype=torch.float64).view(1), next(norms).view(1)))
        else:
            wide = group.flatten(1).double()
            parts.append((wide.sum(1), torch.linalg.vector_norm(wide, dim=1)))
    return *map(torch.cat, zip(*parts, strict=True)), 1.0  # type: ignore[return-value]
