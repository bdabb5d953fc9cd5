"""A model's modules and tensors as lists: a probe looks at all of them several times, and torch's own walk makes one
generator for every module and level."""

from collections.abc import Iterator

from torch import Tensor, nn


def named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """As `model.named_modules()` gives them: from the outside in, each once."""
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
    found: dict[nn.Module, None] = {}
    waiting = [model]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module] = None
            waiting.extend(child for child in reversed(module._modules.values()) if child is not None)
    return list(found)


def named_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """As `model.named_parameters()` gives them: each once."""
    return list(_once((name, module._parameters) for name, module in named_modules(model)))


def named_tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters, then buffers, each once."""
    there = named_modules(model)
    found: list[tuple[str, Tensor]] = list(_once((name, module._parameters) for name, module in there))
    return found + list(_once((name, module._buffers) for name, module in there))


def _once(owners: Iterator[tuple[str, dict]]) -> Iterator[tuple[str, nn.Parameter]]:
    seen: set[int] = set()
    for prefix, tensors in owners:
        for name, tensor in tensors.items():
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                yield f"{prefix}.{name}" if prefix else name, tensor
