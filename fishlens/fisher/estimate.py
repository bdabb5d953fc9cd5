"""FisherEstimate: what a probe found, and how several become one."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fishlens.errors import InputError
from fishlens.fisher.sums import BlockSums, Groups, waiting_sums
from fishlens.fisher.transfer import fetched

# what must agree for two estimates to be parts of one
IDENTITY = ("labels", "samples", "granularity", "output", "mode", "dtype", "blocks", "preset")


@dataclass(frozen=True)
class FisherEstimate:
    """Fisher information of every block.

    `trace`: tr(F_b). `stderr`: its standard error over examples, sd/√N with N−1 in the variance (nan for
    one example). `per_example`: the N contributions whose mean is the trace, float64 on the CPU (with
    `granularity="batch"`: one per batch). `diagonal`: diag(F) by parameter name, of the parameter's shape,
    on the model's device. `effective_dimension`: (Σd)²/Σd² of a block's diagonal d. `noise_scale`:
    tr(Σ)/|G|², in examples (`labels="empirical"` only). `spectrum`: the eigenvalues of F_b that can differ
    from zero, descending. `entropy`, `confidence`: of every example's prediction (`certainty`), `[N]`, without any
    gradient. What was not asked for, or is not there, is None. `meta` is the identity of these numbers
    (JSON-able).
    """

    trace: dict[str, float]
    stderr: dict[str, float]
    per_example: dict[str, Tensor] = field(repr=False)
    meta: dict[str, Any] = field(repr=False)
    diagonal: dict[str, Tensor] | None = field(default=None, repr=False)
    mean_gradient: dict[str, Tensor] | None = field(default=None, repr=False)
    spectrum: dict[str, Tensor] | None = field(default=None, repr=False)
    parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    entropy: Tensor | None = field(default=None, repr=False)
    confidence: Tensor | None = field(default=None, repr=False)
    sums: BlockSums | None = field(default=None, repr=False)

    @property
    def examples(self) -> int:
        """Number of examples measured."""
        return self.meta["examples"]

    @property
    def effective_dimension(self) -> dict[str, float] | None:
        """(Σd)²/Σd² of every block's diagonal: between 1 and its number of parameters; None without
        `diagonal`."""
        if self.diagonal is None:
            return None
        return {block: _ratio(*sums) for block, sums in self._sums.diagonal.items()}

    @property
    def _sums(self) -> BlockSums:
        if self.sums is not None:
            return self.sums
        groups: list[Groups | None] = [
            None if entries is None else {(name,): entry.unsqueeze(0) for name, entry in entries.items()}
            for entries in (self.diagonal, self.mean_gradient)
        ]
        return BlockSums.of(self.parameters, groups, fetched(waiting_sums(groups)))

    @property
    def noise_scale(self) -> dict[str, float] | None:
        """Simple gradient noise scale B = tr(Σ)/|G|² (McCandlish et al. 2018, Eq. 2.9), in examples.

        Both parts are unbiased: |G|² loses what the noise of N examples adds to it, so it can come out
        negative when N is far below B; then the scale is infinite as far as these examples can tell. None
        unless `noise_scale=True` was asked for.
        """
        if self.mean_gradient is None:
            return None
        count, found = self.examples, {}
        for block, mean_square in self._sums.mean_square.items():
            if count < 2:
                found[block] = math.nan
                continue
            noise = (self.trace[block] - mean_square) * count / (count - 1)
            signal = mean_square - noise / count
            found[block] = noise / signal if signal > 0 else math.inf
        return found


def _ratio(one: float, two: float) -> float:
    return one**2 / two if two > 0 else math.nan


def summarise(blocks: Iterable[str], table: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and standard error (ddof = 1; nan for one value) of every block's contributions, `[B, N]`."""
    names, count = list(blocks), table.shape[1]
    mean = table.sum(1) / count
    square = np.square(table - mean[:, np.newaxis]).sum(1)
    error = np.sqrt(square / (count - 1) / count) if count > 1 else np.full(len(table), math.nan)
    return dict(zip(names, mean.tolist(), strict=True)), dict(zip(names, error.tolist(), strict=True))


def merge(estimates: Sequence[FisherEstimate]) -> FisherEstimate:
    """The estimate of all their examples together.

    Exact for traces, standard errors, diagonals and noise scales; a spectrum cannot be merged and is dropped.
    Raises `InputError` if they are not parts of one thing (other labels, blocks, granularity, …).
    """
    estimates = list(estimates)
    if not estimates:
        raise InputError("no estimate was given to merge; expected at least one")
    first = estimates[0]
    for other in estimates[1:]:
        for key in IDENTITY:
            if other.meta.get(key) != first.meta.get(key):
                raise InputError(
                    f"cannot merge estimates with {key} {first.meta.get(key)!r} and {other.meta.get(key)!r}"
                )
        if list(other.trace) != list(first.trace):
            raise InputError("cannot merge estimates of different blocks")
    if first.meta["normalisation"].startswith("sum"):
        raise InputError(
            f"estimates of preset {first.meta['preset']!r} are sums over batches and cannot be merged"
        )
    per_example = {b: torch.cat([e.per_example[b] for e in estimates]) for b in first.trace}
    trace, stderr = summarise(per_example, np.stack([values.numpy() for values in per_example.values()]))
    weights = [len(next(iter(e.per_example.values()))) for e in estimates]
    notes = list(dict.fromkeys(note for e in estimates for note in e.meta["notes"]))
    meta = {**first.meta, "examples": sum(e.examples for e in estimates), "notes": notes}
    return FisherEstimate(
        trace=trace,
        stderr=stderr,
        per_example=per_example,
        meta=meta,
        diagonal=_mean([e.diagonal for e in estimates], weights),
        mean_gradient=_mean([e.mean_gradient for e in estimates], weights),
        parameters=first.parameters,
        entropy=_joined([e.entropy for e in estimates]),
        confidence=_joined([e.confidence for e in estimates]),
    )


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if len(there) == len(parts) else None


def _mean(parts: Sequence[dict[str, Tensor] | None], weights: Sequence[int]) -> dict[str, Tensor] | None:
    """The weighted mean of tensors by name; None if any part lacks them."""
    there = [part for part in parts if part is not None]
    if len(there) < len(parts):
        return None
    total = sum(weights)
    return {
        name: torch.stack([p[name] * (w / total) for p, w in zip(there, weights, strict=True)]).sum(0)
        for name in there[0]
    }
