"""Tasks for data of one's own, told in the recipe: a label, several labels or a number for a text or a pair."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from fishlens.errors import InputError
from fishlens.training.data.fields import field
from fishlens.training.metrics.accuracy import accuracy
from fishlens.training.metrics.labels import macro_f1, matthews, set_macro_f1, set_match, set_micro_f1
from fishlens.training.metrics.numbers import pearson, spearman
from fishlens.training.tasks.base import Prediction, Split
from fishlens.training.tasks.classification import Classification, TextExample, TextTask
from fishlens.training.tasks.columns import ColumnTask, as_text, label_names

if TYPE_CHECKING:
    import numpy as np
    import torch


class ColumnText(ColumnTask, TextTask):
    """What the tasks of this file share: a column `text`, and where there are pairs a column `second`."""

    @property
    def blank(self) -> Any:
        """A label that means nothing."""
        return 0

    def from_text(self, lines: Sequence[str], source: str, language: str) -> Split:
        """One text per line; of a pair the next line is the second text."""
        texts = list(pairwise(lines)) if "second" in self.columns else [(line, None) for line in lines]
        numbered = enumerate(texts, start=1)
        examples = tuple(TextExample(str(n), first, second, self.blank) for n, (first, second) in numbered)
        return Split("text", language, source, examples)


class Text(ColumnText, Classification):
    """A text → one of the labels.

    Args:
        labels: their names in the order of the head's outputs, or {what stands in the data: name}.
        options: columns, header, quoting, delimiter, hub, metrics, headline; see columns.py.
    """

    name = "text"
    fields: ClassVar[tuple[str, ...]] = ("text", "label")
    offered: ClassVar = {"accuracy": accuracy, "macro_f1": macro_f1, "matthews": matthews}
    default_metrics = ("accuracy",)

    def __init__(self, files: Mapping[str, Any] | None = None, labels: Any = None, **options: Any) -> None:
        super().__init__(files, **options)
        self.labels, self.named = label_names(self.name, labels)

    def example(
        self, where: str, name: str, values: Mapping[str, Any], columns: Mapping[str, str], language: str
    ) -> TextExample:
        first, second = _texts(where, values, columns)
        return TextExample(name, first, second, self._label(where, columns["label"], values["label"]))

    def _label(self, where: str, column: str, value: Any) -> int:
        text = None if value is None else as_text(where, column, value)
        if text not in self.named:
            raise InputError(f"{where}: unknown label {text!r}; {self.name} has {', '.join(self.named)}")
        return self.labels.index(self.named[text])


class Pair(Text):
    """A pair of texts → one of the labels."""

    name = "pair"
    fields = ("text", "second", "label")


class Multilabel(ColumnText):
    """A text, or a pair of texts → those of the labels that it has, independently of each other.

    Args:
        labels: as of `text`.
        separator: what stands between the labels where a column is text and not a list.
    """

    name = "multilabel"
    output = "multilabel"
    fields = ("text", "labels")
    optional = ("id", "second")
    offered: ClassVar = {"micro_f1": set_micro_f1, "macro_f1": set_macro_f1, "exact_match": set_match}
    default_metrics = ("micro_f1", "macro_f1", "exact_match")

    def __init__(
        self,
        files: Mapping[str, Any] | None = None,
        labels: Any = None,
        separator: str = ",",
        **options: Any,
    ) -> None:
        super().__init__(files, **options)
        self.labels, self.named = label_names(self.name, labels)
        if not isinstance(separator, str) or not separator:
            raise InputError(f"separator is {separator!r}; expected what stands between two labels")
        self.separator = separator

    @property
    def blank(self) -> tuple[int, ...]:
        return (0,) * len(self.labels)

    def example(
        self, where: str, name: str, values: Mapping[str, Any], columns: Mapping[str, str], language: str
    ) -> TextExample:
        first, second = _texts(where, values, columns)
        given, column = values["labels"], columns["labels"]
        if isinstance(given, str):
            given = [part.strip() for part in given.split(self.separator)] if given.strip() else []
        if not isinstance(given, Sequence):
            raise InputError(f"{where}: {column!r} is {given!r:.60}; expected a list of labels")
        chosen = set()
        for value in given:
            text = None if value is None else as_text(where, column, value)
            if text not in self.named:
                raise InputError(f"{where}: unknown label {text!r}; {self.name} has {', '.join(self.named)}")
            chosen.add(self.named[text])
        return TextExample(name, first, second, tuple(int(label in chosen) for label in self.labels))

    def label_tensor(self, labels: Sequence[Any]) -> "torch.Tensor":
        import torch

        return torch.tensor(labels, dtype=torch.float32)

    def add_head(self, model: Any, name: str | None = None) -> None:
        model.add_classification_head(
            name or self.name,
            num_labels=len(self.labels),
            multilabel=True,
            id2label=dict(enumerate(self.labels)),
        )

    def prediction(self, example: TextExample, row: "np.ndarray") -> Prediction:
        """A label is predicted where its probability is above a half."""
        gold = [label for label, there in zip(self.labels, example.label, strict=True) if there]
        return Prediction(
            example.id, gold, [label for label, logit in zip(self.labels, row, strict=True) if logit > 0]
        )


class Regression(ColumnText):
    """A text, or a pair of texts → a number; squared error is the loss."""

    name = "regression"
    output = "regression"
    fields = ("text", "value")
    optional = ("id", "second")
    offered: ClassVar = {"pearson": pearson, "spearman": spearman}
    default_metrics = ("pearson", "spearman")

    def __init__(self, files: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(files, **options)

    def example(
        self, where: str, name: str, values: Mapping[str, Any], columns: Mapping[str, str], language: str
    ) -> TextExample:
        first, second = _texts(where, values, columns)
        return TextExample(name, first, second, _number(where, columns["value"], values["value"]))

    def label_tensor(self, labels: Sequence[Any]) -> "torch.Tensor":
        import torch

        return torch.tensor(labels, dtype=torch.float32)

    def add_head(self, model: Any, name: str | None = None) -> None:
        model.add_classification_head(name or self.name, num_labels=1)

    def prediction(self, example: TextExample, row: "np.ndarray") -> Prediction:
        return Prediction(example.id, example.label, float(row.reshape(-1)[0]))


def _texts(where: str, values: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[str, str | None]:
    named = {columns[name]: values[name] for name in ("text", "second") if name in columns}
    first = field(where, named, columns["text"], str)
    return first, field(where, named, columns["second"], str) if "second" in columns else None


def _number(where: str, column: str, value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or abs(number) > 1e30:
        raise InputError(f"{where}: {column!r} is {value!r:.60}; expected a number")
    return number
