"""Topic classification on SIB-200."""

from collections.abc import Mapping
from typing import Any

from fishlens.training.data.hub import HubPlace
from fishlens.training.tasks.flores import FLORES_CODES
from fishlens.training.tasks.layout import SPLITS, Layout, Place
from fishlens.training.tasks.text import Text

LAYOUT = Layout(
    {
        "train": [Place("sib200/{language}/train.tsv", codes=FLORES_CODES)],
        "validation": [Place("sib200/{language}/dev.tsv", codes=FLORES_CODES)],
        "test": [Place("sib200/{language}/test.tsv", codes=FLORES_CODES)],
    }
)
LABELS = ("entertainment", "geography", "health", "politics", "science/technology", "sports", "travel")

ON_HUB = {
    split: [HubPlace("Davlan/sib200", "{language}", split, tuple(FLORES_CODES), FLORES_CODES)]
    for split in SPLITS
}


class Topic(Text):
    """A sentence → one of seven topics.

    Files: tab-separated with CSV quoting and a header that names index_id, category and text.
    """

    name = "topic"
    hub = ON_HUB

    def __init__(self, files: Mapping[str, Any] | None = None) -> None:
        super().__init__(files, LABELS, layout=LAYOUT, columns={"label": "category", "id": "index_id"})
