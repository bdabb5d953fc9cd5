"""Are the rows of a tapped call the examples? Every example's cotangent is weighed, and its rows must follow.

The weights are powers of two, and zero for one example: the rows of an example must get exactly its weight times what
they got before, whatever the precision. Rows of several examples, or of another one, do not.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from backpack import backpack
from torch import Tensor

from fishlens.fisher.taps import Tapped, Taps, gradient_of
from fishlens.fisher.together import grouped
from fishlens.fisher.tolerance import Tolerance
from fishlens.fisher.transfer import fetched

ROWS = Tolerance({torch.float64: 5e-6, torch.float32: 1e-3}, 5e-2)
"""Between the norm of what the rows of an example get and of what they must get."""
POWERS, FEW_POWERS = 24, 5  # float16 overflows


def example_weights(examples: int, powers: int, seed: int = 0) -> np.ndarray:
    """A weight for every example: zero for one, and for the others powers of two, no two alike in `powers`
    neighbours."""
    draw = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, examples]))
    exponents = np.concatenate([draw.permutation(powers) for _ in range(0, examples, powers)])[:examples]
    weights = np.exp2(exponents.astype(np.float64))
    if examples > 1:
        weights[draw.integers(examples)] = 0.0
    return weights


def row_norms(taps: Taps, calls: Sequence[Tapped], g: Tensor) -> dict[int, Tensor]:
    """‖g_n‖ of every example's rows, `[N]`, of each of K calls, by the identity of the call, from the gradients `g` of
    their outputs."""
    norms = _norms(taps.rows_of(calls, g)).view(len(calls), -1)
    return {id(tapped.call): each for tapped, each in zip(calls, norms, strict=True)}


class Rows:
    """The norm of every example's rows in every tapped call, before its cotangent is weighed and after."""

    def __init__(self, taps: Taps) -> None:
        self.taps = taps
        self.calls = {id(tapped.call): tapped for tapped in taps.tapped}
        self.before: dict[int, Tensor] = {}  # by the identity of the call, `[N]`
        self.after: dict[int, Tensor] = {}

    def weigh(self, logits: Tensor, cotangent: Tensor, weights: np.ndarray, memory: int) -> None:
        """The pass after; `memory`: bytes that the calls of a group may take."""
        asked = [tapped for tapped in self.taps.tapped if tapped.asked]
        groups = grouped(asked, _kind, self.taps.examples, memory)

        def take(calls: Sequence[Tapped], a: Tensor, g: Tensor) -> None:
            self.after |= row_norms(self.taps, calls, g)

        self.taps.backward(logits, weighed(cotangent, weights), take, groups, retain_graph=True)

    @property
    def waiting(self) -> dict[str, Any]:
        """What `mixed` and `sizes` need of the device."""
        stored = {key: self.calls[key].call.stored.detach() for key in self.before}
        floats = {key: x for key, x in stored.items() if x.is_floating_point() and x.numel()}
        norms = torch._foreach_norm([_wide(x) for x in floats.values()]) if floats else []
        return {
            "before": self.before,
            "after": {key: self.after[key] for key in self.before if key in self.after},
            "stored": dict(zip(floats, norms, strict=True)),
        }

    def mixed(self, waiting: Mapping[str, Any], weights: np.ndarray, tolerance: float) -> list[Tapped]:
        """The calls whose rows are not the examples."""
        after = waiting["after"]
        return [
            self.calls[key]
            for key, before in waiting["before"].items()
            if key in after and leaks(before, after[key], weights, tolerance)
        ]

    def sizes(self, waiting: Mapping[str, Any]) -> dict[str, float]:
        """For every parameter, a bound of what rounding can do to Σ g aᵀ: ‖g‖ (‖a‖ + √ of its numbers)."""
        found: dict[str, float] = {}
        for key, before in waiting["before"].items():
            tapped = self.calls[key]
            a = float(waiting["stored"].get(key, 0.0)) + tapped.call.stored.numel() ** 0.5
            for name in tapped.names.values():
                found[name] = found.get(name, 0.0) + float(np.linalg.norm(before.astype(float))) * a
        return found


def _kind(tapped: Tapped) -> Hashable:
    return None if tapped.chosen else tapped.rule.label


def mixed_calls(
    taps: Taps,
    calls: Sequence[Tapped],
    logits: Tensor,
    cotangent: Tensor,
    weights: np.ndarray,
    tolerance: float,
) -> list[Tapped]:
    """Those of the `calls` whose rows are not the examples, and nothing else of the model."""
    edges = [tapped.edge for tapped in calls]
    with backpack(retain_graph=True):  # the calls keep what they stored
        plain = gradient_of(logits, edges, cotangent, retain_graph=True)
        after = gradient_of(logits, edges, weighed(cotangent, weights), retain_graph=True)
    there = [row for row in zip(calls, plain, after, strict=True) if row[1] is not None]
    norms = fetched([[_norms(taps.rows_of([row[0]], g)) for g in row[1:] if g is not None] for row in there])
    return [
        tapped
        for (tapped, *_), (before, after) in zip(there, norms, strict=True)
        if leaks(before, after, weights, tolerance)
    ]


def _norms(g: Tensor) -> Tensor:
    return torch.linalg.vector_norm(g.flatten(1), dim=1)


def weighed(cotangent: Tensor, weights: np.ndarray) -> Tensor:
    return cotangent * torch.from_numpy(weights.astype(np.float32)).to(cotangent).view(-1, 1, 1)


def leaks(before: np.ndarray, after: np.ndarray, weights: np.ndarray, tolerance: float) -> bool:
    """Whether any example's rows have not grown by its weight."""
    expected = weights * before
    with np.errstate(invalid="ignore"):
        return bool((np.abs(after - expected) > tolerance * expected).any())


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
