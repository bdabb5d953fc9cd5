"""SQuAD v1.1 scores, by hand: each expectation is counted from the rule, not from the code."""

import pytest

from fishlens.training.metrics.answers import answer_scores, exact_match, token_f1
from fishlens.training.metrics.squad import squad_normalise


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("The  Eiffel Tower!", "eiffel tower"),
        ("An apple, a day", "apple day"),
        ("another theatre", "another theatre"),  # articles are whole words
        ("the-end", "theend"),  # punctuation goes first, so this is no article any more
        ("A.", ""),
        ("U.S.", "us"),
        ("«quoted»—dash", "«quoted»—dash"),  # ASCII punctuation only
        ("١٢٪", "١٢٪"),
        ("a\u00a0b\u3000c", "b c"),  # every Unicode space separates
        ("der Hund", "der hund"),  # no articles but the English ones, whatever the language
        ("$1,000.50", "100050"),
    ],
)
def test_an_answer_is_normalised(text, normalised):
    assert squad_normalise(text) == normalised


@pytest.mark.parametrize(
    ("predicted", "gold", "f1", "same"),
    [
        ("the cat sat", "cat sat", 1.0, True),
        ("black cat", "the cat", 2 / 3, False),  # precision 1/2, recall 1
        ("cat cat", "cat", 2 / 3, False),  # one of two: a multiset, not a set
        ("cat cat cat", "cat cat dog", 2 / 3, False),
        ("dog", "cat", 0.0, False),
        ("a", "the", 0.0, True),  # both empty: no token is shared, but they are the same
        ("", "cat", 0.0, False),
        ("New York City", "york new", 0.8, False),  # order does not count: precision 2/3, recall 1
        ("北京大学", "北京", 0.0, False),  # one token each
    ],
)
def test_f1_and_exact_match_of_one_pair(predicted, gold, f1, same):
    assert token_f1(predicted, gold, squad_normalise) == pytest.approx(f1, abs=1e-12)
    assert exact_match(predicted, gold, squad_normalise) is same


def test_the_best_gold_answer_counts_for_each_metric_and_a_missing_prediction_is_zero():
    predicted = ["black cat", "Paris", None, "in 1999"]
    gold = [["the cat", "black"], ["London", "Paris."], ["x"], ["1999"]]
    # F1: 2/3, 1, 0, 2/3; exact: 0, 1, 0, 0
    assert answer_scores(predicted, gold, squad_normalise) == {
        "f1": pytest.approx(100 * (2 / 3 + 1 + 0 + 2 / 3) / 4),
        "exact_match": 25.0,
    }


def test_one_prediction_per_question_or_none_at_all():
    with pytest.raises(ValueError):
        answer_scores(["a"], [["a"], ["b"]], squad_normalise)
    with pytest.raises(ValueError, match="no questions"):
        answer_scores([], [], squad_normalise)
