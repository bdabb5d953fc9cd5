"""What no road can measure rightly, refused by name before the first number."""

from collections.abc import Sequence

from torch import nn

from fishlens.errors import InputError
from fishlens.fisher.blocks import Block


def refuse_what_cannot_be_measured(model: nn.Module, blocks: Sequence[Block], mode: str) -> None:
    """`InputError` naming the first parameter or module for which no road gives a right number."""
    mine = {id(parameter) for parameter in model.parameters()}
    for block in blocks:
        for name, parameter in block.parameters.items():
            if id(parameter) not in mine:
                raise InputError(
                    f"parameter {name!r} of block {block.name!r} is not one of this model's; "
                    "find the blocks of the model that is measured"
                )
            if reason := _refused_parameter(parameter):
                raise InputError(f"parameter {name!r} of block {block.name!r} {reason}")
    for name, module in model.named_modules():
        training = mode == "train" or (mode == "unchanged" and module.training)
        if reason := _refused_module(module, training):
            raise InputError(f"module {name!r} ({type(module).__name__}) {reason}")


def _refused_parameter(parameter: nn.Parameter) -> str | None:
    if not parameter.is_floating_point():
        return f"is of type {parameter.dtype} (quantised?), which has no gradient; expected floating point"
    if parameter.is_meta:
        return "has no data (meta device); load the weights first"
    kind = type(parameter).__name__
    if hasattr(parameter, "device_mesh") or kind == "FlatParameter" or hasattr(parameter, "ds_id"):
        return f"is sharded over processes ({kind}); gather it first (summon_full_params, GatheredParameters)"
    if parameter.numel() == 0:
        return "is empty; expected at least one number"
    return None


def _refused_module(module: nn.Module, training: bool) -> str | None:
    if getattr(module, "max_norm", None) is not None and isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return "rescales its weights in every forward pass (max_norm), which a measurement must not do"
    if not training:
        return None
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return "mixes the examples of a batch in train mode, so that none has a gradient of its own; use mode='eval'"
    if getattr(module, "gradient_checkpointing", False):
        return "uses gradient checkpointing in train mode, which hides its graph; use mode='eval'"
    return None
