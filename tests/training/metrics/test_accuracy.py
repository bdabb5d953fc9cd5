"""Accuracy in points."""

import pytest

from fishlens.training.metrics.accuracy import accuracy


def test_accuracy_is_the_share_that_agrees():
    assert accuracy([1, 2, 3, 4], [1, 2, 0, 0]) == 50.0
    assert accuracy(["a"], ["a"]) == 100.0
    assert accuracy([0, 1, 1], [0, 0, 0]) == pytest.approx(100 / 3)


def test_every_gold_label_needs_a_prediction():
    with pytest.raises(ValueError):
        accuracy([1, 2], [1])
    with pytest.raises(ValueError, match="no gold labels"):
        accuracy([], [])
