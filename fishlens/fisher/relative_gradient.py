"""Relative gradient norms, what `auto-rgn` weighs learning rates by (Lee et al. 2023)."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from fishlens.fisher.blocks import Block
from fishlens.fisher.transfer import widest


def relative_gradient_norms(
    model: Any, blocks: Sequence[Block], batches: Iterable[dict[str, torch.Tensor]]
) -> dict[str, float]:
    """‖∇L‖ / ‖θ‖ of each block for the mean loss of `batches` (tensors on the model's device, labels in them).

    In evaluation mode (no dropout, so no random number is drawn) and by `torch.autograd.grad`: `.grad`, modes and
    `requires_grad` are afterwards as they were.
    """
    parameters = [p for block in blocks for p in block.parameters.values()]
    total = [torch.zeros_like(p) for p in parameters]
    count = 0
    with _as_found(model, parameters):
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


@contextmanager
def _as_found(model: Any, parameters: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    required = [p.requires_grad for p in parameters]
    training = {name: module.training for name, module in model.named_modules()}
    model.eval()
    try:
        for p in parameters:
            p.requires_grad_(True)
        yield
    finally:
        for p, value in zip(parameters, required, strict=True):
            p.requires_grad_(value)
        for name, module in model.named_modules():
            module.training = training[name]
