"""AdamW with one group per block, fixed before anything is frozen; its learning rate; its state by parameter name."""

from collections.abc import Mapping, Sequence

import torch

from fishlens.fisher.blocks import Block
from fishlens.recipe.recipe import Train


def make_optimizer(blocks: Sequence[Block], settings: Train) -> torch.optim.AdamW:
    """All parameters of all blocks, trainable or not at this moment: what is not in it now would never train."""
    groups = [{"params": list(block.parameters.values()), "name": block.name} for block in blocks]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def learning_rate(step: int, steps: int, settings: Train) -> float:
    """Of update number `step` (from 0) in a run of `steps`: linear warm-up over the first `settings.warmup`, then
    constant, or linear decay that reaches 0 after the last one."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    if settings.lr_schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * max(0, steps - step) / (steps - settings.warmup)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float, weights: Mapping[str, float]) -> None:
    """The rate of each block's group, times the block's weight where a schedule gave one (`auto-rgn`)."""
    for group in optimizer.param_groups:
        group["lr"] = rate * weights.get(group["name"], 1.0)


def optimizer_tensors(optimizer: torch.optim.Optimizer, blocks: Sequence[Block]) -> dict[str, torch.Tensor]:
    """{parameter name + "/" + quantity: tensor} for every parameter that has been updated."""
    tensors = {}
    for block in blocks:
        for name, parameter in block.parameters.items():
            for quantity, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{name}/{quantity}"] = value
    return tensors


def restore_optimizer(
    optimizer: torch.optim.Optimizer, blocks: Sequence[Block], tensors: Mapping[str, torch.Tensor]
) -> None:
    """The reverse of `optimizer_tensors`, by name."""
    parameters = {name: p for block in blocks for name, p in block.parameters.items()}
    optimizer.state.clear()
    for key, tensor in tensors.items():
        name, _, quantity = key.rpartition("/")
        parameter = parameters[name]
        # AdamW keeps its step counters on the CPU whatever the parameter's device is
        place = tensor.device if quantity == "step" else parameter.device
        optimizer.state[parameter][quantity] = tensor.to(place)
