"""F1 over labels and the correlation of labels: what accuracy hides where labels are not balanced."""

import math
from collections import Counter
from collections.abc import Collection, Sequence


def macro_f1(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Points (0-100): the mean of the labels' F1, over labels that occur among gold or predicted ones."""
    return _mean_f1([{label} for label in gold], [{label} for label in predicted])


def matthews(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Points (-100 to 100): the correlation of labels (Gorodkin 2004); 0 where either is constant."""
    n = len(gold)
    right = sum(g == p for g, p in zip(gold, predicted, strict=True))
    of_gold, of_predicted = Counter(gold), Counter(predicted)
    both = sum(count * of_predicted[label] for label, count in of_gold.items())
    gold_spread = n * n - sum(count**2 for count in of_gold.values())
    predicted_spread = n * n - sum(count**2 for count in of_predicted.values())
    spread = math.sqrt(gold_spread * predicted_spread)
    return 100.0 * (right * n - both) / spread if spread else 0.0


Sets = Sequence[Collection[str]]
"""for every example the labels that it has"""


def set_macro_f1(gold: Sets, predicted: Sets) -> float:
    """Points (0-100): the mean of the labels' F1, over labels that occur among gold or predicted ones."""
    return _mean_f1(gold, predicted)


def set_micro_f1(gold: Sets, predicted: Sets) -> float:
    """Points (0-100): F1 over all decisions together; 0 where no label is right."""
    right = sum(len(set(g) & set(p)) for g, p in zip(gold, predicted, strict=True))
    both = sum(map(len, gold)) + sum(map(len, predicted))
    return 200.0 * right / both if both else 0.0


def set_match(gold: Sets, predicted: Sets) -> float:
    """Points (0-100): the share of examples whose labels are exactly the predicted ones."""
    return 100.0 * sum(set(g) == set(p) for g, p in zip(gold, predicted, strict=True)) / len(gold)


def _mean_f1(gold: Sets, predicted: Sets) -> float:
    there = Counter(label for labels in gold for label in set(labels))
    found = Counter(label for labels in predicted for label in set(labels))
    right = Counter(label for g, p in zip(gold, predicted, strict=True) for label in set(g) & set(p))
    labels = there | found
    if not labels:
        return 0.0
    return sum(200.0 * right[label] / (there[label] + found[label]) for label in labels) / len(labels)
