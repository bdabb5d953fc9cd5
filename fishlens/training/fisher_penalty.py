r"""The Fisher penalty (Jastrzębski et al. 2021): training on loss + α · tr(F) of the thawed blocks.

Of a batch of N examples with one label $\hat y_n \sim p_\theta(\cdot \mid x_n)$ each, the penalty is

    $N \, \big\| \tfrac{1}{N} \sum_n \nabla \log p_\theta(\hat y_n \mid x_n) \big\|^2$

whose expectation over the labels is tr(F): the score has mean zero, so the products of different examples vanish. One
gradient with a graph instead of N; the labels are held fixed when the penalty is differentiated. They come from a
generator of their own: training's random numbers are those of a run without a penalty.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fishlens.fisher.batches import as_batch
from fishlens.fisher.labels import MonteCarlo
from fishlens.fisher.observe import observing
from fishlens.fisher.which_output import find_output

_OWN_STREAM = 2**40  # added to the seed: no label of a probe is drawn again


def twice_differentiable() -> AbstractContextManager[Any]:
    """For the forward pass: fused attention has no second derivative."""
    return sdpa_kernel(SDPBackend.MATH)


def fisher_penalty(
    outputs: Any,
    batch: Mapping[str, Tensor],
    parameters: Sequence[nn.Parameter],
    *,
    output: str,
    seed: int,
    first: int,
) -> Tensor:
    """tr(F) of `parameters` on the batch, from what the model returned for it; a scalar with a graph.

    output: the task's output shape. first: the number of the batch's first example in the run, which with the seed
    decides the labels.
    """
    shape = find_output(nn.Identity(), output)
    parts = as_batch(batch)
    prediction = shape.predict(outputs, parts.inputs, parts.labels)
    source = MonteCarlo(seed=seed + _OWN_STREAM)
    ((targets, scored),) = source.targets(prediction, parts.labels, shape, first)
    log_p = prediction.distribution.log_probability(prediction.logits, targets, scored)
    gradients = torch.autograd.grad(log_p.mean(), parameters, create_graph=True, allow_unused=True)
    return parts.size * torch.stack([g.square().sum() for g in gradients if g is not None]).sum()


def cost_of_the_penalty(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    parameters: Sequence[nn.Parameter],
    *,
    output: str,
    seed: int,
) -> tuple[float, float]:
    """Seconds of forward and backward pass on a batch, without the penalty and with it. The model is as it was."""

    def seconds(with_penalty: bool) -> float:
        began = time.perf_counter()
        if with_penalty:
            with twice_differentiable():
                outputs = model(**batch)
            penalty = fisher_penalty(outputs, batch, parameters, output=output, seed=seed, first=0)
            total = outputs.loss + penalty
        else:
            total = model(**batch).loss
        gradients = torch.autograd.grad(total, list(parameters), allow_unused=True)
        for gradient in gradients:
            if gradient is not None:
                float(gradient.flatten()[0])  # waits for the device
        return time.perf_counter() - began

    with observing(model, parameters, "unchanged"):
        found = [(seconds(False), seconds(True)) for _ in range(3)]
    return min(plain for plain, _ in found), min(penalised for _, penalised in found)
