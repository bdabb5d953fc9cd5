"""Accuracy, over examples and over the words of sentences."""

from collections.abc import Sequence
from typing import Any


def accuracy(gold: Sequence[Any], predicted: Sequence[Any]) -> float:
    """Points (0-100): the share of places where both agree. Raises ValueError on other lengths or nothing at all."""
    if not gold:
        raise ValueError("no accuracy of nothing: no gold labels")
    return 100.0 * sum(g == p for g, p in zip(gold, predicted, strict=True)) / len(gold)
