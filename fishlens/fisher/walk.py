"""A model's modules and tensors as lists: a probe looks at all of them several times, and torch's own walk makes one
generator for every module and level.

Inside `walked_once` the model is walked once and the lists are kept: a probe begins with one walk, so that whatever
has changed in the model since the last one is seen.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class _Kept(threading.local):
    model: nn.Module | None = None
    lists: dict[str, Any]


_kept = _Kept()


@contextmanager
def walked_once(model: nn.Module) -> Iterator[None]:
    """Inside, in this thread, the lists of `model` are made once; its tree of modules must not change meanwhile."""
    before = _kept.model, _kept.__dict__.get("lists", {})
    if before[0] is not model:
        _kept.model, _kept.lists = model, {}
    try:
        yield
    finally:
        _kept.model, _kept.lists = before


def named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """As `model.named_modules()` gives them: from the outside in, each once."""
    if _kept.model is not model:
        return _named_modules(model)
    if "named" not in _kept.lists:
        _kept.lists["named"] = _named_modules(model)
    return _kept.lists["named"]


def _named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    found: list[tuple[str, nn.Module]] = []
    seen: set[int] = set()
    waiting = [("", model)]
    while waiting:
        name, module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        found.append((name, module))
        prefix = f"{name}." if name else ""
        children = [(prefix + key, child) for key, child in module._modules.items() if child is not None]
        waiting.extend(reversed(children))
    return found


def modules(model: nn.Module) -> list[nn.Module]:
    """As `model.modules()` gives them."""
    return [module for _, module in named_modules(model)]


def named_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """As `model.named_parameters()` gives them: each once."""
    if _kept.model is not model:
        return _named_parameters(model)
    if "parameters" not in _kept.lists:
        _kept.lists["parameters"] = _named_parameters(model)
    return _kept.lists["parameters"]


def _named_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return list(_once((name, module._parameters) for name, module in named_modules(model)))


def named_tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters, then buffers, each once."""
    found: list[tuple[str, Tensor]] = [*named_parameters(model)]
    return found + list(_once((name, module._buffers) for name, module in named_modules(model)))


def _once(owners: Iterator[tuple[str, dict]]) -> Iterator[tuple[str, nn.Parameter]]:
    seen: set[int] = set()
    for prefix, tensors in owners:
        for name, tensor in tensors.items():
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                yield f"{prefix}.{name}" if prefix else name, tensor
