"""Task adapters of `peft`: LoRA, DoRA and rank-stabilised LoRA on any model of transformers, decoders too.

The model has the head that transformers gives it for the task. What the checkpoint lacks is the head: it is drawn with
the recipe's seed, trained in full and saved with the adapter. A task with answers has a causal language model and no
head. There are no language adapters here: they are MAD-X's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from peft import LoraConfig, get_peft_model
from transformers import CONFIG_MAPPING, PretrainedConfig

from fishlens.errors import InputError, first_line
from fishlens.files import writing_folder
from fishlens.fisher.blocks import Block, find_blocks
from fishlens.recipe.paths import resolve_path
from fishlens.recipe.recipe import PEFT, Recipe
from fishlens.training.assembly import Assembly, cut_at_positions, only_trainable, refuse_incomplete
from fishlens.training.label_likelihood import LabelLikelihood, refuse_unless_causal
from fishlens.training.tasks import Task
from fishlens.training.tasks.likelihood import Likelihood
from fishlens.training.tokenizer import load_tokenizer

NAME = "default"  # what peft calls an adapter that was not named
METHODS: dict[str, dict[str, Any]] = {"lora": {}, "dora": {"use_dora": True}, "rslora": {"use_rslora": True}}
# output of a task -> the class of transformers, and what its configuration says of the labels
_HEADS = {
    "classification": ("AutoModelForSequenceClassification", "single_label_classification"),
    "regression": ("AutoModelForSequenceClassification", "regression"),
    "multilabel": ("AutoModelForSequenceClassification", "multi_label_classification"),
    "tagging": ("AutoModelForTokenClassification", None),
    "question_answering": ("AutoModelForQuestionAnswering", None),
    "multiple_choice": ("AutoModelForMultipleChoice", None),
}


@dataclass(frozen=True)
class PeftAssembly(Assembly):
    """A model of `peft` with one adapter, the same in every language."""

    def activate_language(self, language: str | None) -> None:
        """Nothing to swap."""

    @property
    def _peft_model(self) -> Any:
        return self.model.lm if isinstance(self.model, LabelLikelihood) else self.model

    def check_setup(self, language: str | None) -> None:
        active = list(self._peft_model.active_adapters)
        if active != [self.adapter]:
            raise RuntimeError(f"the active adapters are {active}; expected [{self.adapter!r}]")

    def save(self, place: Path) -> None:
        with writing_folder(place / "adapter") as folder:
            self._peft_model.save_pretrained(folder, safe_serialization=True)


def assemble_peft(recipe: Recipe, task: Task) -> PeftAssembly:
    """Load the recipe's model with the head of its task, and put the adapter in.

    Raises `InputError` for a model that cannot be loaded, options that peft does not have, or a task without a head.
    """
    assert recipe.adapter is not None
    settings = lora_settings(recipe.adapter)
    torch.manual_seed(recipe.seed)
    model, tokenizer, head = _load(recipe.model, task)
    try:
        model = get_peft_model(model, LoraConfig(**{"modules_to_save": head, **settings}))
    except (TypeError, ValueError) as error:
        raise InputError(f"adapter {recipe.adapter!r} does not fit the model: {first_line(error)}") from error
    if isinstance(task, Likelihood):
        model = LabelLikelihood(model)
    blocks = _trained(find_blocks(model, by="adapter", adapter=NAME))
    only_trainable(model, blocks)
    return PeftAssembly(model, tokenizer, blocks, NAME, frozenset())


def _trained(blocks: Sequence[Block]) -> list[Block]:
    """The blocks less what peft keeps frozen in them: a pretrained pooler, a decoder's last norm."""
    kept = [{name: p for name, p in block.parameters.items() if p.requires_grad} for block in blocks]
    return [replace(block, parameters=own) for block, own in zip(blocks, kept, strict=True) if own]


def lora_settings(adapter: str) -> dict[str, Any]:
    """The fields of peft's `LoraConfig` that a string like `peft:dora[r=16,target_modules=[q_proj,v_proj]]` sets.

    Raises `InputError` naming the method or the field that peft does not have.
    """
    match = re.fullmatch(rf"{PEFT}(\w+)(?:\[(.*)\])?", adapter)
    if match is None or match[1] not in METHODS:
        known = ", ".join(PEFT + name for name in METHODS)
        raise InputError(
            f"adapter is {adapter!r}; expected one of {known}, with options as in {PEFT}lora[r=8]"
        )
    given = re.sub(r"(\w+)=", r"\1: ", match[2] or "")
    try:
        options = yaml.safe_load("{" + given + "}")
    except yaml.YAMLError as error:
        raise InputError(f"adapter {adapter!r}: its options cannot be read: {first_line(error)}") from error
    for name in options:
        if name not in LoraConfig.__dataclass_fields__:
            raise InputError(
                f"adapter {adapter!r}: peft's LoraConfig has no field {name!r}; expected r, lora_alpha, lora_dropout, "
                "target_modules or another of its fields"
            )
    return {**METHODS[match[1]], **options}


def _load(name: str, task: Task) -> tuple[Any, Any, list[str]]:
    """(model, tokenizer, names of the modules that the checkpoint lacks: the head). No remote code, ever."""
    kind, options = _class_of(task)
    place = resolve_path(name)
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # it warns of the new head
    try:
        _refuse_unknown(name, place)
        model, report = getattr(transformers, kind).from_pretrained(
            place, trust_remote_code=False, output_loading_info=True, torch_dtype=torch.float32, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"model {name!r} cannot be loaded: {first_line(error)}") from error
    finally:
        transformers.logging.set_verbosity(verbosity)
    tokenizer = load_tokenizer(place, name)
    if isinstance(task, Likelihood):
        refuse_incomplete(model, name, sorted(report["missing_keys"]))
        refuse_unless_causal(model, name)
        head = []
    else:
        head = _lacking(model, name, report["missing_keys"])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    cut_at_positions(tokenizer, model)
    return model, tokenizer, head


def _class_of(task: Task) -> tuple[str, dict[str, Any]]:
    """The class of transformers that has the task's head, and what it is told of the labels."""
    if isinstance(task, Likelihood):
        return "AutoModelForCausalLM", {}
    if task.output not in _HEADS:
        raise InputError(f"task {task.name!r} predicts {task.output}; a peft adapter has no head for it")
    kind, problem = _HEADS[task.output]
    options: dict[str, Any] = {"problem_type": problem} if problem is not None else {}
    labels = getattr(task, "labels", None)
    if labels is not None and task.output != "multiple_choice":
        options |= {"num_labels": len(labels), "id2label": dict(enumerate(map(str, labels)))}
    return kind, options


def _refuse_unknown(name: str, place: str) -> None:
    """Raises `InputError` for an architecture that this transformers does not have itself."""
    settings, _ = PretrainedConfig.get_config_dict(place)
    kind = settings.get("model_type")
    if kind is not None and kind not in CONFIG_MAPPING:
        raise InputError(
            f"model {name!r} is a {kind}, which transformers {transformers.__version__} does not have; expected one "
            "that it has: a newer transformers may (code beside the weights is never run)"
        )


def _lacking(model: Any, name: str, missing: Any) -> list[str]:
    """The modules of the head: those outside the pretrained part, and a pooler that the checkpoint lacks."""
    inside = f"{model.base_model_prefix}."
    lost = sorted(key for key in missing if key.startswith(inside) and ".pooler." not in key)
    refuse_incomplete(model, name, lost)
    return sorted({"pooler" if key.startswith(inside) else key.split(".")[0] for key in missing})
