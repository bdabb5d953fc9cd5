"""What a task is: the family's contract.

A task turns files into examples, examples into what a model is fed, and what the model returns into scores:

    split       = task.load(root, "test", "de")                     examples of one split in one language
    features    = task.encode(split, tokenizer, train=False)        what the model is fed, one dict per row
    batch       = task.collate(features[:8], tokenizer)             tensors; model(**batch) gives a loss
    rows        = task.rows(model(**batch), batch)                  one array per feature, padding cut off
    predictions = task.predict(split, features, rows)               one per example: id, gold, predicted
    scores      = task.score(split, predictions)                    {metric: points}; task.headline is one of them
"""

import json
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fishlens.errors import InputError
from fishlens.files import writing
from fishlens.training.data.hub import HubPlace, hub_rows
from fishlens.training.tasks.layout import Layout, overridden

if TYPE_CHECKING:
    import numpy as np
    import torch

HUB = "hub"
"""The root that stands for the Hugging Face hub."""
NOT_SCORED = -100
"""The label of tokens that count neither in the loss nor in the Fisher information."""
LABELS = ("labels", "start_positions", "end_positions")
"""What `collate` calls labels."""
LABELS_PER_TOKEN = ("tagging", "masked_lm", "causal_lm")
Feature = dict[str, Any]
"""What the model is fed for one row, as numpy arrays and ints, and `example`: the index of the example it came from.
`collate` knows which keys go to the model."""


@dataclass(frozen=True)
class Split:
    """The examples of one split in one language.

    name: ``train``, ``validation`` or ``test``. source: the file (or hub data set) they came from.
    notes: what a reader of the results has to know, one sentence each (gold answers that are not in their context, …).
    """

    name: str
    language: str
    source: str
    examples: tuple[Any, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.examples)

    def __getitem__(self, index: int) -> Any:
        return self.examples[index]


def subset(split: Split, n: int, seed: int) -> Split:
    """n examples of the split drawn without replacement, in file order; a smaller n gives a subset of a larger one.

    The same on every machine and Python version. Raises InputError if there are fewer than n.
    """
    if not 1 <= n <= len(split):
        raise InputError(f"{n} examples were asked for, but {split.source} has {len(split)}")
    generator = random.Random(seed)
    keys = [
        generator.random() for _ in range(len(split))
    ]  # random() is stable across Python versions, sample() is not
    chosen = sorted(sorted(range(len(split)), key=keys.__getitem__)[:n])
    return replace(split, examples=tuple(split.examples[i] for i in chosen))


@dataclass(frozen=True)
class Prediction:
    """What was predicted for one example; strings, or lists of strings (tags, gold answers)."""

    id: str
    gold: Any
    predicted: Any


class Task(ABC):
    """A task type. Subclasses say how; what is common stands here."""

    name: ClassVar[str]
    """The name in recipes; also the default name of adapter and head."""
    output: ClassVar[str]
    """The shape of the model's output, as `fishlens.estimate_fisher(output=…)` is told."""
    headline: ClassVar[str]
    """The metric that a run is judged by, one of the keys of `score`."""
    max_length: ClassVar[int] = 128
    """Tokens per row unless `encode` is told otherwise."""
    ids_are_unique: ClassVar[bool] = False
    """Is it wrong if two examples of a file have one id? Elsewhere it is noted."""
    hub: Mapping[str, Sequence[HubPlace]] = {}
    """By split, where the task's data lies on the Hugging Face hub."""

    def __init__(self, layout: Layout, files: Mapping[str, Any] | None = None) -> None:
        self.layout = overridden(layout, files or {})
        self.overridden = frozenset(files or {})

    # files -> examples

    def file(self, root: Path | str, split: str, language: str) -> Path | HubPlace:
        """The file that holds this split in this language, or with the root `hub` its place on the hub.

        Raises InputError if there is none; nothing is downloaded.
        """
        if not self._on_hub(root, split):
            return self.layout.file(self._folder(root), split, language)
        for place in self.hub.get(split, ()):
            if place.has(language):
                return place.in_language(language)
        there = ", ".join(self.languages(root, split)) or "none"
        raise InputError(
            f"no {split} data for language {language!r} of task {self.name!r} on the hub (languages there: {there})"
        )

    def languages(self, root: Path | str, split: str = "test") -> list[str]:
        """The languages for which a file of this split lies below the root (`hub`: that the hub has)."""
        if self._on_hub(root, split):
            return sorted(
                {language for place in self.hub.get(split, ()) for language in place.languages or ()}
            )
        return self.layout.languages(self._folder(root), split)

    def _on_hub(self, root: Path | str, split: str) -> bool:
        self.layout.of(split)  # refuses an unknown split
        return str(root) == HUB and split not in self.overridden

    def _folder(self, root: Path | str) -> Path:
        return Path() if str(root) == HUB else Path(root)

    def load(self, root: Path | str, split: str, language: str) -> Split:
        """The examples of one split in one language, all of them, in file order.

        Raises:
            InputError: no such file, no example in it, a malformed line (the message names file and line), or ids that
                are not unique where they have to be.
        """
        place = self.file(root, split, language)
        if isinstance(place, HubPlace):
            rows = hub_rows(place)
            examples = tuple(self.from_hub(f"{place}, row {n}", str(n), row, language) for n, row in rows)
        else:
            examples = tuple(self.read(place, language))
        if not examples:
            raise InputError(f"{place} is empty: no example in it")
        notes = (*self._repeated_ids(str(place), examples), *self.notes(examples))
        return Split(split, language, str(place), examples, notes)

    def _repeated_ids(self, source: str, examples: Sequence[Any]) -> tuple[str, ...]:
        counts = Counter(getattr(example, "id", None) for example in examples)
        twice = [name for name, count in counts.items() if count > 1 and name is not None]
        if not twice:
            return ()
        more = f"{len(twice)} ids stand for several examples, {twice[0]!r} for {counts[twice[0]]} of them"
        if self.ids_are_unique:
            raise InputError(f"{source}: {more}; expected an id of its own for each")
        return (f"{source}: {more}",)

    @abstractmethod
    def read(self, path: Path, language: str) -> Iterator[Any]:
        """Yield the examples of a file in the task's official format; an example's id tells where it came from."""

    def from_hub(self, where: str, name: str, row: Mapping[str, Any], language: str) -> Any:
        """The example in a row of a hub data set; `where` begins error messages, `name` stands in for an id."""
        raise NotImplementedError(f"{type(self).__name__} names hub data sets, but does not read their rows")

    def notes(self, examples: Sequence[Any]) -> tuple[str, ...]:
        """What the reader of a result has to know about these examples."""
        return ()

    # examples -> texts, for whoever wants to know what the model will be given

    def row_texts(self, example: Any) -> list[tuple[str, ...]]:
        """The texts, or pairs of texts, that the rows of an example are made of; empty: not told."""
        return []

    def is_cut(self, tokens: Sequence[int], room: int) -> bool:
        """Does the model see less than all of a row whose texts have so many tokens, with room for so many?"""
        return sum(tokens) > room

    # examples -> batches

    @abstractmethod
    def encode(
        self, split: Split, tokenizer: Any, *, max_length: int | None = None, train: bool
    ) -> list[Feature]:
        """What the model is fed, in order; several rows per example where an example does not fit one (QA windows).

        With `train` the rows carry what training needs, without it what `predict` needs.
        """

    @abstractmethod
    def collate(self, features: Sequence[Feature], tokenizer: Any) -> "dict[str, torch.Tensor]":
        """Padded tensors, labels included (`labels`, or for QA `start_positions` and `end_positions`)."""

    def tokens(self, feature: Feature) -> int:
        """How many tokens a row of a batch takes."""
        return len(feature["input_ids"])

    @abstractmethod
    def add_head(self, model: Any, name: str | None = None) -> None:
        """Add this task's head to an `adapters.AutoAdapterModel`, named after the task unless told otherwise."""

    def unlabelled(self, batch: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
        """The batch without what its labels say. Of labels per token it stays known which tokens have one: that is
        told by the words alone."""
        kept = {key: value for key, value in batch.items() if key not in LABELS}
        if self.output in LABELS_PER_TOKEN:
            labels = batch["labels"]
            kept["labels"] = labels.new_zeros(labels.shape).masked_fill(labels == NOT_SCORED, NOT_SCORED)
        return kept

    def from_text(self, lines: Sequence[str], source: str, language: str) -> Split:
        """Inputs made of raw text, lines of the file `source`; their labels mean nothing.

        Raises InputError if an example of this task is more than text.
        """
        raise InputError(
            f"the task {self.name!r} cannot be made of raw text: leave tracking.text out, so that the inputs of its "
            "validation or test files are used without their labels"
        )

    # outputs -> scores

    @abstractmethod
    def rows(self, outputs: Any, batch: "Mapping[str, torch.Tensor]") -> "list[np.ndarray]":
        """The model's outputs for one batch as float32 arrays on the CPU, one per feature, without padding."""

    @abstractmethod
    def predict(
        self, split: Split, features: Sequence[Feature], rows: "Sequence[np.ndarray]"
    ) -> list[Prediction]:
        """One prediction per example of the split, in order; `rows` are those of all `features`, in order."""

    @abstractmethod
    def score(self, split: Split, predictions: Sequence[Prediction]) -> dict[str, float]:
        """{metric: points, 0-100}, the headline metric among them."""


def write_predictions(path: Path | str, predictions: Sequence[Prediction]) -> None:
    """Write the table of predictions as JSON lines with the fields id, gold and predicted."""
    with writing(Path(path)) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
        for p in predictions:
            row = {"id": p.id, "gold": p.gold, "predicted": p.predicted}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
