"""MLQA's scores in each of its languages, by hand."""

import string
import unicodedata

import pytest

from fishlens.errors import InputError
from fishlens.training.metrics.answers import answer_scores, exact_match, token_f1
from fishlens.training.metrics.mlqa import mlqa_normalise, punctuation


@pytest.mark.parametrize(
    ("language", "text", "normalised"),
    [
        ("en", "The “Eiffel” Tower — a landmark", "eiffel tower landmark"),
        ("en", "der Hund", "der hund"),
        ("es", "El niño y las niñas", "niño y niñas"),
        ("es", "¿Una casa?", "casa"),
        ("es", "the house", "the house"),
        ("de", "Der Hund des Nachbarn", "hund nachbarn"),
        ("de", "einer „großen“ Idee", "großen idee"),
        ("de", "Derby", "derby"),  # articles are whole words
        ("vi", "Những con mèo của tôi", "con mèo tôi"),
        ("vi", "cái bàn là đẹp", "bàn đẹp"),
        ("ar", "الكتاب", "كتاب"),
        ("ar", "في المدينة، والقاهرة", "في مدينة و قاهرة"),  # inside a word too, which leaves a space
        ("hi", "यह एक किताब है।", "यह एक किताब है"),  # no articles; the danda is punctuation
        ("zh", "北京大学", "北 京 大 学"),
        ("zh", "2008年，IBM公司 in", "2008 年 ibm 公 司 in"),
        ("zh", "the 书", "the 书"),
        ("zh", "㐀鿿", "㐀鿿"),  # outside U+4E00-9FA5: not cut
    ],
)
def test_an_answer_is_normalised_by_the_language_of_the_context(language, text, normalised):
    assert mlqa_normalise(language)(text) == normalised


@pytest.mark.parametrize(
    ("language", "predicted", "gold", "f1", "same"),
    [
        ("en", "the big cat", "cat", 2 / 3, False),
        ("es", "la casa blanca", "casa", 2 / 3, False),
        ("de", "dem Hund", "der Hund", 1.0, True),
        ("vi", "của tôi", "tôi", 1.0, True),
        ("ar", "الكتاب", "كتاب", 1.0, True),
        ("hi", "एक किताब", "किताब", 2 / 3, False),
        ("zh", "北京大学", "北京", 2 / 3, False),  # two of four characters
        ("zh", "。", "，", 0.0, True),  # both empty
    ],
)
def test_f1_and_exact_match_of_one_pair(language, predicted, gold, f1, same):
    normalise = mlqa_normalise(language)
    assert token_f1(predicted, gold, normalise) == pytest.approx(f1, abs=1e-12)
    assert exact_match(predicted, gold, normalise) is same


def test_a_table_of_predictions_in_two_languages():
    german = answer_scores(
        ["der Hund", "eine Katze", None], [["Hund"], ["Katze und Maus"], ["x"]], mlqa_normalise("de")
    )
    # F1: 1, 2·(1/1·1/3)/(1+1/3) = 1/2, 0
    assert german == {"f1": pytest.approx(50.0), "exact_match": pytest.approx(100 / 3)}
    chinese = answer_scores(["北京市", "1990年"], [["北京"], ["1990 年"]], mlqa_normalise("zh"))
    # F1: 2·(2/3·1)/(5/3) = 0.8, 1
    assert chinese == {"f1": pytest.approx(90.0), "exact_match": 50.0}


def test_punctuation_is_ascii_and_every_unicode_category_p():
    assert set(map(ord, string.punctuation)) <= set(punctuation())  # $ + < = > ^ ` | ~ are category S, not P
    assert all(unicodedata.category(chr(code))[0] == "P" for code in punctuation() if code > 127)
    assert {ord("،"), ord("。"), ord("—"), ord("¿"), ord("।")} <= set(punctuation())
    assert ord("€") not in punctuation()


def test_a_language_without_rules_is_refused():
    with pytest.raises(InputError, match=r"no rules for language 'th': it has en, es, de, vi, ar, hi, zh"):
        mlqa_normalise("th")
