"""Output shapes: where in a model's output the logits are, and what one example is.

One class per shape brings the logits to `[N, M, C]` (see `distributions`), says which of the M variables
are scored, and finds the data's own labels. `infer_output` picks the class from the model; `output=` names
it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fishlens.errors import InputError
from fishlens.fisher.distributions import Bernoulli, Categorical, Distribution, Gaussian

LABEL_KEYS = ("labels", "label", "label_ids", "start_positions", "end_positions")
IGNORED = -100


@dataclass(frozen=True)
class Prediction:
    """The output of one batch, ready for a label source: `logits` `[N, M, C]` and `scored` `[N, M]`."""

    logits: Tensor
    scored: Tensor
    distribution: Distribution


class Output(ABC):
    """The contract of an output shape."""

    name: str
    distribution: Distribution = Categorical()

    @abstractmethod
    def predict(self, result: Any, inputs: Mapping[str, Any], labels: Mapping[str, Tensor]) -> Prediction:
        """The model's result as a `Prediction`."""

    @abstractmethod
    def observed(self, labels: Mapping[str, Tensor], prediction: Prediction) -> tuple[Tensor, Tensor]:
        """The data's labels as targets, and the mask of those that count: a label of −100 is none."""

    def rows_per_example(self, inputs: Mapping[str, Any]) -> int:
        """How many rows inside the network belong to one example."""
        return 1

    def label(self, labels: Mapping[str, Tensor]) -> Tensor:
        """The one label tensor; `InputError` if the batch has none."""
        for key in ("labels", "label", "label_ids"):
            if key in labels:
                return labels[key]
        raise InputError(
            f"labels='empirical' needs the data's labels and the {self.name} batch has no 'labels'"
        )


def _logits(result: Any, kind: str) -> Tensor:
    logits = result if isinstance(result, Tensor) else getattr(result, "logits", None)
    if logits is None and isinstance(result, Mapping):
        logits = result.get("logits")
    if logits is None and isinstance(result, tuple) and result and isinstance(result[0], Tensor):
        logits = result[0]
    if not isinstance(logits, Tensor):
        raise InputError(
            f"the model returned {type(result).__name__} without logits; expected logits for {kind}"
        )
    return logits


def _expect(logits: Tensor, dimensions: int, kind: str) -> Tensor:
    if logits.dim() != dimensions:
        raise InputError(
            f"output={kind!r} expects logits of {dimensions} dimensions; the model gave {list(logits.shape)}"
        )
    return logits


def _all(logits: Tensor) -> Tensor:
    return torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)


class Classification(Output):
    """One softmax over C classes: logits `[N, C]`."""

    name = "classification"

    def predict(self, result: Any, inputs: Mapping[str, Any], labels: Mapping[str, Tensor]) -> Prediction:
        logits = _expect(_logits(result, self.name), 2, self.name).unsqueeze(1)
        if logits.shape[-1] < 2:
            raise InputError(
                "output='classification' expects at least 2 classes; the model has 1 (a regression?)"
            )
        return Prediction(logits, _all(logits), self.distribution)

    def observed(self, labels: Mapping[str, Tensor], prediction: Prediction) -> tuple[Tensor, Tensor]:
        targets = self.label(labels).reshape(-1, 1)
        return targets, targets != IGNORED


class MultipleChoice(Classification):
    """One softmax over the choices of a question: the model scores `[N, K]`, and runs N·K rows inside."""

    name = "multiple_choice"

    def rows_per_example(self, inputs: Mapping[str, Any]) -> int:
        for key in ("input_ids", "inputs_embeds"):
            if isinstance(inputs.get(key), Tensor):
                return inputs[key].shape[1]
        raise InputError("output='multiple_choice' expects 'input_ids' of shape [N, choices, T] in the batch")


class MultiLabel(Output):
    """C independent yes/no labels: logits `[N, C]`."""

    name = "multilabel"
    distribution: Distribution = Bernoulli()

    def predict(self, result: Any, inputs: Mapping[str, Any], labels: Mapping[str, Tensor]) -> Prediction:
        logits = _logits(result, self.name)
        logits = _expect(logits.unsqueeze(-1) if logits.dim() == 1 else logits, 2, self.name).unsqueeze(1)
        return Prediction(logits, _all(logits), self.distribution)

    def observed(self, labels: Mapping[str, Tensor], prediction: Prediction) -> tuple[Tensor, Tensor]:
        targets = self.label(labels).reshape(prediction.logits.shape)
        return targets, prediction.scored


class Regression(MultiLabel):
    """D real outputs, normal with unit variance: outputs `[N, D]` (or `[N]`)."""

    name = "regression"
    distribution: Distribution = Gaussian()


class QuestionAnswering(Output):
    """Extractive QA: two softmaxes over the T positions of a window, log p = log p(start) + log p(end)."""

    name = "question_answering"

    def predict(self, result: Any, inputs: Mapping[str, Any], labels: Mapping[str, Tensor]) -> Prediction:
        start, end = getattr(result, "start_logits", None), getattr(result, "end_logits", None)
        if start is None or end is None:
            kind = type(result).__name__
            raise InputError(
                f"output='question_answering' expects start_logits and end_logits; the model gave {kind}"
            )
        logits = torch.stack([start, end], dim=1)
        return Prediction(logits, _all(logits), self.distribution)

    def observed(self, labels: Mapping[str, Tensor], prediction: Prediction) -> tuple[Tensor, Tensor]:
        if "start_positions" not in labels or "end_positions" not in labels:
            raise InputError("labels='empirical' needs 'start_positions' and 'end_positions' in the batch")
        targets = torch.stack(
            [labels["start_positions"].reshape(-1), labels["end_positions"].reshape(-1)], dim=1
        )
        # as the heads do: a position beyond the window means that the answer is not in it
        return targets, (targets >= 0) & (targets < prediction.logits.shape[-1])


class Tagging(Output):
    """One softmax per token, independent given the sentence; log p sums over the scored tokens.

    With labels in the batch a token is scored unless its label is −100; without them, where the attention
    mask is 1.
    """

    name = "tagging"

    def predict(self, result: Any, inputs: Mapping[str, Any], labels: Mapping[str, Tensor]) -> Prediction:
        logits = self.aligned(_expect(_logits(result, self.name), 3, self.name))
        given = next((labels[k] for k in ("labels", "label", "label_ids") if k in labels), None)
        if given is not None:
            scored = self.aligned_labels(given) != IGNORED
        else:
            scored = self.scored_without_labels(inputs, logits)
        if scored.shape != logits.shape[:2]:
            raise InputError(
                f"output={self.name!r}: labels or attention mask have shape {list(scored.shape)}; "
                f"expected {list(logits.shape[:2])} like the logits"
            )
        return Prediction(logits, scored, self.distribution)

    def observed(self, labels: Mapping[str, Tensor], prediction: Prediction) -> tuple[Tensor, Tensor]:
        return self.aligned_labels(self.label(labels)), prediction.scored

    def aligned(self, logits: Tensor) -> Tensor:
        return logits

    def aligned_labels(self, labels: Tensor) -> Tensor:
        return labels

    def scored_without_labels(self, inputs: Mapping[str, Any], logits: Tensor) -> Tensor:
        mask = inputs.get("attention_mask")
        return self.aligned_labels(mask).bool() if isinstance(mask, Tensor) else _all(logits)


class MaskedLM(Tagging):
    """One softmax over the vocabulary per masked token; the labels say which tokens are masked."""

    name = "masked_lm"

    def scored_without_labels(self, inputs: Mapping[str, Any], logits: Tensor) -> Tensor:
        raise InputError(
            "output='masked_lm' needs 'labels' in the batch to tell which tokens are masked (not −100)"
        )


class CausalLM(Tagging):
    """Next-token prediction: the logits at t are about token t+1."""

    name = "causal_lm"

    def aligned(self, logits: Tensor) -> Tensor:
        return logits[:, :-1]

    def aligned_labels(self, labels: Tensor) -> Tensor:
        return labels[:, 1:]


OUTPUTS: dict[str, Output] = {
    output.name: output
    for output in (
        Classification(),
        MultipleChoice(),
        MultiLabel(),
        Regression(),
        QuestionAnswering(),
        Tagging(),
        MaskedLM(),
        CausalLM(),
    )
}

_ADAPTERS_HEADS = {
    "classification": "classification",
    "image_classification": "classification",
    "multilabel_classification": "multilabel",
    "multiple_choice": "multiple_choice",
    "question_answering": "question_answering",
    "tagging": "tagging",
    "masked_lm": "masked_lm",
    "causal_lm": "causal_lm",
}
_CLASS_SUFFIXES = {
    "ForSequenceClassification": "classification",
    "ForImageClassification": "classification",
    "ForMultipleChoice": "multiple_choice",
    "ForQuestionAnswering": "question_answering",
    "ForTokenClassification": "tagging",
    "ForMaskedLM": "masked_lm",
    "ForCausalLM": "causal_lm",
    "LMHeadModel": "causal_lm",
}


def find_output(model: nn.Module, output: str = "auto") -> Output:
    """The output shape called `output`, or the one that `model` has; `InputError` if that cannot be told."""
    if output == "auto":
        return OUTPUTS[_infer(model)]
    if output not in OUTPUTS:
        raise InputError(f"output={output!r} is unknown; expected 'auto' or one of {', '.join(OUTPUTS)}")
    return OUTPUTS[output]


def _infer(model: Any) -> str:
    inner = model
    if hasattr(model, "peft_config"):
        inner = model.get_base_model()
    heads = getattr(inner, "heads", None)
    if isinstance(heads, nn.ModuleDict) and hasattr(inner, "active_head"):
        return _from_adapters_head(inner, heads)
    kind = type(inner).__name__.removesuffix("WithAdapters")
    for suffix, name in _CLASS_SUFFIXES.items():
        if kind.endswith(suffix):
            return _refine(name, inner)
    if hasattr(inner, "config") and hasattr(inner, "base_model_prefix"):
        raise InputError(f"cannot tell what {kind} predicts; give output= one of {', '.join(OUTPUTS)}")
    return "classification"


def _from_adapters_head(model: Any, heads: Any) -> str:
    active = model.active_head
    if active is None or (isinstance(active, list) and len(active) != 1):
        listed = ", ".join(heads) or "none"
        raise InputError(
            f"the model has no single active head (active: {active!r}, there are: {listed}); set one"
        )
    active = active if isinstance(active, str) else active[0]
    config = heads[active].config
    head_type = config["head_type"]
    if head_type not in _ADAPTERS_HEADS:
        known = ", ".join(_ADAPTERS_HEADS)
        raise InputError(f"head {active!r} is a {head_type} head; expected one of {known}")
    name = _ADAPTERS_HEADS[head_type]
    return "regression" if name == "classification" and config["num_labels"] == 1 else name


def _refine(name: str, model: Any) -> str:
    if name != "classification":
        return name
    problem = getattr(model.config, "problem_type", None)
    if problem == "multi_label_classification":
        return "multilabel"
    if problem == "regression" or (problem is None and model.config.num_labels == 1):
        return "regression"
    return name
