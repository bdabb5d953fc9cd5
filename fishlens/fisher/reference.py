"""The Fisher by plain autograd, one example and one label at a time: slow, and simple enough to be trusted.

No rule, no hook, no closed form: `exact` is the sum over all labels that its definition asks for. Every
rule is tested against it, and `self_check` runs it on the user's own model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fishlens.fisher.anatomy import unwrapped
from fishlens.fisher.batches import Batch, batches_of
from fishlens.fisher.blocks import Block
from fishlens.fisher.forward import predict
from fishlens.fisher.labels import LabelSource, choose_source
from fishlens.fisher.observe import observing
from fishlens.fisher.outputs import BatchLogits, Output
from fishlens.fisher.state import forwards_of
from fishlens.fisher.which_output import find_output


@dataclass(frozen=True)
class Reference:
    """`per_example`: every example's contribution to the traces of the blocks; `diagonal` by parameter;
    float64."""

    per_example: dict[str, Tensor] = field(repr=False)
    diagonal: dict[str, Tensor] = field(repr=False)

    @property
    def trace(self) -> dict[str, float]:
        return {block: float(values.mean()) for block, values in self.per_example.items()}


def reference_fisher(
    model: nn.Module,
    data: Any,
    blocks: Sequence[Block],
    *,
    labels: str = "auto",
    samples: int = 1,
    seed: int = 0,
    output: str = "auto",
    mode: str = "eval",
    first_example: int = 0,
) -> Reference:
    """What `estimate_fisher` with the same arguments has to find, in C·N passes or more.

    Gradients are in the model's dtype, their squares and sums in float64.
    """
    model = unwrapped(model)
    shape = find_output(model, output)
    parameters = {name: p for block in blocks for name, p in block.parameters.items()}
    diagonal = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in parameters.items()}
    found: dict[str, list[float]] = {block.name: [] for block in blocks}
    source: LabelSource | None = None
    with observing(model, parameters.values(), mode), forwards_of(model) as forwards:
        for batch in batches_of(data):
            for n in range(batch.size):
                example = batch.to(next(iter(parameters.values())).device).example(n)
                prediction = forwards.run(partial(predict, model, shape, example))
                source = source or choose_source(labels, samples, seed, 10**9, prediction)
                squares = {name: torch.zeros_like(total) for name, total in diagonal.items()}
                for weight, log_p in _events(source, prediction, example, shape, first_example):
                    gradients = torch.autograd.grad(
                        log_p.sum(), list(parameters.values()), retain_graph=True, allow_unused=True
                    )
                    for name, gradient in zip(parameters, gradients, strict=True):
                        if gradient is not None:
                            squares[name] += float(weight) * gradient.cpu().to_dense().double().square()
                for name, square in squares.items():
                    diagonal[name] += square
                for block in blocks:
                    found[block.name].append(sum(float(squares[name].sum()) for name in block.parameters))
                first_example += 1
    count = len(next(iter(found.values())))
    return Reference(
        {block: torch.tensor(values, dtype=torch.float64) for block, values in found.items()},
        {name: total / count for name, total in diagonal.items()},
    )


def _events(
    source: LabelSource, prediction: BatchLogits, example: Batch, output: Output, first: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """(weight, log p) of every label that the source gives this one example."""
    family = prediction.distribution
    if source.name == "exact":
        yield from family.outcomes(prediction.logits, prediction.scored)
        return
    for targets, scored in source.targets(prediction, example.labels, output, first):
        log_p = family.log_probability(prediction.logits, targets, scored)
        yield torch.full_like(log_p, 1 / source.samples), log_p
