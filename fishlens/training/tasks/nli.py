"""Natural language inference: trained on MultiNLI, tested on XNLI."""

from collections.abc import Mapping
from typing import Any

from fishlens.training.data.hub import HubPlace
from fishlens.training.tasks.layout import SPLITS, Layout, Place
from fishlens.training.tasks.text import Pair

LAYOUT = Layout(
    {
        "train": [Place("mnli/train-{language}.tsv")],
        "validation": [Place("xnli/dev-{language}.tsv")],
        "test": [Place("xnli/test-{language}.tsv")],
    }
)
LABELS = ("entailment", "neutral", "contradiction")
LANGUAGES = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")

ON_HUB = {split: [HubPlace("facebook/xnli", "{language}", split, LANGUAGES)] for split in SPLITS}


class NLI(Pair):
    """premise, hypothesis → entailment, neutral or contradiction.

    Files: tab-separated premise, hypothesis and label's name, without header and without quoting.
    """

    name = "nli"
    hub = ON_HUB

    def __init__(self, files: Mapping[str, Any] | None = None) -> None:
        super().__init__(
            files,
            LABELS,
            layout=LAYOUT,
            columns={"text": "premise", "second": "hypothesis"},
            header=("premise", "hypothesis", "label"),
            quoting=False,
        )
