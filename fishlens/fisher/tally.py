"""The tally of a probe: per-example gradients in; traces, diagonals and spectra out; on the device until
the end."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fishlens.errors import InputError
from fishlens.fisher.blocks import Block
from fishlens.fisher.gradients import PerExampleGradient
from fishlens.fisher.labels import Draw


class Tally:
    """Sums over backward passes and batches; nothing leaves the device before `per_example`.

    Wanted or not: `diagonal` sums s² (one tensor per parameter), `mean` sums s (the same), `spectrum` keeps
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
        self.norms: list[Tensor] = []  # [blocks, N] per batch
        self.flags: list[Tensor] = []  # [logits not finite, label out of range] per batch
        self.squares: dict[str, Tensor] = {}
        self.sums: dict[str, Tensor] = {}
        self.kept: dict[str, list[Tensor]] = {
            name: [] for name in self.shapes
        }  # [passes, N, numel] per batch

    def start(self, logits: Tensor, size: int, draw: Draw) -> None:
        """Before the gradients of a batch: `size` contributions from the passes of `draw`.

        Remembers, without waiting for the device, whether the logits are finite and the labels in range.
        """
        self.device = logits.device
        self.dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        self.size, self.weight = size, 1 / draw.samples
        self.norms.append(torch.zeros(len(self.blocks), size, device=self.device, dtype=self.dtype))
        nonfinite = ~torch.isfinite(logits.detach()).all()
        invalid = torch.zeros_like(nonfinite) if draw.invalid is None else draw.invalid
        self.flags.append(torch.stack([nonfinite, invalid]))
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

    def add(self, name: str, gradient: PerExampleGradient, number: int, example: int | None = None) -> None:
        """One parameter's gradients of all examples of the batch (or of `example` alone) from pass
        `number`."""
        chunk = gradient.chunk_for(self.memory)
        if self.want_diagonal:
            into = self.squares.setdefault(name, self._zeros(*self.shapes[name]))
            norms = gradient.squares(chunk, into.view(gradient.shape), self.weight)
        else:
            norms = gradient.squared_norms(chunk)
        if self.want_mean:
            into = self.sums.setdefault(name, self._zeros(*self.shapes[name]))
            into.add_(gradient.total().view(into.shape), alpha=self.weight)
        rows = slice(None) if example is None else slice(example, example + 1)
        if self.want_spectrum:
            self.kept[name][-1][number, rows] = gradient.dense().flatten(1) * self.weight**0.5
        self.norms[-1][self.row_of[name], rows].add_(norms, alpha=self.weight)

    def end(self, examples: int) -> None:
        """After the gradients of a batch of `examples`."""
        self.batches += 1
        self.contributions += self.size
        self.examples += examples

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, device=self.device, dtype=self.dtype)

    def per_example(self) -> dict[str, Tensor]:
        """Contributions to every block's trace, on the CPU; `InputError` if a batch was flagged."""
        norms, flags = torch.cat(self.norms, dim=1), torch.stack(self.flags)
        # wide on the CPU only: some devices have no float64
        flat = torch.cat([norms.flatten(), flags.flatten().to(norms.dtype)]).cpu().double()
        table = self.scale * flat[: norms.numel()].view(norms.shape)
        seen = flat[norms.numel() :].view(-1, 2).tolist()
        for number, (nonfinite, wrong) in enumerate(seen, start=1):
            if nonfinite:
                raise InputError(
                    f"the logits of batch {number} are not finite (NaN or infinite); expected numbers"
                )
            if wrong:
                raise InputError(f"a label of batch {number} is out of the range of the model's output")
        return {block.name: table[row].clone() for row, block in enumerate(self.blocks)}

    def diagonal(self) -> dict[str, Tensor] | None:
        """diag(F) by parameter."""
        return self._mean(self.squares) if self.want_diagonal else None

    def mean_gradient(self) -> dict[str, Tensor] | None:
        """The mean of s over examples, by parameter."""
        return self._mean(self.sums) if self.want_mean else None

    def _mean(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        count = self.contributions / self.scale
        return {n: sums[n] / count if n in sums else self._zeros(*shape) for n, shape in self.shapes.items()}

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
            rows = rows.double() if rows.device.type in ("cpu", "cuda") else rows.cpu().double()
            gram = rows @ rows.T / self.contributions
            found[block.name] = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0)[: block.size].cpu()
        return found
