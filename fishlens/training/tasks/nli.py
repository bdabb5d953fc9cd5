"""Natural language inference: trained on MultiNLI, tested on XNLI."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from fishlens.training.data.fields import field
from fishlens.training.data.hub import HubPlace
from fishlens.training.data.lines import at
from fishlens.training.data.tsv import read_tsv
from fishlens.training.tasks.base import Split
from fishlens.training.tasks.classification import Classification, TextExample
from fishlens.training.tasks.layout import Layout, Place

LAYOUT = Layout(
    {
        "train": [Place("mnli/train-{language}.tsv")],
        "validation": [Place("xnli/dev-{language}.tsv")],
        "test": [Place("xnli/test-{language}.tsv")],
    }
)
LANGUAGES = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
ON_HUB = {
    split: [HubPlace("facebook/xnli", "{language}", split, LANGUAGES)]
    for split in ("train", "validation", "test")
}


class NLI(Classification):
    """premise, hypothesis → entailment, neutral or contradiction.

    Files: tab-separated premise, hypothesis and label's name, without header and without quoting.
    """

    name = "nli"
    hub = ON_HUB
    labels = ("entailment", "neutral", "contradiction")

    def __init__(self, files: Mapping[str, Any] | None = None) -> None:
        super().__init__(LAYOUT, files)

    def read(self, path: Path, language: str) -> Iterator[TextExample]:
        for line, row in read_tsv(path, ("premise", "hypothesis", "label")):
            yield self._example(at(path, line), str(line), row)

    def from_hub(self, where: str, name: str, row: Mapping[str, Any], language: str) -> TextExample:
        return self._example(where, name, row)

    def from_text(self, lines: Sequence[str], source: str, language: str) -> Split:
        """A line as the premise, and the next one as the hypothesis."""
        examples = tuple(
            TextExample(str(n), first, second, 0)
            for n, (first, second) in enumerate(pairwise(lines), start=1)
        )
        return Split("text", language, source, examples)

    def _example(self, where: str, name: str, row: Mapping[str, Any]) -> TextExample:
        label = self.label_index(row.get("label"), where)
        return TextExample(
            name, field(where, row, "premise", str), field(where, row, "hypothesis", str), label
        )
