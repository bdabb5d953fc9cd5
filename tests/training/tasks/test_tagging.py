"""Tagging: words → tokens → words, for parts of speech and named entities."""

import numpy as np
import pytest
from tokenizers import Tokenizer, normalizers

from fishlens.errors import InputError
from fishlens.training.tasks import Split, make_task
from fishlens.training.tasks.tagging import NOT_SCORED, TaggedSentence

CONLLU = """# sent_id = s1
# text = I don't zum.
1\tI\tI\tPRON\t_\t_\t0\troot\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\t_\t_\t1\taux\t_\t_
3\tn't\tnot\tPART\t_\t_\t1\tadvmod\t_\t_
3.1\tgo\tgo\tVERB\t_\t_\t_\t_\t_\t_
4-5\tzum\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
4\tzu\tzu\tADP\t_\t_\t1\tcase\t_\t_
5\tdem\tder\tDET\t_\t_\t1\tdet\t_\t_
6\t.\t.\tPUNCT\t_\t_\t1\tpunct\t_\t_

"""
NER = """-DOCSTART- -X- O O

Ada NNP B-NP B-PER
Lovelace NNP I-NP I-PER
in IN O O
Paris NNP B-NP B-LOC

Hi UH O O
"""


def sentence(words, tags, spaces=None):
    return TaggedSentence("1", tuple(words), tuple(tags), tuple(spaces or [True] * len(words)))


def a_split(*sentences):
    return Split("test", "en", "here", sentences)


@pytest.fixture
def ud(tmp_path):
    (tmp_path / "ud").mkdir()
    (tmp_path / "ud" / "en_ewt-ud-train.conllu").write_text(CONLLU)
    (tmp_path / "ud" / "de_pud-ud-test.conllu").write_text(CONLLU)
    return tmp_path


@pytest.fixture
def ner(tmp_path):
    for language in ("en", "zh"):
        (tmp_path / "ner" / language).mkdir(parents=True)
        (tmp_path / "ner" / language / "test.txt").write_text(NER)
    return tmp_path


def test_words_are_read_without_ranges_and_empty_nodes_and_spaced_as_written(ud):
    task = make_task("pos")
    split = task.load(ud, "train", "en")
    (only,) = split
    assert only.id == "s1"
    assert only.words == ("I", "do", "n't", "zu", "dem", ".")
    assert [task.labels[tag] for tag in only.tags] == ["PRON", "AUX", "PART", "ADP", "DET", "PUNCT"]
    # do + n't spell don't; zu + dem do not spell zum, so they are apart
    assert only.space_after == (True, False, True, True, False, True)
    assert task.languages(ud, "test") == ["de"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "\t_\t_\n2-3",
            "\t_\n2-3",
            r"train\.conllu, line 3: 9 tab-separated columns instead of CoNLL-U's 10",
        ),
        ("\n6\t", "\n7\t", r"line 11: word id 7; expected 6"),
        ("\n6\t", "\nsix\t", r"line 11: id 'six' is neither a number, a range \(3-4\) nor an empty node"),
        ("\tPUNCT\t", "\tPUNKT\t", r"line 11: unknown tag 'PUNKT'; pos has ADJ, ADP, "),
        ("4-5\tzum", "4-9\tzum", r"line 8: range 4-9 in a sentence of 6 words"),
        ("6\t.\t.\tPUNCT\t_\t_\t1\tpunct\t_\t_\n\n", "6\t.\t.\tPU", r"line 11: 4 tab-separated columns"),
        (CONLLU, "# sent_id = s1\n\n", r"line 1: a sentence without words"),
        (CONLLU, "", r"train\.conllu is empty"),
    ],
)
def test_a_malformed_treebank_is_named_with_its_line(ud, old, new, message):
    assert old in CONLLU
    (ud / "ud" / "en_ewt-ud-train.conllu").write_text(CONLLU.replace(old, new))
    with pytest.raises(InputError, match=message):
        make_task("pos").load(ud, "train", "en")


def test_entities_are_read_from_the_first_and_the_last_column(ner):
    task = make_task("ner")
    first, second = task.load(ner, "test", "en")
    assert (first.id, first.words) == ("3", ("Ada", "Lovelace", "in", "Paris"))
    assert [task.labels[tag] for tag in first.tags] == ["B-PER", "I-PER", "O", "B-LOC"]
    assert second.words == ("Hi",)
    assert all(first.space_after)
    assert not any(task.load(ner, "test", "zh")[0].space_after)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Ada B-PER\nLovelace\n",
            r"test\.txt, line 2: one column \('Lovelace'\); expected a word and its tag",
        ),
        (
            "Ada B-DATE\n",
            r"line 1: unknown tag 'B-DATE'; ner has O, B-PER, I-PER, B-ORG, I-ORG, B-LOC, I-LOC, B-MISC",
        ),
        ("-DOCSTART- O\n\n", r"test\.txt is empty"),
    ],
)
def test_a_malformed_entity_file_is_named_with_its_line(ner, text, message):
    (ner / "ner" / "en" / "test.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        make_task("ner").load(ner, "test", "en")


def test_a_tab_separates_where_there_is_one(ner):
    (ner / "ner" / "en" / "test.txt").write_text("New York\tB-LOC\n")
    task = make_task("ner", types=["LOC"])
    assert task.load(ner, "test", "en")[0].words == ("New York",)
    assert task.labels == ("O", "B-LOC", "I-LOC")


def test_the_first_token_of_a_word_is_labelled_and_nothing_else(tokenizer):
    task = make_task("pos")
    (feature,) = task.encode(
        a_split(sentence(["ab", "c", "."], [3, 5, 12], [True, False, False])), tokenizer, train=True
    )
    # <s> a b ␣ c . </s>
    assert feature["labels"].tolist() == [NOT_SCORED, 3, NOT_SCORED, NOT_SCORED, 5, 12, NOT_SCORED]
    assert feature["positions"].tolist() == [1, 4, 5]


def test_a_long_sentence_goes_on_in_further_rows_with_every_word_once(tokenizer):
    task = make_task("pos")
    words = ["word" * (i % 4 + 1) for i in range(30)]
    split = a_split(sentence(["x"], [1]), sentence(words, [i % 17 for i in range(30)]))
    features = task.encode(split, tokenizer, max_length=24, train=False)
    assert len(features) > 10 and max(len(f["input_ids"]) for f in features) <= 24
    placed = [(f["example"], int(w)) for f in features for w in f["words"]]
    assert sorted(placed) == [(0, 0), *((1, w) for w in range(30))]
    for feature in features:
        for word, position in zip(feature["words"], feature["positions"], strict=True):
            assert feature["labels"][position] == split[feature["example"]].tags[word]
            token = tokenizer.convert_ids_to_tokens(int(feature["input_ids"][position]))
            assert token == split[feature["example"]].words[word][0]


def test_labels_are_padded_with_what_is_not_scored(tokenizer):
    task = make_task("pos")
    split = a_split(sentence(["a"], [1]), sentence(["abc", "d"], [2, 4]))
    batch = task.collate(task.encode(split, tokenizer, train=True), tokenizer)
    assert batch["labels"].shape == batch["input_ids"].shape
    assert (batch["labels"] != NOT_SCORED).sum().item() == 3
    assert (batch["labels"][batch["attention_mask"] == 0] == NOT_SCORED).all()


def test_the_loss_is_over_the_labelled_tokens_alone(tokenizer, model):
    import torch

    task = make_task("pos")
    task.add_head(model)
    split = a_split(sentence(["a"], [1]), sentence(["abc", "d"], [2, 4]))
    features = task.encode(split, tokenizer, train=True)
    batch = task.collate(features, tokenizer)
    outputs = model(**batch)
    rows = task.rows(outputs, batch)
    assert [len(row) for row in rows] == [len(f["input_ids"]) for f in features]
    log_p = [torch.log_softmax(torch.from_numpy(row).double(), -1) for row in rows]
    expected = -(log_p[0][1, 1] + log_p[1][1, 2] + log_p[1][5, 4]) / 3
    assert outputs.loss.item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_predictions_are_those_at_the_words_tokens_on_either_side_of_padding(tokenizer, side):
    """Logits that say each token's own character come back as the words' first characters."""
    from types import SimpleNamespace

    import torch

    tokenizer.padding_side = side
    try:
        task = make_task("ner", types=["A", "B", "C"])
        split = a_split(sentence(["ab", "ba"], [1, 2]), sentence(["a", "b", "abab", "ccc"], [3, 4, 5, 6]))
        features = task.encode(split, tokenizer, train=False)
        batch = task.collate(features, tokenizer)
        label_of = {tokenizer.convert_tokens_to_ids(c): task.labels.index(f"B-{c.upper()}") for c in "abc"}
        logits = torch.zeros(*batch["input_ids"].shape, len(task.labels))
        for (i, t), token in np.ndenumerate(batch["input_ids"].numpy()):
            logits[i, t, label_of.get(int(token), 0)] = 1.0
        predictions = task.predict(split, features, task.rows(SimpleNamespace(logits=logits), batch))
        assert predictions[0].predicted == ["B-A", "B-B"]
        assert predictions[1].predicted == ["B-A", "B-B", "B-A", "B-C"]
        assert predictions[0].gold == ["B-A", "I-A"]
    finally:
        tokenizer.padding_side = "right"


def test_a_word_without_any_token_counts_as_wrong(tokenizer):
    """A tokenizer that drops zero-width spaces makes nothing of a word that is one; it stays in the count."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.normalizer = normalizers.Replace("\u200b", "")
    dropping = type(tokenizer)(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", model_max_length=64
    )
    task = make_task("pos")
    split = a_split(sentence(["a", "\u200b", "b"], [0, 1, 2], [False] * 3))
    features = task.encode(split, dropping, train=False)
    assert features[0]["words"].tolist() == [0, 2]
    predictions = task.predict(split, features, [np.zeros((4, 17), dtype=np.float32)])
    assert predictions[0].predicted == ["ADJ", "", "ADJ"]
    assert task.score(split, predictions)["accuracy"] == pytest.approx(100 / 3)


def test_a_slow_tokenizer_is_refused(tokenizer):
    from types import SimpleNamespace

    with pytest.raises(
        InputError, match="not a fast tokenizer, so it gives no character offsets, which tagging"
    ):
        make_task("pos").encode(a_split(sentence(["a"], [0])), SimpleNamespace(is_fast=False), train=True)


def test_scores_of_both_kinds(ud, ner):
    from fishlens.training.tasks import Prediction

    predictions = [
        Prediction("1", ["B-PER", "I-PER", "O"], ["B-PER", "O", "O"]),
        Prediction("2", ["B-LOC"], ["B-LOC"]),
    ]
    split = make_task("ner").load(ner, "test", "en")
    assert make_task("ner").score(split, predictions) == {"f1": 50.0, "precision": 50.0, "recall": 50.0}
    tags = [Prediction("1", ["NOUN", "VERB", "X"], ["NOUN", "NOUN", "X"]), Prediction("2", ["ADJ"], ["ADJ"])]
    assert make_task("pos").score(split, tags) == {"accuracy": 75.0}
