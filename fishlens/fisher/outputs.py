"""Output shapes: where in a model's output the logits are, and what one example is.

One class per shape brings the logits to `[N, M, C]` (see `distributions`), says which of the M variables
are scored, and finds the data's own labels. `which_output` says which of them a model has.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fishlens.errors import InputError
from fishlens.fisher.distributions import Bernoulli, Categorical, Distribution, Gaussian
from fishlens.fisher.documents import real_tokens

LABEL_KEYS = ("labels", "label", "label_ids", "start_positions", "end_positions")
IGNORED = -100


@dataclass(frozen=True)
class BatchLogits:
    """The output of one batch, ready for a label source: `logits` `[N, M, C]` and `scored` `[N, M]`."""

    logits: Tensor
    scored: Tensor
    distribution: Distribution


class Output(ABC):
    """The contract of an output shape."""

    name: str
    distribution: Distribution = Categorical()
    decided_by: str = "told"

    @abstractmethod
    def predict(self, result: Any, inputs: Mapping[str, Any], labels: Mapping[str, Tensor]) -> BatchLogits:
        """The model's result as a `BatchLogits`."""

    @abstractmethod
    def observed(self, labels: Mapping[str, Tensor], prediction: BatchLogits) -> tuple[Tensor, Tensor]:
        """The data's labels as targets, and the mask of those that count: a label of −100 is none."""

    def rows_per_example(self, inputs: Mapping[str, Any]) -> int:
        """How many rows inside the network belong to one example."""
        return 1

    def arguments(
        self, model: Any, inputs: Mapping[str, Any], labels: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        """What the model is called with."""
        return inputs

    def label(self, labels: Mapping[str, Tensor]) -> Tensor:
        """The one label tensor; `InputError` if the batch has none."""
        found = given_labels(labels)
        if found is None:
            raise InputError(
                f"labels='empirical' needs the data's labels and the {self.name} batch has no 'labels'"
            )
        return found


def given_labels(labels: Mapping[str, Tensor]) -> Tensor | None:
    """The one label tensor of a batch, if it has any."""
    return next((labels[key] for key in ("labels", "label", "label_ids") if key in labels), None)


def logits_in(result: Any, kind: str) -> Tensor:
    logits = result if isinstance(result, Tensor) else getattr(result, "logits", None)
    if logits is None and isinstance(result, Mapping):
        logits = result.get("logits")
    if logits is None and isinstance(result, tuple) and result and isinstance(result[0], Tensor):
        logits = result[result[0].dim() == 0 and len(result) > 1]  # (loss, logits), as of transformers
    if not isinstance(logits, Tensor):
        raise InputError(
            f"the model returned {type(result).__name__} without logits; expected logits for {kind}"
        )
    return logits


def _expect(logits: Tensor, dimensions: int, kind: str) -> Tensor:
    if logits.dim() != dimensions:
        raise InputError(
            f"output={kind!r} expects logits of {dimensions} dimensions; the model gave {list(logits.shape)}"
            + (
                "; with one prediction a token give output='tagging' or 'causal_lm'"
                if logits.dim() == 3
                else ""
            )
        )
    return logits


def _all(logits: Tensor) -> Tensor:
    return torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)


class Classification(Output):
    """One softmax over C classes: logits `[N, C]`."""

    name = "classification"

    def predict(self, result: Any, inputs: Mapping[str, Any], labels: Mapping[str, Tensor]) -> BatchLogits:
        logits = _expect(logits_in(result, self.name), 2, self.name).unsqueeze(1)
        if logits.shape[-1] < 2:
            raise InputError(
                "output='classification' expects at least 2 classes; the model has 1 (a regression?)"
            )
        return BatchLogits(logits, _all(logits), self.distribution)

    def observed(self, labels: Mapping[str, Tensor], prediction: BatchLogits) -> tuple[Tensor, Tensor]:
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

    def predict(self, result: Any, inputs: Mapping[str, Any], labels: Mapping[str, Tensor]) -> BatchLogits:
        logits = logits_in(result, self.name)
        logits = _expect(logits.unsqueeze(-1) if logits.dim() == 1 else logits, 2, self.name).unsqueeze(1)
        return BatchLogits(logits, _all(logits), self.distribution)

    def observed(self, labels: Mapping[str, Tensor], prediction: BatchLogits) -> tuple[Tensor, Tensor]:
        targets = self.label(labels)
        if targets.numel() != prediction.logits.numel():
            outputs = [*prediction.logits.shape[:1], *prediction.logits.shape[2:]]
            raise InputError(
                f"output={self.name!r}: labels of shape {list(targets.shape)} for outputs of shape {outputs}; "
                "expected a label for every output"
            )
        return targets.reshape(prediction.logits.shape), prediction.scored


class Regression(MultiLabel):
    """D real outputs, normal with unit variance: outputs `[N, D]` (or `[N]`)."""

    name = "regression"
    distribution: Distribution = Gaussian()


class QuestionAnswering(Output):
    """Extractive QA: two softmaxes over the T positions of a window, log p = log p(start) + log p(end)."""

    name = "question_answering"

    def predict(self, result: Any, inputs: Mapping[str, Any], labels: Mapping[str, Tensor]) -> BatchLogits:
        start, end = getattr(result, "start_logits", None), getattr(result, "end_logits", None)
        if start is None or end is None:
            kind = type(result).__name__
            raise InputError(
                f"output='question_answering' expects start_logits and end_logits; the model gave {kind}"
            )
        logits = torch.stack([start, end], dim=1)
        return BatchLogits(logits, _all(logits), self.distribution)

    def observed(self, labels: Mapping[str, Tensor], prediction: BatchLogits) -> tuple[Tensor, Tensor]:
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

    def predict(self, result: Any, inputs: Mapping[str, Any], labels: Mapping[str, Tensor]) -> BatchLogits:
        logits = _expect(logits_in(result, self.name), 3, self.name)
        given = given_labels(labels)
        if given is not None:
            scored = self.aligned_labels(given) != IGNORED
        else:
            scored = self.scored_without_labels(inputs, logits)
        if scored.shape != logits.shape[:2]:
            raise InputError(
                f"output={self.name!r}: labels or attention mask have shape {list(scored.shape)}; "
                f"expected {list(logits.shape[:2])} like the logits"
            )
        return BatchLogits(logits, scored, self.distribution)

    def observed(self, labels: Mapping[str, Tensor], prediction: BatchLogits) -> tuple[Tensor, Tensor]:
        return self.aligned_labels(self.label(labels)), prediction.scored

    def aligned_labels(self, labels: Tensor) -> Tensor:
        return labels

    def scored_without_labels(self, inputs: Mapping[str, Any], logits: Tensor) -> Tensor:
        mask = inputs.get("attention_mask")
        return self.aligned_labels(real_tokens(mask)) if isinstance(mask, Tensor) else _all(logits)


class MaskedLM(Tagging):
    """One softmax over the vocabulary per masked token; the labels say which tokens are masked."""

    name = "masked_lm"

    def scored_without_labels(self, inputs: Mapping[str, Any], logits: Tensor) -> Tensor:
        raise InputError(
            "output='masked_lm' needs 'labels' in the batch to tell which tokens are masked (not −100)"
        )


class CausalLM(Tagging):
    """Next-token prediction: the logits at t are about token t+1.

    Those at the last token are about nothing and never scored; cut off, they would be copied in every backward pass.
    """

    name = "causal_lm"

    def aligned_labels(self, labels: Tensor) -> Tensor:
        return torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], IGNORED)], dim=1)

    def scored_without_labels(self, inputs: Mapping[str, Any], logits: Tensor) -> Tensor:
        """From a token to a token: padding is neither predicted nor predicted from, on whichever side it is."""
        mask = inputs.get("attention_mask")
        real = real_tokens(mask) if isinstance(mask, Tensor) else _all(logits)
        following = torch.cat([real[:, 1:], torch.zeros_like(real[:, :1])], dim=1)
        return real & following


class Seq2SeqLM(Tagging):
    """The next target token of an encoder–decoder: the decoder reads the labels shifted by one, as in its own loss."""

    name = "seq2seq_lm"

    def arguments(
        self, model: Any, inputs: Mapping[str, Any], labels: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        if "decoder_input_ids" in inputs or "decoder_inputs_embeds" in inputs:
            return inputs
        given = given_labels(labels)
        if given is None:
            raise InputError(
                "output='seq2seq_lm' needs 'labels' or 'decoder_input_ids' in the batch: what the decoder reads"
            )
        shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
        read = shift(given) if shift is not None else _shifted(given, model.config)
        return {**inputs, "decoder_input_ids": read}

    def scored_without_labels(self, inputs: Mapping[str, Any], logits: Tensor) -> Tensor:
        mask = inputs.get("decoder_attention_mask")
        return real_tokens(mask) if isinstance(mask, Tensor) else _all(logits)


def _shifted(labels: Tensor, config: Any) -> Tensor:
    start = torch.full_like(labels[:, :1], config.decoder_start_token_id)
    read = torch.cat([start, labels[:, :-1]], dim=1)
    return read.masked_fill(read == IGNORED, config.pad_token_id)


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
        Seq2SeqLM(),
    )
}
