"""Natural language inference: files → examples → batches → accuracy."""

import pytest

from fishlens.errors import InputError
from fishlens.training.tasks import make_task
from fishlens.training.tasks.classification import TextExample

GOOD = 'He said "hi.\tHe spoke.\tentailment\nIt rains.\tIt is dry.\tcontradiction\n'


@pytest.fixture
def root(tmp_path):
    (tmp_path / "mnli").mkdir()
    (tmp_path / "xnli").mkdir()
    (tmp_path / "mnli" / "train-en.tsv").write_text(GOOD)
    for language in ("de", "sw"):
        (tmp_path / "xnli" / f"test-{language}.tsv").write_text(GOOD)
    return tmp_path


def test_a_file_becomes_examples_with_literal_quotation_marks(root):
    split = make_task("nli").load(root, "train", "en")
    assert split.examples == (
        TextExample("1", 'He said "hi.', "He spoke.", 0),
        TextExample("2", "It rains.", "It is dry.", 2),
    )
    assert (split.name, split.language) == ("train", "en")


def test_languages_are_those_with_a_file(root):
    assert make_task("nli").languages(root, "test") == ["de", "sw"]
    assert make_task("nli").languages(root, "train") == ["en"]
    assert make_task("nli").languages(root, "validation") == []


def test_a_missing_language_names_the_file_and_what_is_there(root):
    with pytest.raises(InputError, match=r"'fr'.*xnli/test-fr\.tsv .*that are there: de, sw"):
        make_task("nli").load(root, "test", "fr")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            "a\tb\n",
            r"train-en\.tsv, line 3: 2 tab-separated columns instead of 3 \(premise, hypothesis, label\)",
        ),
        (
            "a\tb\tcontradictory\n",
            r"line 3: unknown label 'contradictory'; nli has entailment, neutral, contradiction",
        ),
        ("a\tb\tneutr", r"line 3: unknown label 'neutr'"),
        ("\na\tb\tneutral\n", r"line 3: blank line"),
    ],
)
def test_a_malformed_line_is_named(root, bad, message):
    (root / "mnli" / "train-en.tsv").write_text(GOOD + bad)
    with pytest.raises(InputError, match=message):
        make_task("nli").load(root, "train", "en")


def test_an_empty_file_is_refused(root):
    (root / "mnli" / "train-en.tsv").write_text("")
    with pytest.raises(InputError, match=r"train-en\.tsv is empty"):
        make_task("nli").load(root, "train", "en")


def test_a_pair_becomes_one_row_that_the_tokenizer_joins(root, tokenizer):
    task = make_task("nli")
    split = task.load(root, "train", "en")
    features = task.encode(split, tokenizer, train=True)
    text = tokenizer.decode(features[1]["input_ids"]).replace(" ", "")
    assert text == "<s>Itrains.</s></s>Itisdry.</s>"
    assert [feature["label"] for feature in features] == [0, 2]


def test_a_batch_is_padded_with_the_pad_token_and_masked(root, tokenizer):
    task = make_task("nli")
    features = task.encode(task.load(root, "train", "en"), tokenizer, train=True)
    batch = task.collate(features, tokenizer)
    lengths = [len(feature["input_ids"]) for feature in features]
    assert batch["input_ids"].shape == (2, max(lengths))
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert (batch["input_ids"][batch["attention_mask"] == 0] == tokenizer.pad_token_id).all()
    assert batch["labels"].tolist() == [0, 2]


def test_the_head_takes_the_batch_and_gives_the_loss_that_its_logits_say(root, tokenizer, model):
    import torch

    task = make_task("nli")
    task.add_head(model)
    split = task.load(root, "train", "en")
    features = task.encode(split, tokenizer, train=True)
    batch = task.collate(features, tokenizer)
    outputs = model(**batch)
    rows = task.rows(outputs, batch)
    assert model.active_head == "nli"
    log_p = [row - torch.logsumexp(torch.from_numpy(row), 0).item() for row in rows]
    assert outputs.loss.item() == pytest.approx(-(log_p[0][0] + log_p[1][2]) / 2, abs=1e-6)


def test_the_score_is_the_share_of_examples_whose_largest_logit_is_the_label(root):
    import numpy as np

    task = make_task("nli")
    split = task.load(root, "train", "en")
    predictions = task.predict(split, [], [np.array([3.0, 1, 2]), np.array([3.0, 1, 2])])
    assert [(p.gold, p.predicted) for p in predictions] == [
        ("entailment", "entailment"),
        ("contradiction", "entailment"),
    ]
    assert task.score(split, predictions) == {"accuracy": 50.0}
