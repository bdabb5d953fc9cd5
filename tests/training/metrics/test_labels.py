"""Metrics of the tasks told in recipes, beside scikit-learn's."""

import random

import pytest

from fishlens.training.metrics.labels import macro_f1, matthews, set_macro_f1, set_match, set_micro_f1
from fishlens.training.metrics.numbers import pearson, spearman

metrics = pytest.importorskip("sklearn.metrics")


@pytest.mark.parametrize("seed", range(5))
def test_labels_are_scored_as_scikit_learn_does(seed):
    generator = random.Random(seed)
    gold, predicted = ([generator.choice("abcd"[: 3 + seed % 2]) for _ in range(40)] for _ in range(2))
    assert macro_f1(gold, predicted) == pytest.approx(
        100 * metrics.f1_score(gold, predicted, average="macro")
    )
    assert matthews(gold, predicted) == pytest.approx(100 * metrics.matthews_corrcoef(gold, predicted))


@pytest.mark.parametrize("seed", range(5))
def test_sets_of_labels_are_scored_as_scikit_learn_does(seed):
    generator = random.Random(seed)
    rows = [[[int(generator.random() < 0.4) for _ in "abc"] for _ in range(30)] for _ in range(2)]
    gold, predicted = (
        [{n for n, there in zip("abc", r, strict=True) if there} for r in side] for side in rows
    )
    for average, mine in (("macro", set_macro_f1), ("micro", set_micro_f1)):
        assert mine(gold, predicted) == pytest.approx(100 * metrics.f1_score(*rows, average=average))
    assert set_match(gold, predicted) == pytest.approx(100 * metrics.accuracy_score(*rows))


def test_what_is_constant_tells_nothing_and_is_never_not_a_number():
    assert matthews(["a", "b"], ["a", "a"]) == pearson([1, 2], [3, 3]) == spearman([1, 2], [3, 3]) == 0.0
    assert pearson([1, 2, 4], [2, 4, 8]) == pytest.approx(100) and spearman(
        [1, 2, 3], [9, 4, 1]
    ) == pytest.approx(-100)
    assert set_micro_f1([set()], [set()]) == set_macro_f1([set()], [set()]) == 0.0
