"""The tally of a probe: per-example gradients in; traces, diagonals and spectra out; on the device until
the end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fishlens.errors import InputError
from fishlens.fisher.blocks import Block
from fishlens.fisher.gradients import PerExampleGradient, flattened
from fishlens.fisher.labels import Draw
from fishlens.fisher.sums import Sums
from fishlens.fisher.transfer import widest


def extremes(logits: Tensor) -> Tensor:
    """The smallest and the largest, `[2]`: finite where all are; nothing of their size is made."""
    return torch.stack(torch.aminmax(logits.detach()))


@dataclass(frozen=True)
class Norms:
    """`values`: ‖s_n‖² of K parameters and n examples, `[K·n]`; the examples are those from `start` on, counted over
    all batches."""

    names: tuple[str, ...]
    start: int
    weight: float
    values: Tensor


class Tally:
    """Sums over backward passes and batches; nothing leaves the device before it is `fetched`.

    Wanted or not: `diagonal` sums s² (one number per parameter), `mean` sums s (the same), `spectrum` keeps
    every s (refused if all of them would take more than `memory` bytes).
    """

    def __init__(
        self, blocks: Sequence[Block], *, diagonal: bool, spectrum: bool, mean: bool, memory: int
    ) -> None:
        self.blocks = list(blocks)
        self.row_of = {name: row for row, block in enumerate(blocks) for name in block.parameters}
        self.shapes = {name: p.shape for block in blocks for name, p in block.parameters.items()}
        self.want_diagonal, self.want_spectrum, self.want_mean = diagonal, spectrum, mean
        self.memory = memory
        self.scale = 1.0  # of all contributions
        self.examples = self.batches = self.contributions = self.kept_bytes = 0
        self.norms: list[Norms] = []
        self.flags: list[tuple[Tensor, Tensor | None]] = []  # (extreme logits, label out of range) per batch
        self.squares: Sums | None = None
        self.sums: Sums | None = None
        self.kept: dict[str, list[Tensor]] = {
            name: [] for name in self.shapes
        }  # [passes, N, numel] per batch

    @property
    def takes_many(self) -> bool:
        """Whether `add` may be given the gradients of several parameters of one shape at once."""
        return not (self.want_spectrum or self.want_mean)

    def start(self, logits: Tensor, size: int, draw: Draw) -> None:
        """Before the gradients of a batch: `size` contributions from the passes of `draw`.

        Remembers, without waiting for the device, whether the logits are finite and the labels in range.
        """
        self.device = logits.device
        self.dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        self.size, self.weight = size, 1 / draw.samples
        if self.want_diagonal and self.squares is None:
            self.squares = Sums(self.shapes, self.dtype, self.device)
        if self.want_mean and self.sums is None:
            self.sums = Sums(self.shapes, self.dtype, self.device)
        self.flags.append((extremes(logits), draw.invalid))
        if self.want_spectrum:
            self._make_room(size * draw.passes)
            for name, shape in self.shapes.items():
                self.kept[name].append(self._zeros(draw.passes, size, shape.numel()))

    def _make_room(self, gradients: int) -> None:
        width = sum(shape.numel() for shape in self.shapes.values())
        self.kept_bytes += gradients * width * self.dtype.itemsize
        if self.kept_bytes > self.memory:
            raise InputError(
                f"spectrum=True keeps every gradient of every example, {self.kept_bytes / 2**20:.0f} MiB so far and "
                f"more than memory={self.memory} bytes; measure fewer blocks or examples, or allow more memory"
            )

    def add(
        self, names: tuple[str, ...], gradient: PerExampleGradient, number: int, example: int | None = None
    ) -> None:
        """The gradients of K parameters of one shape, K·N "examples" one after the other, from pass `number`; of all
        examples of the batch or of `example` alone."""
        if len(names) > 1:
            norms = self._squares_of_many(names, gradient)
        elif self.squares is not None:
            into = self.squares.part(names[0]).view(gradient.shape)
            norms = gradient.squares(gradient.chunk_for(self.memory), into, self.weight)
        else:
            norms = gradient.squared_norms(gradient.chunk_for(self.memory))
        if self.sums is not None:
            self.sums.add(names, gradient.total(), self.weight)
        if self.want_spectrum:
            rows = slice(None) if example is None else slice(example, example + 1)
            self.kept[names[0]][-1][number, rows] = flattened(gradient.dense()) * self.weight**0.5
        start = self.contributions + (example or 0)
        self.norms.append(Norms(names, start, self.weight, norms))

    def _squares_of_many(self, names: tuple[str, ...], gradient: PerExampleGradient) -> Tensor:
        if self.squares is None:
            return gradient.squared_norms(gradient.examples)
        square = gradient.squared()
        self.squares.add(names, square.view(len(names), -1, *square.shape[1:]).sum(1), self.weight)
        return flattened(square).sum(1)

    def end(self, examples: int) -> None:
        """After the gradients of a batch of `examples`."""
        self.batches += 1
        self.contributions += self.size
        self.examples += examples

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, device=self.device, dtype=self.dtype)

    def finish(self) -> None:
        """Sums become means: once, when no batch is missing."""
        for sums in (self.squares, self.sums):
            if sums is not None:
                sums.divide(self.contributions / self.scale)

    @property
    def waiting(self) -> dict[str, Any]:
        """What `per_example` needs of the device."""
        return {"norms": [norms.values for norms in self.norms], "flags": self.flags}

    def per_example(self, waiting: dict[str, Any]) -> np.ndarray:
        """Contributions to every block's trace, `[B, N]`; `InputError` if a batch was flagged."""
        for number, (numbers, wrong) in enumerate(waiting["flags"], start=1):
            if not all(map(math.isfinite, numbers.tolist())):
                raise InputError(
                    f"the logits of batch {number} are not finite (NaN or infinite); expected numbers"
                )
            if wrong:
                raise InputError(f"a label of batch {number} is out of the range of the model's output")
        table = np.zeros((len(self.blocks), self.contributions))
        # by the examples: (blocks, numbers)
        places: dict[tuple[int, int], tuple[list[int], list[np.ndarray]]] = {}
        for norms, values in zip(self.norms, waiting["norms"], strict=True):
            rows = values.reshape(len(norms.names), -1).astype(float)
            blocks, parts = places.setdefault((norms.start, norms.start + rows.shape[1]), ([], []))
            blocks += [self.row_of[name] for name in norms.names]
            parts.append(norms.weight * rows)
        for (start, stop), (blocks, parts) in places.items():
            np.add.at(table[:, start:stop], blocks, np.concatenate(parts))
        table *= self.scale
        return table

    def spectrum(self) -> dict[str, Tensor] | None:
        """Eigenvalues of every F_b that can differ from zero, descending, float64 on the CPU.

        F_b = 1/N Σ s sᵀ has those of the Gram matrix of the s, which is small: one row per example and pass.
        """
        if not self.want_spectrum:
            return None
        found = {}
        for block in self.blocks:
            rows = torch.cat(
                [
                    torch.cat([self.kept[name][batch] for name in block.parameters], dim=2).flatten(0, 1)
                    for batch in range(self.batches)
                ]
            )
            rows = rows.double() if widest(rows.device) is torch.float64 else rows.cpu().double()
            gram = rows @ rows.T / self.contributions
            found[block.name] = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0)[: block.size].cpu()
        return found
