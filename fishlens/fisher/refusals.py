"""What cannot be measured rightly in any way, refused by name before the first number."""

from collections.abc import Mapping, Sequence
from operator import attrgetter

import torch
from torch import Tensor, nn

from fishlens.errors import InputError
from fishlens.fisher.blocks import Block
from fishlens.fisher.observe import training_flags
from fishlens.fisher.walk import known, named_modules, named_parameters, parameters_of, settled


def refuse_what_cannot_be_measured(model: nn.Module, blocks: Sequence[Block], mode: str) -> None:
    """`InputError` naming the first parameter or module for which nothing gives a right number."""
    ordinary = _ordinary(parameters_of(model))
    for name, parameter in [] if ordinary else named_parameters(model):
        if reason := _sharded(parameter):
            raise InputError(f"parameter {name!r} {reason}")
        if nn.parameter.is_lazy(parameter):
            raise InputError(
                f"parameter {name!r} has no shape yet (a lazy module); run the model on one batch first"
            )
    if not ordinary:
        _refuse_measured(model, blocks, mode)
        return
    # of an ordinary parameter all that matters is which one it is, and what an assignment to its `data` changes
    measured = [p for block in blocks for p in block.parameters.values()]
    key = ("refused", mode, *map(id, measured), *map(_of_data, measured))
    settled(model, key, lambda: _refuse_measured(model, blocks, mode))


_attributes = attrgetter("__dict__")
_of_data = attrgetter("dtype", "layout", "device", "shape")


def _refuse_measured(model: nn.Module, blocks: Sequence[Block], mode: str) -> None:
    mine = {id(parameter) for _, parameter in named_parameters(model)}
    for block in blocks:
        for name, parameter in block.parameters.items():
            if id(parameter) not in mine:
                raise InputError(
                    f"parameter {name!r} of block {block.name!r} is not one of this model's; "
                    "find the blocks of the model that is measured"
                )
            if reason := _refused_parameter(parameter):
                raise InputError(f"parameter {name!r} of block {block.name!r} {reason}")
    measured = {id(p): name for block in blocks for name, p in block.parameters.items()}
    flags = training_flags(model, mode)
    for name, module in known(model, "refused", lambda: _perhaps_refused(model)):
        if reason := _refused_module(module, flags.get(module, module.training), measured):
            raise InputError(f"module {name!r} ({type(module).__name__}) {reason}")


def _perhaps_refused(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules that may have a reason; whether they do is in values that change."""
    kinds = (nn.Embedding, nn.EmbeddingBag, nn.modules.batchnorm._BatchNorm)
    return [
        (name, module)
        for name, module in named_modules(model)
        if isinstance(module, kinds) or hasattr(module, "merged") or hasattr(module, "gradient_checkpointing")
    ]


def refuse_sharded(model: nn.Module) -> None:
    """`InputError` naming the first parameter that is sharded over processes, measured or not."""
    for name, parameter in [] if _ordinary(parameters_of(model)) else named_parameters(model):
        if reason := _sharded(parameter):
            raise InputError(f"parameter {name!r} {reason}")


def _ordinary(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether all are of torch's own class, and nobody has put anything on them."""
    return set(map(type, parameters)) == {nn.Parameter} and not any(map(_attributes, parameters))


def _sharded(parameter: Tensor) -> str | None:
    """Whether other processes hold parts of it: every forward pass then waits for them."""
    kind = type(parameter).__name__
    if getattr(parameter, "_is_flat_param", False) or kind == "FlatParameter":
        return "is a flat parameter of FullyShardedDataParallel; gather it first (summon_full_params)"
    if hasattr(parameter, "device_mesh") or hasattr(parameter, "ds_id"):
        return f"is sharded over processes ({kind}); gather it first (summon_full_params, GatheredParameters)"
    return None


def _refused_parameter(parameter: nn.Parameter) -> str | None:
    if parameter.is_complex():
        return f"is complex ({parameter.dtype}); expected real numbers: leave it out of the blocks"
    if not parameter.is_floating_point():
        return f"is of type {parameter.dtype} (quantised?), which has no gradient; expected floating point"
    if parameter.element_size() < 2:
        return f"is of type {parameter.dtype}, in which torch computes no gradient; expected 16 bits or more"
    if parameter.is_inference():
        return "was made in torch.inference_mode(), so that it has no gradient; make the model outside of it"
    if parameter.is_meta:
        return "has no data (meta device); load the weights first"
    if parameter.numel() == 0:
        return "is empty; expected at least one number"
    if type(parameter) is nn.Parameter or parameter.requires_grad:
        return None
    kind = type(parameter.data)
    if kind is torch.Tensor:
        return None
    if _integers_inside(parameter):
        return f"is a {kind.__name__} that holds integers (quantised), which have no gradient"
    if not _moves(parameter):
        return f"is a {kind.__name__} that a small step does not change (quantised?); expected floating point"
    return None


def _integers_inside(parameter: Tensor) -> bool:
    """Whether a tensor subclass that calls itself floating point holds integers (torchao's quantised weights)."""
    flatten = getattr(parameter, "__tensor_flatten__", None)
    if flatten is None:
        return False
    parts = [getattr(parameter, name, None) for name in flatten()[0]]
    return any(
        isinstance(part, Tensor) and (not part.is_floating_point() or _integers_inside(part))
        for part in parts
    )


def _moves(parameter: Tensor) -> bool:
    """Whether a small step changes it: what is rounded to few values, or kept elsewhere, stays."""
    with torch.no_grad():
        try:
            before = parameter.detach()
            after = before.clone()
            after.add_(1e-3 * (before * 1).abs().mean())
            return not torch.equal(before * 1, after * 1)
        except (RuntimeError, NotImplementedError, TypeError):
            return False


def _refused_module(module: nn.Module, training: bool, measured: Mapping[int, str]) -> str | None:
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None:
        return "rescales its weights in every forward pass (max_norm), which a measurement must not do"
    if name := _merged(module, measured):
        return f"has merged its adapter into its weight, so that {name!r} has no gradient of its own; unmerge it first"
    if not training:
        return None
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return "mixes the examples of a batch in train mode, so that none has a gradient of its own; use mode='eval'"
    if getattr(module, "gradient_checkpointing", False):
        return "uses gradient checkpointing in train mode, which hides its graph; use mode='eval'"
    return None


def _merged(module: nn.Module, measured: Mapping[int, str]) -> str | None:
    """The name of a measured parameter of an adapter that is merged (of loralib, peft or adapters)."""
    if "merged" not in vars(module) and not hasattr(type(module), "merged"):
        return None
    merged = getattr(module, "merged", False)
    if not isinstance(merged, (bool, str)) or not merged:
        return None
    for local, parameter in module.named_parameters():
        if (
            id(parameter) in measured
            and local not in ("weight", "bias")
            and not local.startswith("base_layer")
        ):
            return measured[id(parameter)]
    return None
