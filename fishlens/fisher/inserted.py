"""What adapters and peft insert into a model: which adapters there are, which are active, whose a parameter is."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from torch import nn

from fishlens.errors import InputError
from fishlens.fisher.walk import known, modules, named_parameters

PREFIX = "prefix"
OUTSIDE = "outside"


def carriers(model: nn.Module) -> list[tuple[str, Any]]:
    """The outermost modules that carry adapters, of either library, with their paths; `model` itself is at ""."""
    found: list[tuple[str, Any]] = []
    for path, module in model.named_modules():
        inner = any(not outer or path.startswith(f"{outer}.") for outer, _ in found)
        if not inner and own_adapters(module):
            found.append((path, module))
    return found


def adapter_names(model: nn.Module) -> list[str]:
    """Names of the adapters that the model, or a module in it, carries."""
    return list(dict.fromkeys(name for _, carrier in carriers(model) for name in own_adapters(carrier)))


def is_peft(module: Any) -> bool:
    return isinstance(getattr(module, "peft_config", None), Mapping)


def own_adapters(module: Any) -> list[str]:
    if is_peft(module):
        return list(module.peft_config)
    config = getattr(module, "adapters_config", None)
    return list(config.adapters) if config is not None else []


def choose_adapter(carrier: Any, name: str | None) -> str:
    """The adapter called `name`, or the one that is in use: the last of the active set-up, or the only one.

    Where a fusion is active, its name: the fused adapters, separated by commas. Raises `InputError`.
    """
    there = own_adapters(carrier)
    listed = ", ".join(map(repr, there))
    if name is not None:
        if name not in there and name not in _fusions(carrier):
            raise InputError(f"the model has no adapter {name!r}; it has {listed}")
        return name
    active = _active(carrier)
    if active:
        return active[-1]
    if len(there) == 1:
        return there[0]
    raise InputError(f"which adapter? none is active and the model has {listed}; give adapter=…")


def _active(carrier: Any) -> list[str]:
    """Names in the active set-up, first to last; a fusion that has weights of its own counts as one."""
    setup = getattr(carrier, "active_adapters", None)
    if callable(setup):
        setup = setup()
    if setup is None:
        return []
    return [setup] if isinstance(setup, str) else _flatten(setup, _fusions(carrier))


def _flatten(setup: Any, fusions: Mapping[str, Any]) -> list[str]:
    if isinstance(setup, str):
        return [setup]
    if type(setup).__name__ == "Fuse" and setup.name in fusions:
        return [setup.name]
    return [name for child in getattr(setup, "children", setup) for name in _flatten(child, fusions)]


def _fusions(carrier: Any) -> dict[str, list[nn.Module]]:
    """AdapterFusion's modules of every layer, by name."""
    found: dict[str, list[nn.Module]] = {}
    for module in carrier.modules():
        for name, fusion in getattr(module, "adapter_fusion_layer", {}).items():
            found.setdefault(name, []).append(fusion)
    return found


def parameters_of(carrier: Any, name: str) -> dict[int, str | None]:
    """id of every parameter of the adapter (or fusion) `name` -> the block it is in if it lies outside the layers.

    None leaves the block to where the parameter lies. Prefixes of all layers are made from the same parameters, which
    are a block `prefix`.
    """
    if is_peft(carrier):
        return dict(_of_peft(carrier, name))
    fusions = _fusions(carrier)
    if name in fusions:
        return {id(p): None for fusion in fusions[name] for p in fusion.parameters()}
    found: dict[int, str | None] = {}
    for places in carrier.get_adapter(name).values():
        found |= {id(p): OUTSIDE for module in places.values() for p in module.parameters()}
    for module in carrier.modules():
        pool = getattr(module, "prefix_tunings", None)
        if isinstance(pool, nn.ModuleDict) and name in pool:
            for location, prefixes in pool[name].items():  # type: ignore[operator]
                block = PREFIX if len(pool[name]) == 1 else location  # type: ignore[arg-type]
                found |= {id(p): block for p in prefixes.parameters()}
    return found


def inserted_parameters(model: nn.Module) -> set[int]:
    """Parameters of adapters, fusions, prompts and the like: not the layers' own."""
    return {
        parameter
        for _, carrier in carriers(model)
        for name in [*own_adapters(carrier), *([] if is_peft(carrier) else _fusions(carrier))]
        for parameter in parameters_of(carrier, name)
    }


def _of_peft(carrier: Any, name: str) -> Iterator[tuple[int, str | None]]:
    """peft keeps an adapter's parts in containers keyed by its name, beside settings of the same shape that it lists
    as `other_param_names`; the biases that an adapter trains with it are the base model's own."""
    config = carrier.peft_config[name]
    prompts = PREFIX if "PREFIX" in str(getattr(config, "peft_type", "")) else OUTSIDE
    for module in carrier.modules():
        if not type(module).__module__.startswith("peft."):
            continue
        others = getattr(module, "other_param_names", ())
        for container, content in [*module.named_children()]:
            if container in others or not isinstance(content, (nn.ModuleDict, nn.ParameterDict)):
                continue
            if name not in content:
                continue
            there = content[name]
            block = prompts if container == "prompt_encoder" else OUTSIDE if "bank" in container else None
            for parameter in [there] if isinstance(there, nn.Parameter) else there.parameters():
                yield id(parameter), block
    if getattr(config, "bias", "none") not in ("none", None):
        for parameter_name, parameter in carrier.named_parameters():
            if parameter_name.endswith("bias") and parameter.requires_grad:
                yield id(parameter), None


def idle_heads(model: nn.Module) -> set[int]:
    """Parameters of an `adapters` model that its active head does not use: other heads, a pooler it passes by."""
    idle: set[int] = set()
    module: Any
    for module in known(model, "with heads", lambda: _with_heads(model)):
        active, heads = module.active_head, module.heads
        names = (active,) if isinstance(active, str) else tuple(active or ())
        pools = any(head.config.get("use_pooler") for name, head in heads.items() if name in names)
        idle |= known(model, ("idle", module, names, pools), partial(_idle, module, names, pools))
    return idle


def _with_heads(model: nn.Module) -> list[Any]:
    return [
        module
        for module in modules(model)
        if isinstance(getattr(module, "heads", None), nn.ModuleDict) and hasattr(module, "active_head")
    ]


def _idle(module: Any, names: tuple[str, ...], pools: bool) -> set[int]:
    heads, base = module.heads, module.base_model
    in_use = {id(p) for name in names if name in heads for p in heads[name].parameters()}
    in_use |= {id(p) for _, p in named_parameters(base)}  # a language model's head shares the embeddings
    idle = {id(p) for p in heads.parameters()} - in_use
    pooler = getattr(base, "pooler", None)
    if names and not pools and isinstance(pooler, nn.Module):
        idle |= {id(p) for p in pooler.parameters()}
    return idle
