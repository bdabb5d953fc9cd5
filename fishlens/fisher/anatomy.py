"""Where a model keeps its layers, its head, its embeddings and its adapters, whichever library made it."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fishlens.errors import InputError


def unwrapped(model: nn.Module) -> nn.Module:
    """The module itself, out of `torch.compile`, `DataParallel` and `DistributedDataParallel`."""
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return unwrapped(model.module)
    return model


def adapter_names(model: Any) -> list[str]:
    """Names of the adapters that the model carries, of either library."""
    if is_peft(model):
        return list(model.peft_config)
    config = getattr(model, "adapters_config", None)
    return list(config.adapters) if config is not None else []


def is_peft(model: Any) -> bool:
    return hasattr(model, "peft_config") and isinstance(model.peft_config, Mapping)


def choose_adapter(model: Any, name: str | None) -> str:
    there = adapter_names(model)
    if not there:
        raise InputError(f"{type(model).__name__} has no adapter; expected one (by='layer' needs none)")
    listed = ", ".join(map(repr, there))
    if name is not None:
        if name not in there:
            raise InputError(f"the model has no adapter {name!r}; it has {listed}")
        return name
    active = _active_adapters(model)
    if active:
        return active[-1]
    if len(there) == 1:
        return there[0]
    raise InputError(f"which adapter? none is active and the model has {listed}; give adapter=…")


def _active_adapters(model: Any) -> list[str]:
    """Names in the active set-up, first to last."""
    if is_peft(model):
        active = model.active_adapters
        names = active() if callable(active) else active
        return [names] if isinstance(names, str) else list(names)
    setup = getattr(model, "active_adapters", None)
    return _flatten(setup) if setup is not None and not callable(setup) else []


def _flatten(setup: Any) -> list[str]:
    if isinstance(setup, str):
        return [setup]
    children = getattr(setup, "children", setup)
    return [name for child in children for name in _flatten(child)]


def base_of(model: Any) -> tuple[str, nn.Module]:
    """The model without its head, and the prefix of its parameters' names."""
    inner, prefix = model, ""
    if is_peft(model):
        inner, prefix = model.base_model.model, "base_model.model."
    base = getattr(inner, "base_model", inner)
    if base is inner or not isinstance(base, nn.Module):
        return prefix, inner
    return f"{prefix}{inner.base_model_prefix}.", base


def layers_of(model: Any) -> tuple[str, nn.ModuleList]:
    """The list of layers: the longest `ModuleList` of equal modules that is in no other."""
    prefix, base = base_of(model)
    lists: list[tuple[str, nn.ModuleList]] = []
    for name, module in base.named_modules():
        if not isinstance(module, nn.ModuleList) or any(name.startswith(f"{outer}.") for outer, _ in lists):
            continue  # a list inside a layer (experts, say) is not the list of layers
        # by the class's name: adapters gives every layer a class of its own, all of one name
        if len({type(m).__name__ for m in module}) == 1 and any(True for _ in module.parameters()):
            lists.append((name, module))
    if not lists:
        raise InputError(
            f"{type(model).__name__} has no list of layers; expected an nn.ModuleList of equal modules "
            "(use by='module', a pattern or a callable)"
        )
    name, layers = max(lists, key=lambda found: len(found[1]))
    return f"{prefix}{name}.", layers


def inserted_parameters(model: Any) -> set[int]:
    """Parameters of adapters, prompts and the like: not the layer's own."""
    mine: set[int] = set()
    if is_peft(model):
        mine |= {
            id(p) for n, p in model.named_parameters() if any(w.startswith("lora_") for w in n.split("."))
        }
    elif adapter_names(model):
        for name in adapter_names(model):
            for places in model.get_adapter(name).values():
                mine |= {id(p) for module in places.values() for p in module.parameters()}
    return mine


def embeddings_of(model: Any) -> dict[str, nn.Parameter]:
    """What lies in the base model below the first layer, in order of registration."""
    prefix, _ = base_of(model)
    start, _ = layers_of(model)
    found: dict[str, nn.Parameter] = {}
    skip = inserted_parameters(model)
    for name, parameter in model.named_parameters():
        if name.startswith(start):
            break
        if name.startswith(prefix) and id(parameter) not in skip:
            found[name] = parameter
    if not found:
        raise InputError(f"{type(model).__name__} has no parameters below its layers; expected embeddings")
    return found


def head_of(model: Any) -> dict[str, nn.Parameter]:
    """The active head of an `adapters` model; else everything above the layers (the pooler included).

    Of a head that peft trains in a copy (`modules_to_save`), the copy: the original is not in use.
    """
    heads = getattr(model, "heads", None)
    if isinstance(heads, nn.ModuleDict) and hasattr(model, "active_head"):
        active = model.active_head
        names = [active] if isinstance(active, str) else list(active or [])
        mine = {id(p) for name in names if name in heads for p in heads[name].parameters()}
        below = {id(p) for p in base_of(model)[1].parameters()}  # a language-model head shares the embeddings
        return {n: p for n, p in model.named_parameters() if id(p) in mine - below}
    try:
        start, _ = layers_of(model)
    except InputError:
        return {}
    found: dict[str, nn.Parameter] = {}
    skip = inserted_parameters(model)
    above = False
    for name, parameter in model.named_parameters():
        if name.startswith(start):
            above = True
        elif above and id(parameter) not in skip and "original_module" not in name.split("."):
            found[name] = parameter
    return found
