"""Parameters that no rule and no single operation measures: a module around them runs again, one example at a time.

The experts of a mixture are one three-dimensional parameter in transformers 5, used in one of several ways (a loop, a
batched or a grouped product), and peft's adapters for them are made into it first. What they have in common is the
module: it is called with the rows of the batch and gives one output a row. From the gradient of its output, and its
inputs, the gradient of every example follows by running this module, not the network, for one example after the
other; a module that is nothing but experts runs once, with a copy of the experts for every example. Whether that is
right for a model is proved on it, like every rule (see `proof`); where it is not, the module around is tried, up to
the whole model, which is then measured one example at a time.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fishlens.fisher.distributions import widened
from fishlens.fisher.interrupts import stop_if_interrupted
from fishlens.fisher.walk import named_modules

MEMORY = 2**28
"""Bytes that the examples' own copies of all experts, and their gradients, may take."""

Run = Callable[[Callable[[], Any]], Any]
"""Runs a part of the model's forward, and puts back what that changed."""


@dataclass(eq=False)
class Again:
    """One call of a module: `args` and `kwargs` as they were before it, `parameters` of interest inside, by name.

    `leading`: the sizes that the first dimension of a tensor with the batch's rows has.
    """

    module: nn.Module
    parameters: Mapping[str, nn.Parameter]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    leading: frozenset[int]
    autocast: torch.dtype | None
    run: Run

    @property
    def experts(self) -> int | None:
        """How many experts the module holds, if it is nothing but experts: all parameters of interest are its own
        and have one entry for each."""
        count = getattr(self.module, "num_experts", None)
        own = {id(p) for p in self.module._parameters.values()}
        mine = self.parameters.values()
        fused = all(id(p) in own and p.dim() > 1 and len(p) == count for p in mine)
        return count if fused and isinstance(count, int) else None

    def gradients(self, gradient: Tensor, examples: int, unscale: Tensor | None = None) -> dict[str, Tensor]:
        """The gradients of all examples, `[N, *shape]` by name, float32 or wider; from that of the module's output.

        `unscale` `[N]`: what the gradient of every example is still to be multiplied by.
        """
        size, at_once = len(gradient) // examples, self._at_once(examples)
        parts = []
        for first in range(0, examples, at_once):
            stop_if_interrupted()
            count = min(at_once, examples - first)
            own = gradient[first * size : (first + count) * size]
            parts.append(self._found(first, count, examples, own))
        found = {name: torch.cat([part[name] for part in parts]) for name in self.parameters}
        if unscale is None:
            return found
        return {name: g * unscale.to(g).view(-1, *[1] * (g.dim() - 1)) for name, g in found.items()}

    def _at_once(self, examples: int) -> int:
        """How many examples take part in one run: several where each can have experts of its own."""
        if self.experts is None:
            return 1
        size = sum(2 * p.numel() * p.element_size() for p in self.parameters.values())
        return max(1, min(examples, MEMORY // size))

    def _found(self, first: int, count: int, examples: int, gradient: Tensor) -> dict[str, Tensor]:
        """Infinite where the module does not take some of the examples alone: then the proof fails."""

        def rows(x: Tensor) -> Tensor:
            if not x.dim() or len(x) not in self.leading:
                return x
            size = len(x) // examples
            return x[first * size : (first + count) * size]

        try:
            with torch.enable_grad(), self._precision(gradient.device):
                args, kwargs = mapped(self.args, rows), mapped(dict(self.kwargs), rows)
                run = self._with_experts_of_their_own if count > 1 else self._as_it_is
                return run(args, kwargs, gradient, count)
        except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            infinite = {name: torch.full((count, *p.shape), torch.inf) for name, p in self.parameters.items()}
            return {name: g.to(gradient.device) for name, g in infinite.items()}

    def _as_it_is(self, args: Any, kwargs: Any, gradient: Tensor, count: int) -> dict[str, Tensor]:
        output = self.run(lambda: self.module(*args, **kwargs))
        return self._pulled_back(output, self.parameters, gradient, count)

    def _with_experts_of_their_own(
        self, args: Any, kwargs: Any, gradient: Tensor, count: int
    ) -> dict[str, Tensor]:
        """Every example gets a copy of all experts, and its rows go to its own: one run for all of them."""
        module: Any = self.module
        experts = self.experts
        assert experts is not None

        def numbered(x: Tensor) -> Tensor:
            if x.is_floating_point() or x.dtype is torch.bool or not x.dim():
                return x
            own = torch.arange(count, device=x.device, dtype=x.dtype) * experts
            return x + own.repeat_interleave(len(x) // count).view(-1, *[1] * (x.dim() - 1))

        copies = {
            name: p.detach().repeat(count, *[1] * (p.dim() - 1)).requires_grad_()
            for name, p in self.parameters.items()
        }
        local = {id(p): key for key, p in module._parameters.items()}
        replaced = {local[id(p)]: copies[name] for name, p in self.parameters.items()}
        try:
            module.num_experts = count * experts
            args, kwargs = mapped(args, numbered), mapped(kwargs, numbered)
            output = self.run(lambda: functional_call(module, replaced, args, kwargs))
            found = self._pulled_back(output, copies, gradient, 1)
        finally:
            module.num_experts = experts
        return {name: found[name].reshape(count, *p.shape) for name, p in self.parameters.items()}

    def _pulled_back(
        self, result: Any, wanted: Mapping[str, Tensor], gradient: Tensor, count: int
    ) -> dict[str, Tensor]:
        """The gradients of `wanted`, with a first dimension of `count`."""
        output = first_tensor(result)
        given = gradient.to(output.dtype).reshape(output.shape)
        found = torch.autograd.grad(output, list(wanted.values()), given, allow_unused=True)
        return {
            name: widened(torch.zeros_like(p) if g is None else dense(g)).unsqueeze(0)
            for (name, p), g in zip(wanted.items(), found, strict=True)
        }

    def _precision(self, device: torch.device) -> AbstractContextManager[Any]:
        return nullcontext() if self.autocast is None else torch.autocast(device.type, self.autocast)


def modules_around(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> dict[str, list[nn.Module]]:
    """The modules that hold each of `parameters`, from its owner outwards, without the model itself."""
    names = {id(p): name for name, p in parameters.items()}
    inside = dict(named_modules(model))
    found: dict[str, list[nn.Module]] = {name: [] for name in parameters}
    for path, module in inside.items():
        words = path.split(".") if path else []
        for name in (names.get(id(p)) for p in module._parameters.values()):
            if name is not None and not found[name]:
                found[name] = [inside[".".join(words[:end])] for end in range(len(words), 0, -1)]
    return found


def dense(gradient: Tensor) -> Tensor:
    return gradient if gradient.layout == torch.strided else gradient.to_dense()


def first_tensor(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) and result else result


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor in it (in tuples, lists and dicts) changed."""
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (tuple, list):
        return type(value)(mapped(each, change) for each in value)
    return {key: mapped(each, change) for key, each in value.items()} if type(value) is dict else value


def kept(value: Any) -> Any:
    """What a module is called with, safe from being written to: copies of its floating point tensors."""
    return mapped(value, lambda x: x.detach().clone() if x.is_floating_point() else x.detach())
