"""Entity scores: a table by hand, and seqeval on many random sequences."""

import random
import warnings

import pytest

from fishlens.training.metrics.entities import entities, entity_scores


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", []),
        ("B-PER I-PER O", [("PER", 0, 1)]),
        ("B-PER B-PER", [("PER", 0, 0), ("PER", 1, 1)]),
        ("I-PER I-PER", [("PER", 0, 1)]),  # IOB1, or a model that forgot the B-
        ("B-PER I-LOC", [("PER", 0, 0), ("LOC", 1, 1)]),
        ("O I-LOC O I-LOC", [("LOC", 1, 1), ("LOC", 3, 3)]),
        ("B-LOC", [("LOC", 0, 0)]),
    ],
)
def test_entities_of_a_sentence(tags, expected):
    assert list(entities(tags.split())) == expected


def test_scores_by_hand():
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O"]]
    predicted = [["B-PER", "I-PER", "O", "B-ORG"], ["B-ORG", "B-LOC"]]
    # gold 3 entities, predicted 4, right 2
    assert entity_scores(gold, predicted) == {
        "precision": 50.0,
        "recall": pytest.approx(200 / 3),
        "f1": pytest.approx(100 * 2 * 2 / (3 + 4)),
    }


def test_no_entity_anywhere_scores_zero():
    assert entity_scores([["O"]], [["O"]]) == {"f1": 0.0, "precision": 0.0, "recall": 0.0}


def test_sentences_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="2 words has 1 predicted"):
        entity_scores([["O", "O"]], [["O"]])


def test_equal_to_seqeval_on_random_sequences():
    seqeval = pytest.importorskip("seqeval.metrics")
    generator = random.Random(0)
    tags = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "I-ORG"]

    def sentences():
        return [generator.choices(tags, k=n) for n in lengths]

    for _ in range(200):
        lengths = [generator.randint(1, 12) for _ in range(5)]
        gold, predicted = sentences(), sentences()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # seqeval warns where there is nothing to divide by
            expected = {
                "f1": 100 * seqeval.f1_score(gold, predicted),
                "precision": 100 * seqeval.precision_score(gold, predicted),
                "recall": 100 * seqeval.recall_score(gold, predicted),
            }
        assert entity_scores(gold, predicted) == pytest.approx(expected)
