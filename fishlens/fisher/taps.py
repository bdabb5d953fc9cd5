"""Taps on leaf modules: which calls a forward pass makes, and their per-example gradients on the way back."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from backpack import backpack
from torch import Tensor, nn

from fishlens.fisher.distributions import widened
from fishlens.fisher.extensions import Call, PerExampleExtension, Rule, Tap, rule_for
from fishlens.fisher.gradients import PerExampleGradient, joined
from fishlens.fisher.labels import Draw

Receive = Callable[[str, PerExampleGradient, int], None]
"""(parameter name, gradients of all examples, number of the backward pass) -> None"""
Roads = tuple[frozenset[str], frozenset[str], frozenset[str]]
"""Names of the parameters that taps measure, that need the other road, and that the output ignores."""


class Taps:
    """Forward hooks on every leaf that has a rule and holds a parameter of interest; gone when the context
    ends.

    `rows` of the network's leading dimension belong to one example. A call whose layout is neither
    `[N·rows, …]` nor `[N·rows·tokens, …]` (position embeddings of leading dimension 1, say) has no
    per-example gradient to offer: its parameters take the other road.
    """

    def __init__(
        self, model: nn.Module, parameters: Mapping[str, nn.Parameter], examples: int, rows: int, tokens: int
    ) -> None:
        self.examples, self.leading = examples, (examples * rows, tokens)
        self.thread = torch.zeros((), device=next(iter(parameters.values())).device, requires_grad=True)
        self.names = {id(p): name for name, p in parameters.items()}
        self.calls: defaultdict[str, int] = defaultdict(int)
        self.unruly: set[str] = set()
        self.leaves: list[tuple[nn.Module, Rule]] = []
        for module in model.modules():
            if self._named(module) and (rule := rule_for(module)) is not None:
                self.leaves.append((module, rule))
        self.handles: list[Any] = []

    def _named(self, module: nn.Module) -> dict[str, str]:
        """Local name -> name in the model, of the module's own parameters of interest."""
        own = module._parameters.items()
        return {local: self.names[id(p)] for local, p in own if p is not None and id(p) in self.names}

    def __enter__(self) -> "Taps":
        for module, rule in self.leaves:
            self.handles.append(module.register_forward_hook(self._hook(rule), with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def _hook(self, rule: Rule) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
            if not torch.is_grad_enabled():
                return None
            names = self._named(module).values()
            leaf_input = rule.leaf_input(args, kwargs)
            output = result[0] if isinstance(result, tuple) else result
            for name in names:
                self.calls[name] += 1
            if not (self._regular(leaf_input, output) and output.requires_grad):
                self.unruly |= set(names)
                return None
            tapped = Tap.apply(output, self.thread, rule.call(module, leaf_input.detach()))
            return (tapped, *result[1:]) if isinstance(result, tuple) else tapped

        return hook

    def _regular(self, leaf_input: Tensor, output: Tensor) -> bool:
        rows, tokens = self.leading
        flattened = output.dim() == 2 and output.shape[0] == rows * tokens
        return leaf_input.shape[0] == output.shape[0] and (output.shape[0] == rows or flattened)

    def sort_out(self, uses: Mapping[str, int]) -> Roads:
        """Which road every parameter takes.

        `uses`: how often each parameter enters the graph. More uses than tapped calls means that something
        reads the parameter behind the module's back (a functional call, a fused kernel): its taps would
        miss a part.
        """
        everything = frozenset(self.names.values())
        unused = frozenset(name for name in everything if not uses[name])
        slow = frozenset(n for n in everything - unused if n in self.unruly or uses[n] > self.calls[n])
        return everything - unused - slow, slow, unused

    def run(self, logits: Tensor, draw: Draw, fast: frozenset[str], receive: Receive) -> None:
        """Back-propagates every cotangent of `draw`; `receive` gets the gradients of the `fast`
        parameters."""
        if not fast or not logits.requires_grad:
            return
        waiting: defaultdict[str, list[PerExampleGradient]] = defaultdict(list)
        seen: set[str] = set()

        def on_call(call: Call, rule: Rule, gradient: Tensor) -> None:
            a, g = self._per_example(call.stored), self._per_example(gradient)
            names = {local: name for local, name in self._named(call.module).items() if name in fast}
            for local, found in rule.gradients(call.module, a, g).items():
                name = names.get(local)
                if name is None:
                    continue
                seen.add(name)
                if self.calls[name] == 1:
                    receive(name, found, number)
                else:
                    waiting[name].append(found)

        extension = PerExampleExtension(on_call)
        for number, cotangent in enumerate(draw.cotangents):
            more = number + 1 < draw.passes
            with backpack(extension, retain_graph=more), torch.autocast(logits.device.type, enabled=False):
                torch.autograd.grad(logits, self.thread, cotangent.to(logits.dtype), retain_graph=more)
            for name, parts in waiting.items():
                receive(name, joined(parts), number)
            waiting.clear()
            if missing := fast - seen:
                raise RuntimeError(
                    f"no gradient came back for {', '.join(sorted(missing))}; this is a bug in fishlens"
                )

    def _per_example(self, x: Tensor) -> Tensor:
        """`[N·rows, …, d]` as `[N, T, d]`; floats as float32 or wider, token indices as `[N, T, 1]`."""
        if not x.is_floating_point():
            return x.reshape(self.examples, -1, 1)
        return widened(x).reshape(self.examples, -1, x.shape[-1])


def uses_in_graph(logits: Tensor, parameters: Mapping[str, nn.Parameter]) -> dict[str, int]:
    """How often each parameter enters the graph behind `logits`: the edges into its `AccumulateGrad` node."""
    names = {id(p): name for name, p in parameters.items()}
    uses = dict.fromkeys(parameters, 0)
    seen, stack = set(), [logits.grad_fn]
    while stack:
        node = stack.pop()
        if node is None:
            continue
        for following, _ in node.next_functions:
            variable = getattr(following, "variable", None)
            if variable is not None:
                if id(variable) in names:
                    uses[names[id(variable)]] += 1
            elif following is not None and following not in seen:
                seen.add(following)
                stack.append(following)
    return uses
