"""Which output a model has, and how that was decided: told, read off the model, or seen in the first labels.

It is decided once, before the first number, and goes with every number as `output` and `output_from`. What
transformers writes into a config at its first loss (`problem_type`) says the same as the labels it saw.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from fishlens.errors import InputError
from fishlens.fisher.outputs import OUTPUTS, BatchLogits, Output, given_labels, logits_in
from fishlens.fisher.walk import settled

_ADAPTERS_HEADS = {
    "classification": "classification",
    "image_classification": "classification",
    "multilabel_classification": "multilabel",
    "multiple_choice": "multiple_choice",
    "question_answering": "question_answering",
    "tagging": "tagging",
    "masked_lm": "masked_lm",
    "causal_lm": "causal_lm",
    "seq2seq_lm": "seq2seq_lm",
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
    "ForConditionalGeneration": "seq2seq_lm",
    "ForSpeechSeq2Seq": "seq2seq_lm",
    "MTModel": "seq2seq_lm",
    "EncoderDecoderModel": "seq2seq_lm",
}
_PROBLEMS = {
    "multi_label_classification": "multilabel",
    "regression": "regression",
    "single_label_classification": "classification",
}

UNTOLD = "assumed: no labels"
Decision = tuple[str, str]
"""Name of the output, and how it was decided."""
Decide = Callable[[Tensor, Tensor | None], Decision]
"""(logits of the first batch, its labels) -> the decision."""


def find_output(model: nn.Module, output: str = "auto") -> Output:
    """The output called `output`, or the one that `model` has.

    One that only labels can tell decides at the first prediction (`Undecided`). Raises `InputError` if it cannot be
    told; so does that first prediction.
    """
    if output == "auto":
        found = settled(model, "output", lambda: _infer(model))
        return Undecided(found) if callable(found) else _decided(*found)
    if output not in OUTPUTS:
        raise InputError(f"output={output!r} is unknown; expected 'auto' or one of {', '.join(OUTPUTS)}")
    return _decided(output, "told")


class Undecided(Output):
    """An output that the first batch decides, by its logits and labels; from then on that output."""

    def __init__(self, decide: Decide) -> None:
        self._decide = decide
        self._chosen: Output | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        return self._chosen.name if self._chosen is not None else "classification"

    @property
    def decided_by(self) -> str:  # type: ignore[override]
        return self._chosen.decided_by if self._chosen is not None else "nothing yet"

    def predict(self, result: Any, inputs: Mapping[str, Any], labels: Mapping[str, Tensor]) -> BatchLogits:
        if self._chosen is None:
            logits = logits_in(result, self.name)
            decided = _decided(*self._decide(logits, given_labels(labels)))
            if self._decide is _by_labels:  # nobody else has said what is returned
                _refuse_other_numbers(result, logits, decided)
            self._chosen = decided
        return self._chosen.predict(result, inputs, labels)

    def observed(self, labels: Mapping[str, Tensor], prediction: BatchLogits) -> tuple[Tensor, Tensor]:
        assert self._chosen is not None
        return self._chosen.observed(labels, prediction)


def _refuse_other_numbers(result: Any, logits: Tensor, output: Output) -> None:
    """`InputError` where what would be taken as logits may be something else: another of several tensors, or shares."""
    if logits.dim() and isinstance(result, (tuple, list)) and not hasattr(result, "logits"):
        alike = [list(x.shape) for x in result if isinstance(x, Tensor) and _could_be_logits(x, len(logits))]
        if len(alike) > 1:
            shapes = ", ".join(map(str, alike))
            raise InputError(
                f"the model returned several tensors that could be its logits, of shapes {shapes}: give output= if the "
                "first is meant, or return a mapping with 'logits'"
            )
    if output.name == "classification" and logits.dim() == 2 and _are_shares(logits.detach()):
        raise InputError(
            "the outputs of every row lie between 0 and 1 and sum to one (a softmax at the end?); expected logits, or "
            "their log_softmax: give output='classification' if the loss takes them as logits, as CrossEntropyLoss does"
        )


def _could_be_logits(x: Tensor, examples: int) -> bool:
    return x.is_floating_point() and x.dim() == 2 and x.shape[0] == examples and x.shape[1] > 1


def _are_shares(x: Tensor) -> bool:
    return bool(((x >= 0) & (x <= 1)).all() & ((x.sum(-1) - 1).abs() < 1e-3).all())


def _decided(name: str, how: str) -> Output:
    output = copy.copy(OUTPUTS[name])
    output.decided_by = how
    return output


def _infer(model: Any) -> Decision | Decide:
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    heads = getattr(inner, "heads", None)
    if isinstance(heads, nn.ModuleDict) and hasattr(inner, "active_head"):
        return _of_adapters_head(inner, heads)
    if not (hasattr(inner, "config") and hasattr(inner, "base_model_prefix")):
        return _by_labels
    for kind in type(inner).__mro__:  # one's own subclass predicts what its parent does
        name = kind.__name__.removesuffix("WithAdapters")
        for suffix, output in _CLASS_SUFFIXES.items():
            if name.endswith(suffix):
                return _of_class(inner, name, output)
    raise InputError(
        f"cannot tell what {type(inner).__name__} predicts; give output= one of {', '.join(OUTPUTS)}"
    )


def _of_class(model: Any, kind: str, output: str) -> Decision | Decide:
    if output == "seq2seq_lm" and not getattr(model.config, "is_encoder_decoder", True):
        output = "causal_lm"  # a decoder that also sees images or sounds
    if output != "classification":
        return output, f"the class {kind}"
    problem = getattr(model.config, "problem_type", None)
    if problem in _PROBLEMS:
        return _PROBLEMS[problem], "config.problem_type"
    return _as_transformers_loss


def _of_adapters_head(model: Any, heads: Any) -> Decision:
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
    single = name == "classification" and config["num_labels"] == 1
    return "regression" if single else name, f"the head {active!r}"


def _as_transformers_loss(logits: Tensor, labels: Tensor | None) -> Decision:
    """The choice of transformers' loss where `config.problem_type` is not set."""
    if logits.shape[-1] == 1:
        if labels is None:
            raise InputError(
                "the model has one output and the batch no labels: a regression, a yes or no, or a reward (whose "
                "loss is of pairs, not of one example)? Give output='regression' or 'multilabel', or labels"
            )
        return "regression", "one output, as transformers' loss has it"
    if labels is None:
        return "classification", "assumed: no problem_type and no labels"
    if labels.is_floating_point():
        return "multilabel", "labels that are floats, as transformers' loss has it"
    return "classification", "labels that are whole numbers"


def _by_labels(logits: Tensor, labels: Tensor | None) -> Decision:
    """For a module of one's own: one whole number a row is a class; real numbers of the outputs' shape are targets of a
    regression if any lies outside 0 to 1. All else could mean several things, and is asked."""
    if labels is None:
        return "classification", UNTOLD
    shapes = f"labels of shape {list(labels.shape)} for outputs of shape {list(logits.shape)}"
    one_each = labels.numel() == len(logits)
    same = labels.numel() == logits.numel() and logits.dim() <= 2
    outputs = logits.shape[-1] if logits.dim() > 1 else 1
    whole = not labels.is_floating_point() or bool((labels == labels.floor()).all())
    if one_each and whole and outputs > 1:
        return "classification", "labels that are one whole number a row"
    if same and not whole and bool(((labels < 0) | (labels > 1)).any()):
        return "regression", "real labels of the outputs' shape"
    if same:
        raise InputError(
            f"{shapes} could be yes or no for every output, shares that sum to one, or targets of a regression; "
            "give output='multilabel', 'classification' or 'regression'"
        )
    if one_each and outputs > 1:
        raise InputError(
            f"a label of batch 1 is out of the range of {outputs} classes, which are whole numbers ({shapes}); for a "
            "regression give output='regression' and a label for every output"
        )
    raise InputError(f"cannot tell what {shapes} mean; give output= one of {', '.join(OUTPUTS)}")
