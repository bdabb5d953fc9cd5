"""Named entity recognition on CoNLL-style files."""

from collections.abc import Mapping, Sequence
from typing import Any

from fishlens.errors import InputError
from fishlens.training.data.hub import HubPlace
from fishlens.training.tasks.layout import SPLITS, Layout, Place
from fishlens.training.tasks.tagged import ColumnTagging

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
ON_HUB = {split: [HubPlace("unimelb-nlp/wikiann", "{language}", split, WIKIANN)] for split in SPLITS}
"""WikiAnn, with XTREME's balanced splits."""


class NER(ColumnTagging):
    """A sentence → the named entities in it; entity F1.

    Files: a word and its B-/I-/O tag a line, a blank line after each sentence.

    Args:
        types: the entity types, in the order of the head's outputs.
    """

    name = "ner"
    hub = ON_HUB

    def __init__(
        self,
        files: Mapping[str, Any] | None = None,
        types: Sequence[str] = ("PER", "ORG", "LOC", "MISC"),
    ) -> None:
        if not types or isinstance(types, str):
            raise InputError(f"types is {types!r}; expected a list of entity types")
        tags = ["O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI")]
        super().__init__(files, tags, layout=LAYOUT, columns={"words": "tokens", "tags": "ner_tags"})
