"""Tasks that say one thing about a text or a pair of texts: a label, several labels, or a number."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fishlens.errors import InputError
from fishlens.training.metrics.accuracy import accuracy
from fishlens.training.tasks.base import Feature, Prediction, Split, Task
from fishlens.training.tasks.encoding import encode_texts, pad

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class TextExample:
    """A text, or a pair of texts (`second`), and what is said about it.

    label: an index into the task's labels; with several labels 0 or 1 for each of them; or a number.
    """

    id: str
    first: str
    second: str | None
    label: Any


class TextTask(Task):
    """One row per example, and one vector of outputs per row."""

    def row_texts(self, example: TextExample) -> list[tuple[str, ...]]:
        return [(example.first,) if example.second is None else (example.first, example.second)]

    def notes(self, examples: Sequence[TextExample]) -> tuple[str, ...]:
        empty = [
            e.id for e in examples if not e.first.strip() or (e.second is not None and not e.second.strip())
        ]
        if not empty:
            return ()
        return (f"{len(empty)} of {len(examples)} examples have an empty text, the first is {empty[0]!r}",)

    def encode(
        self, split: Split, tokenizer: Any, *, max_length: int | None = None, train: bool
    ) -> list[Feature]:
        first = [example.first for example in split]
        second = [example.second for example in split] if split[0].second is not None else None
        encoded = encode_texts(tokenizer, first, second, max_length or self.max_length)
        return [
            {"example": i, "label": example.label, **row}
            for i, (example, row) in enumerate(zip(split, encoded, strict=True))
        ]

    def collate(self, features: Sequence[Feature], tokenizer: Any) -> "dict[str, torch.Tensor]":
        return {**pad(features, tokenizer), "labels": self.label_tensor([f["label"] for f in features])}

    def label_tensor(self, labels: Sequence[Any]) -> "torch.Tensor":
        """The labels of a batch as the head's loss takes them."""
        import torch

        return torch.tensor(labels)

    def rows(self, outputs: Any, batch: "Mapping[str, torch.Tensor]") -> "list[np.ndarray]":
        """Outputs `[labels]` per example."""
        return list(outputs.logits.detach().float().cpu().numpy())

    def predict(
        self, split: Split, features: Sequence[Feature], rows: "Sequence[np.ndarray]"
    ) -> list[Prediction]:
        return [self.prediction(example, row) for example, row in zip(split, rows, strict=True)]

    @abstractmethod
    def prediction(self, example: TextExample, row: "np.ndarray") -> Prediction:
        """What these outputs say about the example, beside what is right."""


class Classification(TextTask):
    """One label per example; accuracy."""

    output = "classification"
    headline = "accuracy"
    labels: tuple[str, ...]
    """In the order of the head's outputs."""

    def label_index(self, label: str | None, where: str) -> int:
        """The label's index, or InputError that begins with `where`."""
        if label not in self.labels:
            raise InputError(f"{where}: unknown label {label!r}; {self.name} has {', '.join(self.labels)}")
        return self.labels.index(label)

    def add_head(self, model: Any, name: str | None = None) -> None:
        model.add_classification_head(
            name or self.name, num_labels=len(self.labels), id2label=dict(enumerate(self.labels))
        )

    def prediction(self, example: TextExample, row: "np.ndarray") -> Prediction:
        return Prediction(example.id, self.labels[example.label], self.labels[int(row.argmax())])

    def score(self, split: Split, predictions: Sequence[Prediction]) -> dict[str, float]:
        return {"accuracy": accuracy([p.gold for p in predictions], [p.predicted for p in predictions])}
