"""Backward passes through the taps: every tapped call becomes the per-example gradients of its parameters."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from fishlens.fisher.again import Again
from fishlens.fisher.gradients import Dense, PerExampleGradient, joined
from fishlens.fisher.interrupts import stop_if_interrupted
from fishlens.fisher.operations import Meeting
from fishlens.fisher.taps import OnCalls, Tapped, Taps, without_autocast
from fishlens.fisher.together import grouped

Reduced = Callable[[tuple[str, ...], PerExampleGradient], None]
"""(names of K parameters of one shape, the gradients of all examples of each of them one after the other) -> None"""
Receive = Callable[[tuple[str, ...], PerExampleGradient, int], None]
"""The same, and the number of the backward pass."""


class Pass:
    """Backward passes whose calls are reduced: `receive` gets the gradients of the `fast` parameters.

    `together`: bytes that the gradients of several parameters may take at a time; 0: each parameter alone. `watch` is
    called with all tapped calls, of other parameters too, before they are reduced. `seen`: the parameters of which a
    gradient came back.
    """

    def __init__(
        self,
        taps: Taps,
        fast: frozenset[str],
        receive: Reduced,
        together: int = 0,
        watch: OnCalls | None = None,
    ) -> None:
        self.taps, self.fast, self.receive, self.watch = taps, fast, receive, watch
        self.seen: set[str] = set()
        self.parts: defaultdict[str, list[PerExampleGradient]] = defaultdict(list)  # of one parameter's calls
        self.unscale: Tensor | None = None
        asked = [
            t for t in taps.tapped if t.asked and (watch is not None or not fast.isdisjoint(t.names.values()))
        ]
        self.groups = grouped(asked, self._kind, taps.examples, together)

    def _wanted(self, tapped: Tapped) -> tuple[str, ...]:
        """Local names of the fast parameters of a call."""
        return tuple([local for local, name in tapped.names.items() if name in self.fast])

    def _kind(self, tapped: Tapped) -> Hashable:
        """Calls of one kind can be reduced together; None: alone."""
        calls = self.taps.calls
        if tapped.chosen or any([calls[name] > 1 for name in tapped.names.values()]):  # noqa: C419 (a generator is slow)
            return None
        kind = tapped.rule.kind(tapped.call.module)
        return None if kind is None else (tapped.rule, kind, self._wanted(tapped))

    def run(
        self,
        logits: Tensor,
        cotangent: Tensor,
        *,
        retain_graph: bool,
        unscale: Tensor | None = None,
        inputs: Sequence[Tensor] = (),
    ) -> tuple[Tensor | None, ...]:
        """One backward pass; the gradients of `inputs`. Every example's gradient is multiplied by its number of
        `unscale` `[N]`."""
        self.unscale = unscale
        gradients = self.taps.backward(
            logits, cotangent, self._take, self.groups, inputs, retain_graph=retain_graph
        )
        with without_autocast(logits.device):
            for name, found in self.taps.settle(self.fast).items():
                self.seen.add(name)
                self.receive((name,), found)
            for name, parts in self.parts.items():
                self.receive((name,), joined(parts))
        self.parts.clear()
        return gradients

    def _take(self, calls: Sequence[Tapped], a: Tensor, g: Tensor) -> None:
        if self.watch is not None:
            self.watch(calls, a, g)
        if wanted := self._wanted(calls[0]):
            self._reduce(calls, a, g, wanted)

    def _reduce(self, calls: Sequence[Tapped], a: Tensor, g: Tensor, wanted: tuple[str, ...]) -> None:
        first, taps = calls[0], self.taps
        if isinstance(first.call.module, Meeting):
            taps.meet(first.call.module, g, self.unscale)
            return
        if isinstance(first.call.module, Again):
            again = first.call.module.gradients(g, taps.examples, self.unscale)
            found: Mapping[str, PerExampleGradient] = {name: Dense(again[name]) for name in wanted}
        else:
            found = first.rule.gradients(
                [tapped.call.module for tapped in calls], *taps.sides(calls, a, g, self.unscale)
            )
        for local in wanted:
            names = tuple([tapped.names[local] for tapped in calls])
            self.seen.update(names)
            if local not in found:
                continue
            if taps.calls[names[0]] == 1:
                self.receive(names, found[local])
            else:
                self.parts[names[0]].append(found[local])


def back_propagate(
    taps: Taps,
    logits: Tensor,
    cotangents: Iterator[Tensor],
    passes: int,
    fast: frozenset[str],
    receive: Receive,
    half: bool = False,
    together: int = 0,
) -> frozenset[str]:
    """Back-propagates every cotangent; `receive` gets names, gradients and the number of the pass.

    `half`: float16 takes part, in which small gradients vanish. Returns those of the `fast` parameters of which no
    gradient came back.
    """
    if not fast or not logits.requires_grad:
        return fast
    number = 0
    one = Pass(taps, fast, lambda names, gradient: receive(names, gradient, number), together)
    for number, cotangent in enumerate(cotangents):
        stop_if_interrupted()
        cotangent, unscale = enlarged(cotangent, half)
        one.run(logits, cotangent, retain_graph=number + 1 < passes, unscale=unscale)
    return fast - one.seen


HALF_PEAK = 6  # cotangents of float16 peak at 2⁶: far from underflow, and from overflow inside the network


def enlarged(cotangent: Tensor, half: bool) -> tuple[Tensor, Tensor | None]:
    """The cotangent `[N, …]` with every example's times a power of two, and what undoes that, `[N]`, exactly.

    Where the model is certain, the gradients of its loss are too small for float16.
    """
    if not half:
        return cotangent, None
    peaks = cotangent.float().abs().flatten(1).amax(1)
    exponents = torch.where(peaks > 0, HALF_PEAK - torch.frexp(peaks).exponent, 0).clamp(-100, 100)
    ones = torch.ones_like(peaks)
    scale = torch.ldexp(ones, exponents).view(-1, *[1] * (cotangent.dim() - 1))
    return cotangent.float() * scale, torch.ldexp(ones, -exponents)
