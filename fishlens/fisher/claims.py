"""What a rule claims: the sum of the gradients of all examples is the gradient that autograd gives.

Computed the way a probe computes it, calls of one kind together.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fishlens.fisher.gradients import PerExampleGradient
from fishlens.fisher.passes import Pass
from fishlens.fisher.rows import Rows, row_norms
from fishlens.fisher.taps import ChangedInPlace, Tapped, Taps
from fishlens.fisher.tolerance import Tolerance

CLAIM = Tolerance({torch.float64: 1e-4, torch.float32: 2e-3}, 5e-2)
"""Between the sum and autograd's gradient, relative to the latter (float64 models may compute parts of themselves in
float32)."""
ROUNDING = 2e-3  # what rounding does to that sum, relative to a bound of its terms, in units of the above
GROUP = 2**30  # bytes of gradients that a comparison holds at a time


class Claims:
    """The claims of the `fast` parameters; `memory`: as in the probe."""

    def __init__(
        self, taps: Taps, parameters: Mapping[str, nn.Parameter], fast: frozenset[str], memory: int
    ) -> None:
        self.taps, self.parameters, self.fast, self.memory = taps, parameters, fast, memory
        self.unreached: set[str] = set()  # autograd has no gradient for them
        self.silent: set[str] = set()  # no gradient came back from their taps
        self.twice: set[str] = set()  # squared in parts, which the sum of the parts does not show
        self.norms: dict[str, dict[str, Tensor]] = {"gradient": {}, "largest": {}, "difference": {}}
        self.claimed: dict[str, Tensor] = {}  # the sums of those without a gradient

    def compare(self, logits: Tensor, cotangent: Tensor, names: Sequence[str], rows: Rows) -> None:
        """One backward pass for as many of the parameters `names` as fit into `GROUP` bytes; `rows` watches it."""
        for group in self._groups(names):
            self._compare(logits, cotangent, group, rows)

    def _groups(self, names: Sequence[str]) -> list[list[str]]:
        groups: list[list[str]] = [[]]
        room = GROUP
        for name in names:
            size = 4 * self.parameters[name].numel()
            if size > room and groups[-1]:
                groups.append([])
                room = GROUP
            groups[-1].append(name)
            room -= size
        return groups

    def _compare(self, logits: Tensor, cotangent: Tensor, group: Sequence[str], rows: Rows) -> None:
        sums: dict[str, Tensor] = {}

        def receive(names: tuple[str, ...], gradient: PerExampleGradient) -> None:
            for name, total in zip(names, gradient.totals(len(names)), strict=True):
                total = total.reshape(self.parameters[name].shape)
                if name in sums:
                    self.twice.add(name)
                    total = sums[name] + total
                sums[name] = total

        def watch(calls: Sequence[Tapped], a: Tensor, g: Tensor) -> None:
            if any(tapped.stale for tapped in calls):
                raise ChangedInPlace
            if any(id(tapped.call) not in rows.before for tapped in calls):
                rows.before |= row_norms(self.taps, calls, g)

        one = Pass(self.taps, self.fast.intersection(group), receive, self.memory, watch)
        inputs = [self.parameters[name] for name in group]
        try:
            found = one.run(logits, cotangent, retain_graph=True, inputs=inputs)
        except RuntimeError as error:
            if "modified by an inplace operation" in str(error):
                raise ChangedInPlace from error
            raise
        gradients = {name: g for name, g in zip(group, found, strict=True) if g is not None}
        self.unreached |= set(group) - gradients.keys()
        self.silent |= gradients.keys() - sums.keys()
        self._measure(sums, gradients)

    def _measure(self, sums: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """The norms that the verdict needs: a few operations for all parameters together."""
        strided = {name: g if g.layout == torch.strided else g.to_dense() for name, g in gradients.items()}
        wide = {name: g.to(sums[name].dtype) if name in sums else g for name, g in strided.items()}
        self.norms["gradient"] |= _norms(wide, 2)
        self.norms["largest"] |= _norms(strided, float("inf"))
        both = [name for name in wide if name in sums]
        if both:
            differences = torch._foreach_sub([sums[name] for name in both], [wide[name] for name in both])
            self.norms["difference"] |= _norms(dict(zip(both, differences, strict=True)), 2)
        self.claimed |= _norms({name: sum_ for name, sum_ in sums.items() if name not in gradients}, 2)

    @property
    def waiting(self) -> dict[str, Any]:
        """What `verdict` needs of the device."""
        return {**self.norms, "claimed": self.claimed}

    def verdict(
        self, waiting: Mapping[str, Any], sizes: Mapping[str, float], tolerance: float
    ) -> tuple[frozenset[str], frozenset[str]]:
        """(parameters whose sum is not autograd's gradient, parameters whose gradient is zero).

        `sizes`: a bound of the terms of each sum.
        """
        zero = self.unreached | {name for name, largest in waiting["largest"].items() if largest == 0}
        wrong = {name for name, claimed in waiting["claimed"].items() if claimed != 0}
        wrong |= self.twice | (self.silent - zero)
        for name, difference in waiting["difference"].items():
            gradient = float(waiting["gradient"][name])
            allowed = tolerance * (gradient + ROUNDING * sizes.get(name, 0.0))
            if np.isfinite(gradient) and not difference <= allowed:
                wrong.add(name)
        return frozenset(wrong), frozenset(zero)


def _norms(tensors: Mapping[str, Tensor], order: float) -> dict[str, Tensor]:
    there = {name: t for name, t in tensors.items() if t.numel()}
    if not there:
        return {}
    return dict(zip(there, torch._foreach_norm(list(there.values()), order), strict=True))
