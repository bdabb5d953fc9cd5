"""Named entity recognition on CoNLL-style files."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fishlens.errors import InputError
from fishlens.training.data.conll import read_conll
from fishlens.training.data.fields import field
from fishlens.training.data.hub import HubPlace
from fishlens.training.data.lines import at
from fishlens.training.metrics.entities import entity_scores
from fishlens.training.tasks.base import Prediction, Split
from fishlens.training.tasks.layout import Layout, Place
from fishlens.training.tasks.tagging import TaggedSentence, Tagging

WIKIANN = (
    "af", "ar", "bg", "bn", "de", "el", "en", "es", "et", "eu", "fa", "fi", "fr", "he", "hi", "hu", "id", "it", "ja",
    "jv", "ka", "kk", "ko", "ml", "mr", "ms", "my", "nl", "pt", "ru", "sw", "ta", "te", "th", "tl", "tr", "ur", "vi",
    "yo", "zh",
)  # fmt: skip
LAYOUT = Layout(
    {
        "train": [Place("ner/{language}/train.txt")],
        "validation": [Place("ner/{language}/dev.txt")],
        "test": [Place("ner/{language}/test.txt")],
    }
)
ON_HUB = {
    split: [HubPlace("unimelb-nlp/wikiann", "{language}", split, WIKIANN)]
    for split in ("train", "validation", "test")
}
"""WikiAnn, with XTREME's balanced splits."""
UNSPACED = ("ja", "km", "lo", "my", "th", "zh")
"""Languages written without spaces between words; the files do not say where spaces are."""


class NER(Tagging):
    """A sentence → the named entities in it; entity F1.

    Files: a word and its B-/I-/O tag a line, a blank line after each sentence.

    Args:
        types: the entity types, in the order of the head's outputs.
    """

    name = "ner"
    hub = ON_HUB
    headline = "f1"
    without_token = "O"

    def __init__(
        self,
        files: Mapping[str, Any] | None = None,
        types: Sequence[str] = ("PER", "ORG", "LOC", "MISC"),
    ) -> None:
        super().__init__(LAYOUT, files)
        if not types or isinstance(types, str):
            raise InputError(f"types is {types!r}: expected a list of entity types")
        self.labels = ("O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI"))

    def read(self, path: Path, language: str) -> Iterator[TaggedSentence]:
        for sentence in read_conll(path):
            yield TaggedSentence(
                str(sentence[0][0]),
                tuple(word for _, word, _ in sentence),
                tuple(self.label_index(tag, at(path, line)) for line, _, tag in sentence),
                (language not in UNSPACED,) * len(sentence),
            )

    def from_hub(self, where: str, name: str, row: Mapping[str, Any], language: str) -> TaggedSentence:
        words, tags = field(where, row, "tokens", list), field(where, row, "ner_tags", list)
        if len(words) != len(tags):
            raise InputError(f"{where}: {len(words)} tokens, but {len(tags)} tags")
        labels = tuple(self.label_index(tag, where) for tag in tags)
        return TaggedSentence(name, tuple(words), labels, (language not in UNSPACED,) * len(words))

    def score(self, split: Split, predictions: Sequence[Prediction]) -> dict[str, float]:
        return entity_scores([p.gold for p in predictions], [p.predicted for p in predictions])
