"""Topic classification on SIB-200."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fishlens.training.data.fields import field
from fishlens.training.data.hub import HubPlace
from fishlens.training.data.lines import at
from fishlens.training.data.tsv import read_quoted_tsv
from fishlens.training.tasks.base import Split
from fishlens.training.tasks.classification import Classification, TextExample
from fishlens.training.tasks.flores import FLORES_CODES
from fishlens.training.tasks.layout import Layout, Place

LAYOUT = Layout(
    {
        "train": [Place("sib200/{language}/train.tsv", codes=FLORES_CODES)],
        "validation": [Place("sib200/{language}/dev.tsv", codes=FLORES_CODES)],
        "test": [Place("sib200/{language}/test.tsv", codes=FLORES_CODES)],
    }
)
LANGUAGES = tuple(FLORES_CODES)
ON_HUB = {
    split: [HubPlace("Davlan/sib200", "{language}", split, LANGUAGES, FLORES_CODES)]
    for split in ("train", "validation", "test")
}


class Topic(Classification):
    """A sentence → one of seven topics.

    Files: tab-separated with CSV quoting and a header that names index_id, category and text.
    """

    name = "topic"
    hub = ON_HUB
    labels = ("entertainment", "geography", "health", "politics", "science/technology", "sports", "travel")

    def __init__(self, files: Mapping[str, Any] | None = None) -> None:
        super().__init__(LAYOUT, files)

    def read(self, path: Path, language: str) -> Iterator[TextExample]:
        for line, row in read_quoted_tsv(path, ("index_id", "category", "text")):
            yield self._example(at(path, line), row["index_id"], row)

    def from_hub(self, where: str, name: str, row: Mapping[str, Any], language: str) -> TextExample:
        return self._example(where, str(row.get("index_id", name)), row)

    def from_text(self, lines: Sequence[str], source: str, language: str) -> Split:
        """One text per line."""
        examples = tuple(TextExample(str(n), line, None, 0) for n, line in enumerate(lines, start=1))
        return Split("text", language, source, examples)

    def _example(self, where: str, name: str, row: Mapping[str, Any]) -> TextExample:
        return TextExample(
            name, field(where, row, "text", str), None, self.label_index(row.get("category"), where)
        )
