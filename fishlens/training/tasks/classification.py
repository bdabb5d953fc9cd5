"""Tasks that give one label to a text or a pair of texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fishlens.errors import InputError
from fishlens.training.metrics.accuracy import accuracy
from fishlens.training.tasks.base import Feature, Prediction, Split, Task
from fishlens.training.tasks.encoding import encode_texts, pad

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class TextExample:
    """A text, or a pair of texts (`second`), and its label as an index into the task's labels."""

    id: str
    first: str
    second: str | None
    label: int


class Classification(Task):
    """One label per example; accuracy."""

    output = "classification"
    headline = "accuracy"
    labels: ClassVar[tuple[str, ...]]
    """In the order of the head's outputs."""

    def label_index(self, label: str | None, where: str) -> int:
        """The label's index, or InputError that begins with `where`."""
        if label not in self.labels:
            raise InputError(f"{where}: unknown label {label!r}; {self.name} has {', '.join(self.labels)}")
        return self.labels.index(label)

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
        import torch

        return {
            **pad(features, tokenizer),
            "labels": torch.tensor([feature["label"] for feature in features]),
        }

    def add_head(self, model: Any, name: str | None = None) -> None:
        model.add_classification_head(
            name or self.name, num_labels=len(self.labels), id2label=dict(enumerate(self.labels))
        )

    def rows(self, outputs: Any, batch: "Mapping[str, torch.Tensor]") -> "list[np.ndarray]":
        """Logits `[labels]` per example."""
        return list(outputs.logits.detach().float().cpu().numpy())

    def predict(
        self, split: Split, features: Sequence[Feature], rows: "Sequence[np.ndarray]"
    ) -> list[Prediction]:
        return [
            Prediction(example.id, self.labels[example.label], self.labels[int(row.argmax())])
            for example, row in zip(split, rows, strict=True)
        ]

    def score(self, split: Split, predictions: Sequence[Prediction]) -> dict[str, float]:
        return {"accuracy": accuracy([p.gold for p in predictions], [p.predicted for p in predictions])}
