"""Tokenizers made here behave as XLM-R's: special tokens, pairs, offsets."""

import pytest

from fishlens.errors import InputError
from fishlens.pretraining.tokenizer_training import train_tokenizer

LINES = ["the cat sat on the mat.", "the dog sat.", "a cat ran off."] * 20


@pytest.mark.parametrize(("kind", "size"), [("word", 100), ("unigram", 40)])
def test_pairs_special_tokens_and_offsets_are_xlm_rs(kind, size):
    tokenizer = train_tokenizer(LINES, kind, size)
    assert [tokenizer.convert_tokens_to_ids(t) for t in ("<s>", "<pad>", "</s>", "<unk>")] == [0, 1, 2, 3]
    pair = tokenizer("the cat", "a dog", return_offsets_mapping=True)
    tokens = tokenizer.convert_ids_to_tokens(pair["input_ids"])
    assert (tokens[0], tokens[-1]) == ("<s>", "</s>")
    middle = tokens.index("</s>")
    assert tokens[middle : middle + 2] == ["</s>", "</s>"]
    places = zip(tokens[1:middle], pair["offset_mapping"][1:middle], strict=True)
    spans = [
        "the cat"[a:b] for token, (a, b) in places if token != "▁"
    ]  # a lone marker is at the next letter
    assert "".join(spans).replace(" ", "") == "thecat"


def test_words_are_ranked_by_frequency_and_wanted_words_are_always_there():
    tokenizer = train_tokenizer(LINES, "word", 8, also=["zebra"])
    assert tokenizer.convert_ids_to_tokens([5, 6, 7]) == ["zebra", ".", "the"]
    assert tokenizer("cat")["input_ids"] == [0, tokenizer.unk_token_id, 2]


def test_the_same_text_makes_the_same_word_tokenizer(tmp_path):
    for name in ("one", "two"):
        train_tokenizer(LINES, "word", 50).save_pretrained(tmp_path / name)
    files = [path.name for path in (tmp_path / "one").iterdir()]
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


def test_bad_requests_are_refused():
    with pytest.raises(InputError, match="unknown kind of tokenizer"):
        train_tokenizer(LINES, "bpe", 100)
    with pytest.raises(InputError, match="no room"):
        train_tokenizer(LINES, "word", 5)
