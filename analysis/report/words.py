"""What baselines and outcomes are called on the page; features bring their label with them (`Feature.label`)."""

from typing import Any

from ..dynamics import CURVE_FEATURES, RUN_FEATURES, Feature

BASELINE_WORDS = {
    "source": "score in the source",
    "final_loss": "final loss",
    "gradient_norm": "gradient norm",
}


def label(name: str) -> str:
    """What a feature or a baseline is called."""
    if name in BASELINE_WORDS:
        return BASELINE_WORDS[name]
    return _feature(name).label


def unit(feature: str) -> str:
    return _feature(feature).unit


def _feature(name: str) -> Feature[Any]:
    return CURVE_FEATURES.get(name) or RUN_FEATURES[name]
