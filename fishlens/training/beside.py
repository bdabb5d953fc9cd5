"""What is measured beside the Fisher information at a probe, in every language: rivals without a gradient, curvature.

atc                  from the entropies the probe has seen, with the threshold of the source's validation at this step
cka                  by layer, of the language's representation with the source's (`tracking.cka`)
critical_sharpness   of the language's loss along Adam's direction (`tracking.critical_sharpness`)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from fishlens.fisher import Block, FisherEstimate
from fishlens.fisher.representation import linear_cka
from fishlens.fisher.sharpness import critical_sharpness
from fishlens.fisher.transfer import widest
from fishlens.recipe.recipe import Recipe
from fishlens.training.confidence import ONE_LABEL, predicted_accuracy
from fishlens.training.evaluation import evaluation_mode
from fishlens.training.targets import TargetInputs
from fishlens.training.tasks import Task

Batch = dict[str, Tensor]


@dataclass
class Beside:
    """Called by the tracker while the model is ready for the language (None: the source).

    source_rows: the source's probe, with labels. step: that of the present probe. threshold: (step, ATC's threshold) of
    the last validation of the source.
    """

    recipe: Recipe
    task: Task
    model: Any
    tokenizer: Any
    blocks: Sequence[Block]
    optimizer: torch.optim.Optimizer
    source_rows: Sequence[Any]
    targets: Mapping[str, TargetInputs]
    size: int
    threshold: tuple[int, float] | None = None
    step: int = 0
    _of_source: dict[str, list[Tensor]] = field(default_factory=dict)

    def __call__(self, language: str | None, estimate: FisherEstimate) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if language is not None:
            fields |= self._atc(estimate)
        with evaluation_mode(self.model), torch.no_grad():
            if self.recipe.tracking.cka:
                fields |= self._cka(language)
            if self.recipe.tracking.critical_sharpness:
                fields |= self._critical_sharpness(language)
        return fields

    def _atc(self, estimate: FisherEstimate) -> dict[str, Any]:
        if self.threshold is None or self.threshold[0] != self.step or estimate.entropy is None:
            return {}
        if self.task.output not in ONE_LABEL:
            return {}
        return {"atc": predicted_accuracy(estimate.entropy.numpy(), self.threshold[1])}

    # -- representations ----------------------------------------------------------------------------------------

    def _cka(self, language: str | None) -> dict[str, Any]:
        """The source's rows are read when the source is measured, through the adapters that it trains with."""
        if language is None:
            self._of_source = {
                target: self._represent([theirs for _, theirs in inputs.pairs])
                for target, inputs in self.targets.items()
            }
            return {}
        theirs = self._of_source[language]
        mine = self._represent([own for own, _ in self.targets[language].pairs])
        layers = {block.name: block.layer for block in self.blocks if block.layer is not None}
        return {"cka": {name: linear_cka(mine[layer], theirs[layer]) for name, layer in layers.items()}}

    def _represent(self, rows: Sequence[Any]) -> list[Tensor]:
        """By layer `[N, D]`: the mean over an example's tokens of the layer's output, on the CPU."""
        parts: list[list[Tensor]] = []
        for batch in self._batches(rows):
            inputs = self.task.unlabelled(batch)
            inputs.pop("labels", None)
            states = self.model(**inputs, output_hidden_states=True).hidden_states
            mask = inputs["attention_mask"]
            count, weights = len(mask), mask.reshape(len(mask), -1, 1).float()
            parts.append(
                [
                    (state.float().reshape(count, -1, state.shape[-1]) * weights)
                    .sum(1)
                    .div(weights.sum(1))
                    .cpu()
                    for state in states[1:]
                ]
            )
        return [torch.cat(layer) for layer in zip(*parts, strict=True)]

    # -- curvature ----------------------------------------------------------------------------------------------

    def _critical_sharpness(self, language: str | None) -> dict[str, Any]:
        direction = adam_direction(self.optimizer, self.blocks)
        if not direction:
            return {}  # before the first update there is no direction
        if language is not None and self.recipe.tracking.text is not None:
            return {}  # raw text has no labels, and without them there is no loss
        rows = self.source_rows if language is None else self.targets[language].rows
        batches = list(self._batches(rows))
        parameters = {name: p for block in self.blocks for name, p in block.parameters.items()}

        wide = widest(next(iter(parameters.values())).device)

        def loss(step: float) -> float:
            moved = {name: parameters[name] - step * u for name, u in direction.items()}
            losses = [
                functional_call(self.model, moved, args=(), kwargs=batch).loss.to(wide)
                * len(batch["input_ids"])
                for batch in batches
            ]
            return float(torch.stack(losses).sum()) / len(rows)

        return {"critical_sharpness": critical_sharpness(loss, self.recipe.train.learning_rate)}

    def _batches(self, rows: Sequence[Any]) -> Sequence[Batch]:
        device = next(iter(self.blocks[0].parameters.values())).device
        parts = [rows[i : i + self.size] for i in range(0, len(rows), self.size)]
        collated = [self.task.collate(part, self.tokenizer) for part in parts]
        return [{key: value.to(device) for key, value in batch.items()} for batch in collated]


def adam_direction(optimizer: torch.optim.Optimizer, blocks: Sequence[Block]) -> dict[str, Tensor]:
    """By parameter, what AdamW would subtract per unit of learning rate if the next gradient changed nothing:
    m̂ / (√v̂ + ε), without weight decay; of the parameters that train. A block with a rate of its own moves at its share.
    """
    rates = {id(p): (group["lr"], group) for group in optimizer.param_groups for p in group["params"]}
    largest = max((rate for rate, _ in rates.values()), default=0.0)
    found = {}
    for block in blocks:
        for name, parameter in block.parameters.items():
            state = optimizer.state.get(parameter, {})
            if "exp_avg" not in state or largest <= 0:
                continue
            rate, group = rates[id(parameter)]
            first, second = group["betas"]
            updates = float(state["step"])
            mean = state["exp_avg"] / (1 - first**updates)
            square = state["exp_avg_sq"] / (1 - second**updates)
            found[name] = (rate / largest) * mean / (square.sqrt() + group["eps"])
    return found
