"""Rows of raw text: nothing is lost, nothing is too long, and a step always has the same batch."""

from collections import Counter

import pytest

from fishlens.errors import InputError
from fishlens.pretraining.raw_text import (
    Batches,
    encode_lines,
    encode_pairs,
    language_weights,
    read_lines,
    read_parallel,
)
from fishlens.pretraining.tokenizer_training import train_tokenizer

LINES = ["red cat sat", "blue dog", "red dog ran off now", "cow"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(LINES, "word", 50)


@pytest.mark.parametrize("join", [True, False])
def test_every_word_is_in_some_row_in_order_and_no_row_is_too_long(tokenizer, join):
    rows = encode_lines(tokenizer, LINES, 6, join=join)
    assert all(len(row) <= 6 and row[0] == 0 and row[-1] == 2 for row in rows)
    words = tokenizer.convert_ids_to_tokens([i for row in rows for i in row if i not in (0, 2)])
    assert words == " ".join(LINES).split()


def test_joined_lines_share_a_row_as_a_pair_does_as_long_as_they_fit(tokenizer):
    assert [len(row) for row in encode_lines(tokenizer, LINES, 9, join=True)] == [9, 7, 3]
    assert encode_lines(tokenizer, LINES, 9, join=True)[0] == tokenizer(LINES[0], LINES[1])["input_ids"]
    assert [len(row) for row in encode_lines(tokenizer, LINES, 9, join=False)] == [5, 4, 7, 3]


def test_lines_of_two_documents_never_share_a_row(tokenizer):
    lines = ["cow", "blue dog", "", "cow", "cow"]
    rows = [tokenizer.convert_ids_to_tokens(row) for row in encode_lines(tokenizer, lines, 40, join=True)]
    assert [row.count("cow") for row in rows] == [1, 2]
    assert len(encode_lines(tokenizer, lines, 40, join=False)) == 4


def test_a_pair_stands_as_two_sentences_and_one_that_does_not_fit_is_left_out(tokenizer):
    rows = encode_pairs(tokenizer, ["red cat", "red dog ran off now", ""], ["cow", "cow", "dog"], 8)
    assert [tokenizer.convert_ids_to_tokens(row) for row in rows] == [
        ["<s>", "red", "cat", "</s>", "</s>", "cow", "</s>"]
    ]


def test_a_step_has_the_same_batch_whatever_was_asked_before():
    rows = {"aa": [[0, n, 2] for n in range(50)], "bb": [[0, n, n, 2] for n in range(100, 150)]}
    one, other = (Batches(rows, {"aa": 1.0, "bb": 1.0}, 8, seed=3) for _ in range(2))
    wanted = [one.at(step) for step in range(20)]
    assert [other.at(step) for step in reversed(range(20))] == wanted[::-1]
    assert wanted != [Batches(rows, {"aa": 1.0, "bb": 1.0}, 8, seed=4).at(step) for step in range(20)]
    assert all(len(batch) == 8 for batch in wanted)


def test_corpora_are_drawn_by_their_weights():
    rows = {"aa": [[1]], "bb": [[2]]}
    batches = Batches(rows, {"aa": 3.0, "bb": 1.0}, 16, seed=0)
    drawn = Counter(row[0] for step in range(200) for row in batches.at(step))
    assert drawn[1] / drawn.total() == pytest.approx(0.75, abs=0.03)


def test_smoothing_moves_between_the_texts_shares_and_equal_ones():
    rows = {"aa": [[1]] * 900, "bb": [[1]] * 100}
    assert language_weights(rows, 1.0) == {"aa": 900.0, "bb": 100.0}
    assert language_weights(rows, 0.0) == {"aa": 1.0, "bb": 1.0}


def test_lines_end_at_line_feeds_only(tmp_path):
    (tmp_path / "x.txt").write_bytes("\none\u2028still one\r\ntwo\n\n \nthree\n\n".encode())
    assert read_lines(tmp_path / "x.txt") == ["one\u2028still one", "two", "", "three"]


def test_bad_text_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_lines(tmp_path / "missing.txt")
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(InputError, match="has no text in it"):
        read_lines(tmp_path / "empty.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(InputError, match="is not UTF-8: byte 3"):
        read_lines(tmp_path / "latin.txt")
    (tmp_path / "a.txt").write_text("1\n2\n")
    (tmp_path / "b.txt").write_text("1\n")
    with pytest.raises(InputError, match="same number of lines"):
        read_parallel({"aa": tmp_path / "a.txt", "bb": tmp_path / "b.txt"})
