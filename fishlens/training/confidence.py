"""Average thresholded confidence (Garg et al. 2022): the accuracy on unlabelled text that certainty predicts.

The score of an example is the negative entropy of its prediction (their ATC-NE). On labelled source examples the
threshold is put where as many scores lie below it as predictions are wrong; the prediction for another language is the
share of its scores at or above the threshold. It is defined where an example has one label.
"""

import math
from collections.abc import Sequence

import numpy as np

ONE_LABEL = ("classification", "multiple_choice")
"""The outputs that it is defined for."""


def entropies(logits: Sequence[np.ndarray]) -> np.ndarray:
    """Of one softmax per row, in nats: `[N]`, float64."""
    z = np.stack(logits).astype(np.float64)
    z -= z.max(axis=-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return -(np.exp(log_p) * np.where(np.isfinite(log_p), log_p, 0.0)).sum(axis=-1)


def threshold(entropy: np.ndarray, correct: np.ndarray) -> float:
    """The certainty (negative entropy) below which as many examples lie as are wrong; infinity if all are."""
    certainty = np.sort(-np.asarray(entropy))
    wrong = int((~np.asarray(correct, dtype=bool)).sum())
    return float(certainty[wrong]) if wrong < len(certainty) else math.inf


def predicted_accuracy(entropy: np.ndarray, above: float) -> float:
    """In points: the share of examples that are at least as certain as the threshold."""
    return 100.0 * float((-np.asarray(entropy) >= above).mean())
