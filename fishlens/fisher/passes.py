"""Backward passes through the taps: every tapped call becomes the per-example gradients of its parameters."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from fishlens.fisher.again import Again
from fishlens.fisher.gradients import Dense, PerExampleGradient, joined
from fishlens.fisher.interrupts import stop_if_interrupted
from fishlens.fisher.operations import Meeting
from fishlens.fisher.taps import OnCall, Tapped, Taps
from fishlens.fisher.together import Together

Reduced = Callable[[tuple[str, ...], PerExampleGradient], None]
"""(names of K parameters of one shape, the gradients of all examples of each of them one after the other) -> None"""
Receive = Callable[[tuple[str, ...], PerExampleGradient, int], None]
"""The same, and the number of the backward pass."""


class Pass:
    """Backward passes whose calls are reduced: `receive` gets the gradients of the `fast` parameters.

    `together`: bytes that the gradients of several parameters may take at a time; 0: each parameter alone. `seen`: the
    parameters of which a gradient came back.
    """

    def __init__(self, taps: Taps, fast: frozenset[str], receive: Reduced, together: int = 0) -> None:
        self.taps, self.fast, self.receive, self.together = taps, fast, receive, together
        self.seen: set[str] = set()
        self.parts: defaultdict[str, list[PerExampleGradient]] = defaultdict(list)  # of one parameter's calls
        self.unscale: Tensor | None = None
        self.pending = Together(together)

    def run(
        self,
        logits: Tensor,
        cotangent: Tensor,
        *,
        retain_graph: bool,
        unscale: Tensor | None = None,
        inputs: Sequence[Tensor] = (),
        watch: OnCall | None = None,
    ) -> tuple[Tensor | None, ...]:
        """One backward pass; the gradients of `inputs`.

        Every example's gradient is multiplied by its number of `unscale` `[N]`. `watch` is called with every tapped
        call, before it is reduced.
        """
        self.unscale = unscale

        def on_call(tapped: Tapped, gradient: Tensor) -> None:
            if watch is not None:
                watch(tapped, gradient)
            self._take(tapped, gradient)

        gradients = self.taps.backward(logits, cotangent, on_call, inputs, retain_graph=retain_graph)
        with torch.autocast(logits.device.type, enabled=False):
            for group in self.pending.flush():
                self._reduce(*group)
            for name, found in self.taps.settle(self.fast).items():
                self.seen.add(name)
                self.receive((name,), found)
            for name, parts in self.parts.items():
                self.receive((name,), joined(parts))
        self.parts.clear()
        return gradients

    def _take(self, tapped: Tapped, gradient: Tensor) -> None:
        wanted = tuple([local for local, name in tapped.names.items() if name in self.fast])
        if not wanted:
            return
        taps = self.taps
        if isinstance(tapped.call.module, Meeting):
            taps.meet(tapped.call.module, gradient, self.unscale)
            return
        if isinstance(tapped.call.module, Again):
            found = tapped.call.module.gradients(gradient, taps.examples, self.unscale)
            self._hand_on({name: Dense(found[name]) for name in wanted})
            return
        names = [tapped.names[local] for local in wanted]
        self.seen.update(names)
        a, g = tapped.call.stored, gradient
        if self.unscale is not None or id(tapped.call) in taps.places:
            a, g = taps.sides(tapped, gradient, self.unscale)
        if self.together and all(taps.calls[name] == 1 for name in names):
            for group in self.pending.add(tapped, a, g, wanted, taps.examples):
                self._reduce(*group)
        else:
            self._reduce([tapped], a, g)

    def _hand_on(self, found: Mapping[str, PerExampleGradient]) -> None:
        self.seen.update(found)
        for name, gradient in found.items():
            if self.taps.calls[name] == 1:
                self.receive((name,), gradient)
            else:
                self.parts[name].append(gradient)

    def _reduce(self, calls: list[Tapped], a: Tensor, g: Tensor) -> None:
        a, g = (self.taps.per_example(x, len(calls)) for x in (a, g))
        found = calls[0].rule.gradients([tapped.call.module for tapped in calls], a, g)
        for local, value in found.items():
            if local not in calls[0].names or calls[0].names[local] not in self.fast:
                continue
            names = tuple(tapped.names[local] for tapped in calls)
            if self.taps.calls[names[0]] == 1:
                self.receive(names, value)
            else:
                self.parts[names[0]].append(value)


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
