"""The recipe: everything that determines a run, validated, printable, written back with the run.

A recipe is YAML (or a dict). Unknown fields are refused with their path; every field has a description, from which
`fishlens recipes NAME` and docs/training.md are printed. Paths are kept as they are written; relative ones are
relative to the current directory, wherever the recipe's file lies.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, model_validator

from fishlens.names import check_file_name, check_language, colliding
from fishlens.own_code import is_own
from fishlens.recipe.paths import resolve_path


def _local(place: str) -> str:
    scheme, separator, _ = place.partition("://")
    if separator and scheme != "package":
        raise ValueError(
            f"is {place!r}; expected a folder, a hub id or package://module/path: nothing is fetched"
        )
    return place


def _when(every: Any) -> Any:
    """50, "2%" or [0, 10, 100], as `Tracker` takes it."""
    if type(every) is int and every >= 1:
        return every
    if isinstance(every, str) and (told := re.fullmatch(r"\s*(\d+|\d*\.\d+)\s*%\s*", every)):
        if 0 < float(told[1]) < 100:
            return f"{told[1]}%"
    elif isinstance(every, list) and every and all(type(step) is int and step >= 0 for step in every):
        return every
    raise ValueError(
        f"is {every!r}; expected a number of steps (50), a share of the training time (2%), a list of steps ([0, 100]) "
        "or null"
    )


PEFT = "peft:"
"""What the configuration string of a task adapter of `peft` begins with."""

Positive = Annotated[int, Field(ge=1)]
FolderName = Annotated[str, AfterValidator(check_file_name)]
Language = Annotated[str, AfterValidator(check_language)]
Place = Annotated[str, AfterValidator(_local)]
Every = Annotated[int | str | list[int], PlainValidator(_when)]
Files = Place | dict[Language, Place] | None


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Options(BaseModel):
    """A section that is passed on by name: what else stands in it are options of the thing named."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class TaskChoice(Options):
    name: str = Field(
        description="nli, choice, qa, pos, ner, topic; text, pair, multilabel, regression, tagging for data of your "
        "own; or module:Class"
    )


class ScheduleChoice(Options):
    name: str = Field("standard", description="which blocks train when (docs/schedules.md), or module:Class")
    every: Positive = Field(50, description="k: optimizer steps between two events")


class Data(Section):
    root: Place = Field(".", description="folder that holds the data sets in their official layout")
    source: Language = Field("en", description="language of training and validation")
    targets: list[Language] = Field([], description="languages of the final zero-shot test")
    train: Files = Field(
        None,
        description="own file instead of the official one: a path (mine/train.tsv), a pattern (mine/{language}.tsv) or "
        "a map ({de: german.tsv})",
    )
    validation: Files = Field(None, description="the same for validation")
    test: Files = Field(None, description="the same for test")
    test_source: bool = Field(True, description="test on the source language too")
    train_language_adapter: bool = Field(
        True,
        description="train on top of the source's language adapter; false: as the published QA script did, where "
        "only evaluation used one",
    )

    @property
    def folder(self) -> str:
        """Where `root` is on this disk."""
        return resolve_path(self.root)


class Train(Section):
    steps: Positive | None = Field(None, description="optimizer updates (either this or epochs)")
    epochs: float | None = Field(None, gt=0, description="passes over the training examples")
    batch_size: Positive = Field(
        32, description="rows per update, over all processes and accumulation together"
    )
    accumulate: Positive = Field(1, description="parts that one update's rows are split into, to save memory")
    learning_rate: float = Field(5e-4, ge=0, allow_inf_nan=False, description="of AdamW, at its highest")
    warmup: int = Field(0, ge=0, description="updates over which the learning rate rises to its highest")
    lr_schedule: Literal["linear", "constant"] = Field("linear", description="linear: to 0 at the last step")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW, on all parameters that train")
    max_gradient_norm: float | None = Field(
        1.0, gt=0, description="gradients are clipped to this norm; null: never"
    )
    examples: Positive | None = Field(None, description="train on a seeded subset of so many examples")
    max_length: Positive | None = Field(None, description="tokens per row; null: the task's own")
    group_by_length: bool = Field(
        False, description="rows of an update are of similar length: less padding, other batches"
    )
    fisher_penalty: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="train on loss + this times tr(F) of the thawed blocks; 0: on the loss",
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of the forward pass")
    log_every: Positive = Field(10, description="write the mean loss to the journal every so many steps")

    @model_validator(mode="after")
    def _one_length(self) -> "Train":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        if self.steps is not None and self.warmup >= self.steps:
            raise ValueError(f"warmup is {self.warmup}; expected fewer than the {self.steps} steps")
        if self.fisher_penalty and self.precision == "fp16":
            raise ValueError(
                "fisher_penalty squares gradients, which fp16 does not hold: set precision to bf16 or fp32"
            )
        return self


class Tracking(Section):
    every: Every | None = Field(
        50,
        description="probe the Fisher information every so many steps (50), as often as a share of the training time "
        "allows (2%), or at these steps ([0, 10, 100]); null: never",
    )
    examples: Positive = Field(64, description="examples per probe")
    labels: Literal["auto", "exact", "mc", "empirical", "mode"] = Field("auto", description="docs/fisher.md")
    samples: Positive = Field(1, description="label samples per example (mc)")
    granularity: Literal["example", "batch"] = Field("example", description="docs/fisher.md")
    preset: Literal["published"] | None = Field(
        None, description="published: as the published code estimated it"
    )
    diagonals: list[Annotated[int, Field(ge=0)]] = Field(
        [], description="steps at which the diagonal is written too, whether or not a probe is due"
    )
    blocks: dict[str, str | list[str]] | None = Field(
        None,
        description="own blocks: {attention: '*.attention.*', mlp: ['*.output.*', '!*.attention.*']}, patterns over "
        "names of parameters that can train, ! leaves out; null: the schedule's blocks",
    )
    noise_scale: bool = Field(
        False, description="measure the gradient noise scale too (one more backward pass)"
    )
    split: Literal["train", "validation"] = Field(
        "train", description="whose examples are measured, in the source language; of schedules' scores too"
    )
    languages: str | list[Language] = Field(
        [],
        description="target languages that every probe measures too, without labels (docs/targets.md); targets: all of "
        "data.targets",
    )
    languages_every: Positive | None = Field(
        None,
        description="measure these languages only at probes whose step divides by this; null: at every probe",
    )
    text: Place | None = Field(
        None,
        description="raw text of these languages, path/{language}.txt; null: the task's validation or test inputs",
    )
    cka: bool = Field(
        False,
        description="measure how alike the representations of these languages and the source are, by layer",
    )
    critical_sharpness: bool = Field(
        False, description="measure it at each probe: about ten forward passes more (docs/targets.md)"
    )


class TargetScores(Section):
    every: Positive = Field(
        100, description="score the targets every so many steps, and at the first and last"
    )
    examples: Positive | None = Field(
        300, description="on a seeded subset of so many test examples per language; null: all"
    )


class Evaluate(Section):
    every: Positive | None = Field(None, description="validate every so many steps; null: after each epoch")
    examples: Positive | None = Field(None, description="validate on a seeded subset of so many examples")
    test_examples: Positive | None = Field(
        None, description="test on a seeded subset of so many per language"
    )
    batch_size: Positive = Field(
        64, description="rows per forward pass; on a CPU 32 at most, which is faster"
    )
    targets: TargetScores | None = Field(
        None, description="target scores over training, which choose nothing: {every: 100, examples: 300}"
    )


class Checkpoint(Section):
    every: Positive | None = Field(
        None, description="write one every so many steps; null: at each validation"
    )
    keep: Positive = Field(1, description="how many of the newest to keep, besides the best")


class Recipe(Section):
    name: FolderName = Field(description="of the run's directory and in its journal")
    seed: int = Field(
        0, ge=0, description="of initial weights, data order, dropout, subsets and random schedules"
    )
    model: Place = Field(description="pretrained encoder: folder, hub id or package://module/path")
    adapter: str | None = Field(
        "seq_bn",
        description="the task adapter: a configuration string of adapters, or peft:lora, peft:dora, peft:rslora with "
        "LoraConfig's fields in brackets; null: train the model's own weights",
    )
    language_adapters: Place | dict[Language, Place] | None = Field(
        None,
        description="language adapters: {language: folder or hub id}, or one pattern with {language}; null: none",
    )
    task: TaskChoice
    data: Data = Data()
    train: Train
    schedule: ScheduleChoice = ScheduleChoice()
    tracking: Tracking = Tracking()
    evaluate: Evaluate = Evaluate()
    checkpoint: Checkpoint = Checkpoint()
    report_to: list[str] = Field(
        [],
        description="dashboards that get the run too (tensorboard, wandb, mlflow, trackio); one that fails is switched "
        "off with a warning",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.schedule.name == "full" and self.adapter is not None:
            raise ValueError("schedule 'full' trains the model's own weights: set adapter=null")
        if self.adapter is None and self.language_adapters is not None:
            raise ValueError("without a task adapter there is nothing to stack: set language_adapters=null")
        if pair := colliding(self.languages):
            raise ValueError(
                f"the languages {pair[0]!r} and {pair[1]!r} would be one file on some systems: give them other codes"
            )
        if (self.adapter or "").startswith(PEFT) and self.language_adapters is not None:
            raise ValueError(
                f"adapter {self.adapter} is peft's, and language adapters belong to MAD-X (library adapters): "
                "set language_adapters=null"
            )
        return self

    @model_validator(mode="after")
    def _there_are_targets_to_score(self) -> "Recipe":
        if self.evaluate.targets is not None and not self.data.targets:
            raise ValueError("evaluate.targets scores the languages of data.targets, which is empty")
        return self

    @model_validator(mode="after")
    def _languages_can_be_tracked(self) -> "Recipe":
        tracking, data = self.tracking, self.data
        if isinstance(tracking.languages, str) and tracking.languages != "targets":
            raise ValueError(
                f"tracking.languages is {tracking.languages!r}; expected a list of languages, or 'targets' for all of "
                "data.targets"
            )
        if tracking.text is not None and "{language}" not in tracking.text:
            raise ValueError(
                f"tracking.text is {tracking.text!r}: put {{language}} where the language stands"
            )
        if not tracking.languages:
            for name in ("languages_every", "text", "cka"):
                if getattr(tracking, name):
                    raise ValueError(f"tracking.{name} is given, but tracking.languages names no language")
            return self
        if not self.tracked_languages:
            raise ValueError("tracking.languages is 'targets', but data.targets is empty")
        if data.source in self.tracked_languages:
            raise ValueError(
                f"tracking.languages names the source {data.source!r}, which is measured in any case: leave it out"
            )
        if tracking.preset is not None or tracking.labels in ("empirical", "mode"):
            what = f"preset={tracking.preset!r}" if tracking.preset else f"labels={tracking.labels!r}"
            raise ValueError(
                f"tracking.{what} cannot be measured in a target language, whose labels nobody looks at: set "
                "tracking.labels to auto, exact or mc, or tracking.languages to []"
            )
        scored = self.schedule.options.get("scores") == "targets"
        if tracking.every is None and not scored:
            raise ValueError(
                "tracking.languages names languages, but tracking.every is null: nothing is measured"
            )
        return self

    def language_adapter(self, language: str) -> str | None:
        """Where the adapter of `language` is: None if it has none (or the recipe uses none at all)."""
        if isinstance(self.language_adapters, str):
            return self.language_adapters.replace("{language}", language)
        return (self.language_adapters or {}).get(language)

    @property
    def tracked_languages(self) -> list[str]:
        """The target languages whose Fisher information is followed, each once."""
        named = self.tracking.languages
        return list(dict.fromkeys(self.data.targets if named == "targets" else named))

    @property
    def own_code(self) -> dict[str, str]:
        """{field: module:Class} of what is code of somebody's own, to be run by whoever trains by this recipe."""
        metrics = self.task.options.get("metrics") or []
        metrics = [metrics] if isinstance(metrics, str) else metrics
        named = {
            "task.name": self.task.name,
            "schedule.name": self.schedule.name,
            **{
                f"task.metrics[{i}]": name
                for i, name in enumerate(metrics if isinstance(metrics, list) else [])
            },
        }
        return {field: name for field, name in named.items() if isinstance(name, str) and is_own(name)}

    @property
    def languages(self) -> list[str]:
        """Source first, then the targets, then what is tracked besides, each once."""
        return list(dict.fromkeys([self.data.source, *self.data.targets, *self.tracked_languages]))
