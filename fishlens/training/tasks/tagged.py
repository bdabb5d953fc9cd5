"""A tag for every word, on data of one's own, told in the recipe."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from fishlens.errors import InputError
from fishlens.training.data.conll import read_conll
from fishlens.training.data.fields import check_text
from fishlens.training.data.lines import at
from fishlens.training.data.table import SUFFIXES
from fishlens.training.metrics.accuracy import accuracy
from fishlens.training.metrics.entities import entity_scores
from fishlens.training.tasks.columns import ColumnTask, as_text, label_names
from fishlens.training.tasks.tagging import TaggedSentence, Tagging

UNSPACED = ("ja", "km", "lo", "my", "th", "zh")
"""Languages written without spaces between words; lists of words do not say where spaces are."""
Tags = Sequence[Sequence[str]]


def word_accuracy(gold: Tags, predicted: Tags) -> float:
    """Points (0-100): the share of words with the right tag."""
    return accuracy([tag for tags in gold for tag in tags], [tag for tags in predicted for tag in tags])


def _entity(name: str) -> Any:
    return lambda gold, predicted: entity_scores(gold, predicted)[name]


class ColumnTagging(ColumnTask, Tagging):
    """A sentence → a tag for each of its words. Scored by entities if all tags are O, B-… or I-…, else by words.

    Files: a list of words and a list of tags in two columns (in TSV and CSV separated by spaces), or, with another
    ending than those of tables, CoNLL-style files: a word and its tag a line, a blank line after each sentence.

    Args:
        labels: the tags in the order of the head's outputs, or {what stands in the data: tag}.
        options: columns, header, quoting, delimiter, hub, metrics, headline; see columns.py.
    """

    name = "tagging"
    fields = ("words", "tags")
    offered: ClassVar = {
        "accuracy": word_accuracy,
        **{name: _entity(name) for name in ("f1", "precision", "recall")},
    }

    def __init__(self, files: Mapping[str, Any] | None = None, labels: Any = None, **options: Any) -> None:
        self.labels, self.named = label_names(self.name, labels)
        entities = all(tag == "O" or tag[:2] in ("B-", "I-") for tag in self.labels)
        self.default_metrics = ("f1", "precision", "recall") if entities else ("accuracy",)  # type: ignore[misc]
        self.without_token = "O" if "O" in self.labels else ""
        super().__init__(files, **options)

    def read(self, path: Path, language: str) -> Iterator[TaggedSentence]:
        if path.suffix.lower() in set(SUFFIXES) - {".txt"}:
            yield from super().read(path, language)
            return
        for sentence in read_conll(path):
            places, words, tags = zip(
                *((at(path, line), word, tag) for line, word, tag in sentence), strict=True
            )
            yield self._sentence(str(sentence[0][0]), words, tags, places, language)

    def example(
        self, where: str, name: str, values: Mapping[str, Any], columns: Mapping[str, str], language: str
    ) -> TaggedSentence:
        words, tags = (_parts(where, columns[key], values[key]) for key in ("words", "tags"))
        if len(words) != len(tags):
            raise InputError(f"{where}: {len(words)} words in {columns['words']!r}, but {len(tags)} tags")
        if not words:
            raise InputError(f"{where}: {columns['words']!r} is empty; expected the words of a sentence")
        for word in words:
            if not isinstance(word, str) or not word:
                raise InputError(f"{where}: {columns['words']!r} has {word!r}; expected words")
            check_text(where, columns["words"], word)
        return self._sentence(name, words, tags, [where] * len(words), language)

    def _sentence(
        self, name: str, words: Sequence[str], tags: Sequence[Any], places: Sequence[str], language: str
    ) -> TaggedSentence:
        labels = tuple(self._tag(where, tag) for where, tag in zip(places, tags, strict=True))
        return TaggedSentence(name, tuple(words), labels, (language not in UNSPACED,) * len(words))

    def _tag(self, where: str, value: Any) -> int:
        text = None if value is None else as_text(where, self.columns["tags"], value)
        if text not in self.named:
            raise InputError(f"{where}: unknown tag {text!r}; {self.name} has {', '.join(self.named)}")
        return self.labels.index(self.named[text])


def _parts(where: str, column: str, value: Any) -> Sequence[Any]:
    if isinstance(value, str):
        return value.split()
    if not isinstance(value, Sequence):
        raise InputError(f"{where}: {column!r} is {value!r:.60}; expected a list")
    return value
