"""Part-of-speech tagging with the universal tags of Universal Dependencies."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fishlens.training.data.conllu import read_conllu
from fishlens.training.data.lines import at
from fishlens.training.metrics.accuracy import accuracy
from fishlens.training.tasks.base import Prediction, Split
from fishlens.training.tasks.layout import Layout, Place
from fishlens.training.tasks.tagging import TaggedSentence, Tagging

LAYOUT = Layout(
    {
        "train": [Place("ud/{language}_*-ud-train.conllu")],
        "validation": [Place("ud/{language}_*-ud-dev.conllu")],
        "test": [Place("ud/{language}_*-ud-test.conllu")],
    }
)


class POS(Tagging):
    """A sentence → the universal part of speech of every word; accuracy over words. Files: CoNLL-U."""

    name = "pos"
    headline = "accuracy"
    without_token = ""
    labels = (
        "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM",
        "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X",
    )  # fmt: skip

    def __init__(self, files: Mapping[str, Any] | None = None) -> None:
        super().__init__(LAYOUT, files)

    def read(self, path: Path, language: str) -> Iterator[TaggedSentence]:
        for sentence in read_conllu(path):
            yield TaggedSentence(
                sentence.id,
                tuple(word.form for word in sentence.words),
                tuple(self.label_index(word.upos, at(path, word.line)) for word in sentence.words),
                tuple(word.space_after for word in sentence.words),
            )

    def score(self, split: Split, predictions: Sequence[Prediction]) -> dict[str, float]:
        gold = [tag for p in predictions for tag in p.gold]
        return {"accuracy": accuracy(gold, [tag for p in predictions for tag in p.predicted])}
