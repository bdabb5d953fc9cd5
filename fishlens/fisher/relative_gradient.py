"""Relative gradient norms, what `auto-rgn` weighs learning rates by (Lee et al. 2023)."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from fishlens.fisher.blocks import Block
from fishlens.fisher.observe import observing
from fishlens.fisher.transfer import widest


def relative_gradient_norms(
    model: Any, blocks: Sequence[Block], batches: Iterable[dict[str, torch.Tensor]]
) -> dict[str, float]:
    """‖∇L‖ / ‖θ‖ of each block for the mean loss of `batches` (tensors on the model's device, labels in them).

    In evaluation mode and by `torch.autograd.grad`; afterwards the model is as it was (`observing`).
    """
    parameters = [p for block in blocks for p in block.parameters.values()]
    total = [torch.zeros_like(p) for p in parameters]
    count = 0
    with observing(model, parameters):
        for batch in batches:
            loss = model(**batch).loss
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for sum_, gradient in zip(total, gradients, strict=True):
                if gradient is not None:
                    sum_ += gradient
            count += 1
    gradient_of = {id(p): g / max(count, 1) for p, g in zip(parameters, total, strict=True)}
    return {
        block.name: _norm(gradient_of[id(p)] for p in block.parameters.values())
        / max(_norm(p.detach() for p in block.parameters.values()), torch.finfo(torch.float32).tiny)
        for block in blocks
    }


def _norm(tensors: Iterable[torch.Tensor]) -> float:
    return float(torch.stack([t.to(widest(t.device)).square().sum() for t in tensors]).sum().sqrt())
