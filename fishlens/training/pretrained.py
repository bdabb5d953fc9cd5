"""A checkpoint of transformers with a head, as somebody else trained it: which one it is, and loading it whole."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig

from fishlens.errors import InputError, first_line
from fishlens.recipe.paths import resolve_path
from fishlens.training.assembly import cut_at_positions
from fishlens.training.tokenizer import load_tokenizer

MASKED, CAUSAL = "masked_lm", "causal_lm"
HEADS = {  # how an architecture ends -> the class that loads it, and what it does
    "ForSequenceClassification": ("AutoModelForSequenceClassification", "text"),
    "ForTokenClassification": ("AutoModelForTokenClassification", "tagging"),
    "ForQuestionAnswering": ("AutoModelForQuestionAnswering", "qa"),
    "ForMultipleChoice": ("AutoModelForMultipleChoice", "choice"),
    "ForMaskedLM": ("AutoModelForMaskedLM", MASKED),
    "ForCausalLM": ("AutoModelForCausalLM", CAUSAL),
    "LMHeadModel": ("AutoModelForCausalLM", CAUSAL),
}


@dataclass(frozen=True)
class Pretrained:
    """`name`: folder or hub id. `task`: the task of recipes that feeds it, or one of MASKED and CAUSAL.
    `labels`: in the order of the head's outputs; empty where it has none."""

    name: str
    architecture: str
    task: str
    labels: tuple[str, ...]

    @classmethod
    def of(cls, name: str) -> "Pretrained":
        """Raises `InputError` unless it is a model with a head whose likelihood can be measured."""
        place = resolve_path(name)
        if Path(place, "adapter_config.json").is_file():
            raise InputError(
                f"{name} is an adapter; expected a whole model (merge the adapter into it), or the run that trained it"
            )
        try:
            config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{name} is neither a run nor a model that can be read: {first_line(error)}"
            ) from error
        architecture = next(iter(config.architectures or ()), "model without a named architecture")
        task = next((task for ending, (_, task) in HEADS.items() if architecture.endswith(ending)), None)
        if task is None:
            raise InputError(
                f"{name} is a {architecture}; expected one of …{', …'.join(HEADS)}, or estimate_fisher in Python"
            )
        labels = [str(config.id2label[i]) for i in sorted(config.id2label or {})]
        if task == "text":
            told = {"multi_label_classification": "multilabel", "regression": "regression"}
            task = told.get(str(config.problem_type), "regression" if len(labels) == 1 else task)
        if len(set(labels)) < len(labels):
            raise InputError(f"{name} has labels of one name: {labels}; expected a name of its own for each")
        return cls(
            name, architecture, task, tuple(labels) if task in ("text", "multilabel", "tagging") else ()
        )

    def load(self) -> tuple[Any, Any]:
        """(model, tokenizer) in float32, in eval mode. Raises `InputError` if the checkpoint lacks weights."""
        place = resolve_path(self.name)
        loader = next(loader for ending, (loader, _) in HEADS.items() if self.architecture.endswith(ending))
        verbosity = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity_error()  # of weights that are lacking it only warns
        try:
            model, report = getattr(transformers, loader).from_pretrained(
                place, trust_remote_code=False, output_loading_info=True, torch_dtype=torch.float32
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InputError(f"model {self.name!r} cannot be loaded: {first_line(error)}") from error
        finally:
            transformers.logging.set_verbosity(verbosity)
        tokenizer = load_tokenizer(place, self.name)
        if missing := sorted(report["missing_keys"]):
            raise InputError(
                f"model {self.name!r} lacks {len(missing)} weights, {missing[0]} among them, which would be drawn at "
                f"random; expected a whole checkpoint of a {self.architecture}"
            )
        if self.task == MASKED and tokenizer.mask_token_id is None:
            raise InputError(
                f"the tokenizer of {self.name!r} has no mask token, which a {self.architecture} needs"
            )
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id
        cut_at_positions(tokenizer, model)
        return model.eval(), tokenizer
