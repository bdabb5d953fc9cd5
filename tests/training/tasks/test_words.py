"""Which token stands for which word, counted by hand."""

import numpy as np
import pytest

from fishlens.training.tasks.words import spaced_text, word_tokens


def test_a_text_has_spaces_only_where_they_are_said_to_be():
    text = spaced_text(["I", "do", "n't", "know", "."], [True, False, True, False, False])
    assert text.text == "I don't know."
    assert [text.text[a:b] for a, b in zip(text.start, text.end, strict=True)] == [
        "I",
        "do",
        "n't",
        "know",
        ".",
    ]


def test_a_space_after_the_last_word_is_left_out():
    assert spaced_text(["a", "b"], [True, True]).text == "a b"


AB_CD = spaced_text(["ab", "cd"], [True, False])  # "ab cd"
ABCD = spaced_text(["ab", "cd"], [False, False])  # "abcd"


@pytest.mark.parametrize(
    ("text", "tokens", "offsets", "expected"),
    [
        pytest.param(
            AB_CD, "<s> ab cd </s>", [(0, 0), (0, 2), (3, 5), (0, 0)], {0: 1, 1: 2}, id="one token a word"
        ),
        pytest.param(
            AB_CD, "a b ▁c d", [(0, 1), (1, 2), (2, 4), (4, 5)], {0: 0, 1: 2}, id="first of several"
        ),
        pytest.param(
            AB_CD, "ab ▁ cd", [(0, 2), (2, 3), (3, 5)], {0: 0, 1: 2}, id="a token for the space alone"
        ),
        pytest.param(
            AB_CD, "▁ ab ▁ cd", [(0, 1), (0, 2), (3, 4), (3, 5)], {0: 1, 1: 3}, id="XLM-R's lone markers"
        ),
        pytest.param(ABCD, "abcd", [(0, 4)], {0: 0, 1: 0}, id="two words in one token"),
        pytest.param(ABCD, "abc d", [(0, 3), (3, 4)], {0: 0, 1: 0}, id="a token across the border"),
        pytest.param(
            ABCD, "a b c d", [(0, 1), (0, 1), (2, 3), (2, 3)], {0: 0, 1: 2}, id="pieces of one character"
        ),
        pytest.param(
            ABCD, "ab d", [(0, 2), (3, 4)], {0: 0, 1: 1}, id="first character dropped by the normaliser"
        ),
        pytest.param(ABCD, "ab", [(0, 2)], {0: 0}, id="the second word is not in this row"),
        pytest.param(ABCD, "cd", [(2, 4)], {1: 0}, id="the first word is not in this row"),
        pytest.param(ABCD, "<s> </s>", [(0, 0), (0, 0)], {}, id="nothing but special tokens"),
    ],
)
def test_tokens_of_words(text, tokens, offsets, expected):
    assert word_tokens(text, tokens.split(), np.asarray(offsets), 0) == expected


def test_a_word_that_an_earlier_row_had_is_not_given_again():
    """A long word goes on in the next row: its second half there is not another first token."""
    text = spaced_text(["abcdef", "g"], [True, False])
    assert word_tokens(text, ["abc"], np.asarray([(0, 3)]), 0) == {0: 0}
    assert word_tokens(text, ["def", "g"], np.asarray([(3, 6), (7, 8)]), 1) == {1: 1}


def test_a_dropped_word_between_two_others_has_no_token():
    text = spaced_text(["a", "\u200b", "b"], [False, False, False])
    assert word_tokens(text, ["a", "b"], np.asarray([(0, 1), (2, 3)]), 0) == {0: 0, 2: 1}
