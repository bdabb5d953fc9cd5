"""Average thresholded confidence: exact on the source it is calibrated on, and right where it must be."""

import math

import numpy as np
import pytest
from scipy import stats

from fishlens.training.confidence import entropies, predicted_accuracy, threshold


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_entropies_are_those_of_the_softmax(random):
    logits = random.normal(size=(6, 3)).astype(np.float32)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert entropies(list(logits)) == pytest.approx([stats.entropy(row) for row in p], rel=1e-5)
    assert entropies([np.array([0.0, -math.inf])]) == pytest.approx([0.0])


@pytest.mark.parametrize("wrong", [0, 1, 7, 20])
def test_on_the_examples_of_the_threshold_it_predicts_their_accuracy(random, wrong):
    entropy = random.random(20)
    correct = np.arange(20) >= wrong  # which ones are wrong does not matter, only how many
    random.shuffle(correct)
    assert predicted_accuracy(entropy, threshold(entropy, correct)) == 100 * (20 - wrong) / 20


def test_less_certain_predictions_are_predicted_to_be_less_accurate(random):
    entropy = random.random(200)
    above = threshold(entropy, random.random(200) < 0.8)
    values = [predicted_accuracy(entropy + more, above) for more in (0.0, 0.1, 0.2, 1.0)]
    assert values == sorted(values, reverse=True) and values[-1] == 0.0
