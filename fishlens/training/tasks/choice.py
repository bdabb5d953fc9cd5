"""Multiple choice: trained on COPA, tested on XCOPA."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fishlens.errors import InputError
from fishlens.training.data.fields import field
from fishlens.training.data.hub import HubPlace
from fishlens.training.data.jsonl import read_jsonl
from fishlens.training.data.lines import at
from fishlens.training.metrics.accuracy import accuracy
from fishlens.training.tasks.base import Feature, Prediction, Split, Task
from fishlens.training.tasks.encoding import encode_texts, pad
from fishlens.training.tasks.layout import Layout, Place

if TYPE_CHECKING:
    import numpy as np
    import torch

LAYOUT = Layout(
    {
        "train": [Place("copa/train.{language}.jsonl")],
        "validation": [
            Place("copa/val.{language}.jsonl"),
            Place("xcopa/data/{language}/val.{language}.jsonl"),
        ],
        "test": [Place("xcopa/data/{language}/test.{language}.jsonl"), Place("copa/val.{language}.jsonl")],
    }
)
PROMPTS = {
    "copa": {"cause": "What was the cause?", "effect": "What happened as a result?"},
    "published": {"cause": "What was the cause?", "effect": "What was the effect?"},
}
"""How the question is put: COPA's own words, or those of the published code."""
LANGUAGES = ("et", "ht", "id", "it", "qu", "sw", "ta", "th", "tr", "vi", "zh")
ENGLISH_VALIDATION = HubPlace("aps/super_glue", "copa", "validation", ("en",))
ON_HUB = {
    "train": [HubPlace("aps/super_glue", "copa", "train", ("en",))],
    "validation": [ENGLISH_VALIDATION, HubPlace("cambridgeltl/xcopa", "{language}", "validation", LANGUAGES)],
    "test": [HubPlace("cambridgeltl/xcopa", "{language}", "test", LANGUAGES), ENGLISH_VALIDATION],
}


@dataclass(frozen=True)
class ChoiceExample:
    """A premise, what is asked about it (`cause` or `effect`), the alternatives, and the index of the right one."""

    id: str
    premise: str
    question: str
    choices: tuple[str, ...]
    label: int


class Choice(Task):
    """premise, cause or effect?, two alternatives → the more plausible one.

    Files: JSON lines with premise, choice1, choice2, question, label (0: choice1) and idx. English test labels are not
    published: a test in English is on the validation examples, as the split's notes say.

    Args:
        prompt: a key of `PROMPTS`.
        questions_from: the language whose files' `question` fields stand in for those of all, joined by `idx`. XCOPA's
            own are partly wrong (Thai says "effect" everywhere); those of et, ta, vi and zh agree with English.
    """

    name = "choice"
    ids_are_unique = True
    hub = ON_HUB
    output = "multiple_choice"
    headline = "accuracy"

    def __init__(
        self, files: Mapping[str, Any] | None = None, prompt: str = "copa", questions_from: str | None = None
    ) -> None:
        super().__init__(LAYOUT, files)
        if prompt not in PROMPTS:
            raise InputError(f"unknown prompt {prompt!r}; expected {', '.join(PROMPTS)}")
        self.prompt = prompt
        self.questions_from = questions_from

    def read(self, path: Path, language: str) -> Iterator[ChoiceExample]:
        for line, row in read_jsonl(path):
            yield self._example(at(path, line), row)

    def from_hub(self, where: str, name: str, row: Mapping[str, Any], language: str) -> ChoiceExample:
        classes: dict[Any, int] = {"choice1": 0, "choice2": 1}
        return self._example(where, {**row, "label": classes.get(row.get("label"), row.get("label"))})

    def _example(self, where: str, row: Mapping[str, Any]) -> ChoiceExample:
        question = field(where, row, "question", str)
        if question not in PROMPTS[self.prompt]:
            raise InputError(f"{where}: 'question' is {question!r}; expected 'cause' or 'effect'")
        label = field(where, row, "label", int)
        if label not in (0, 1):
            raise InputError(f"{where}: 'label' is {label}; expected 0 or 1")
        choices = (field(where, row, "choice1", str), field(where, row, "choice2", str))
        name = str(field(where, row, "idx", int))
        return ChoiceExample(name, field(where, row, "premise", str), question, choices, label)

    def load(self, root: Path | str, split: str, language: str) -> Split:
        loaded = super().load(root, split, language)
        if split == "test" and language == "en" and split not in self.overridden:
            note = f"{loaded.source} serves as test and validation data: choosing a model on it flatters the test"
            loaded = replace(loaded, notes=(*loaded.notes, note))
        other = self.questions_from
        if other is None or other == language or other not in self.languages(root, split):
            return loaded
        questions = {example.id: example.question for example in super().load(root, split, other)}
        missing = [example.id for example in loaded if example.id not in questions]
        if missing:
            raise InputError(
                f"{loaded.source}: idx {missing[0]} is not in the file of questions_from = {other!r}"
            )
        examples = tuple(replace(example, question=questions[example.id]) for example in loaded)
        changed = sum(a != b for a, b in zip(examples, loaded, strict=True))
        note = f"{loaded.source}: {changed} of {len(loaded)} questions replaced by those of {other!r}"
        return replace(loaded, examples=examples, notes=(*loaded.notes, note))

    def row_texts(self, example: ChoiceExample) -> list[tuple[str, ...]]:
        first = f"{example.premise} {PROMPTS[self.prompt][example.question]}"
        return [(first, choice) for choice in example.choices]

    def encode(
        self, split: Split, tokenizer: Any, *, max_length: int | None = None, train: bool
    ) -> list[Feature]:
        """One feature per question; its `choices` are the rows of its alternatives."""
        texts = [row for example in split for row in self.row_texts(example)]
        first, second = [row[0] for row in texts], [row[1] for row in texts]
        rows = iter(encode_texts(tokenizer, first, second, max_length or self.max_length))
        return [
            {"example": i, "label": example.label, "choices": [next(rows) for _ in example.choices]}
            for i, example in enumerate(split)
        ]

    def collate(self, features: Sequence[Feature], tokenizer: Any) -> "dict[str, torch.Tensor]":
        """Tensors `[questions, choices, tokens]` and labels `[questions]`."""
        import torch

        flat = pad([row for feature in features for row in feature["choices"]], tokenizer)
        batch = {key: value.unflatten(0, (len(features), -1)) for key, value in flat.items()}
        return {**batch, "labels": torch.tensor([feature["label"] for feature in features])}

    def tokens(self, feature: Feature) -> int:
        return max(len(row["input_ids"]) for row in feature["choices"])

    def add_head(self, model: Any, name: str | None = None) -> None:
        model.add_multiple_choice_head(name or self.name, num_choices=2)

    def rows(self, outputs: Any, batch: "Mapping[str, torch.Tensor]") -> "list[np.ndarray]":
        """Logits `[choices]` per question."""
        return list(outputs.logits.detach().float().cpu().numpy())

    def predict(
        self, split: Split, features: Sequence[Feature], rows: "Sequence[np.ndarray]"
    ) -> list[Prediction]:
        return [
            Prediction(example.id, example.label, int(row.argmax()))
            for example, row in zip(split, rows, strict=True)
        ]

    def score(self, split: Split, predictions: Sequence[Prediction]) -> dict[str, float]:
        return {"accuracy": accuracy([p.gold for p in predictions], [p.predicted for p in predictions])}
