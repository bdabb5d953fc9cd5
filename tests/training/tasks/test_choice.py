"""COPA and XCOPA: two alternatives share one softmax."""

import json

import pytest

from fishlens.errors import InputError
from fishlens.training.tasks import make_task
from fishlens.training.tasks.choice import ChoiceExample

ROW = {
    "premise": "It rained.",
    "choice1": "Wet.",
    "choice2": "It is dry.",
    "question": "effect",
    "label": 0,
    "idx": 0,
}
OTHER = {**ROW, "question": "cause", "label": 1, "idx": 1}


def write(path, *rows, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        "".join((row if isinstance(row, str) else json.dumps(row)) + end for row in rows).encode()
    )


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "copa" / "train.en.jsonl", ROW, OTHER)
    write(tmp_path / "copa" / "val.en.jsonl", ROW)
    for split in ("val", "test"):
        write(tmp_path / f"xcopa/data/th/{split}.th.jsonl", ROW, {**OTHER, "question": "effect"}, end="\r\n")
        write(tmp_path / f"xcopa/data/et/{split}.et.jsonl", ROW, OTHER)
    return tmp_path


def test_files_become_examples_whatever_their_line_ends(root):
    first = ChoiceExample("0", "It rained.", "effect", ("Wet.", "It is dry."), 0)
    task = make_task("choice")
    assert task.load(root, "train", "en")[0] == first
    assert task.load(root, "test", "th")[0] == first
    assert task.languages(root, "validation") == ["en", "et", "th"]


def test_english_is_tested_on_the_validation_examples_and_says_so(root):
    split = make_task("choice").load(root, "test", "en")
    assert len(split) == 1
    assert "serves as test and validation data" in split.notes[0]
    assert make_task("choice").load(root, "validation", "en").notes == ()


def test_questions_of_another_language_stand_in(root):
    split = make_task("choice", questions_from="et").load(root, "test", "th")
    assert [example.question for example in split] == ["effect", "cause"]
    assert "1 of 2 questions replaced by those of 'et'" in split.notes[0]


def test_questions_that_do_not_line_up_are_refused(root):
    write(root / "xcopa/data/et/test.et.jsonl", ROW)
    with pytest.raises(InputError, match="idx 1 is not in the file of questions_from = 'et'"):
        make_task("choice", questions_from="et").load(root, "test", "th")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"premise": "It', r"train\.en\.jsonl, line 2: not JSON: Unterminated string .* at character 13"),
        ("[1]", r"line 2: expected an object with 'question', got list"),
        ({**ROW, "question": "why"}, r"line 2: 'question' is 'why'; expected 'cause' or 'effect'"),
        ({**ROW, "label": 2}, r"line 2: 'label' is 2; expected 0 or 1"),
        ({**ROW, "label": "0"}, r"line 2: 'label' is '0'; expected a whole number"),
        ({**ROW, "label": True}, r"line 2: 'label' is True; expected a whole number"),
        (
            {k: v for k, v in ROW.items() if k != "choice2"},
            r"line 2: no 'choice2'; there is 'premise', 'choice1'",
        ),
    ],
)
def test_a_malformed_line_is_named(root, bad, message):
    write(root / "copa" / "train.en.jsonl", ROW, bad)
    with pytest.raises(InputError, match=message):
        make_task("choice").load(root, "train", "en")


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("copa", ["What happened as a result?", "What was the cause?"]),
        ("published", ["What was the effect?", "What was the cause?"]),
    ],
)
def test_each_alternative_is_a_row_after_premise_and_question(root, tokenizer, prompt, texts):
    task = make_task("choice", prompt=prompt)
    features = task.encode(task.load(root, "train", "en"), tokenizer, train=True)
    said = [[tokenizer.decode(row["input_ids"]).replace(" ", "") for row in f["choices"]] for f in features]
    for (one, two), text in zip(said, texts, strict=True):
        start = f"<s>It rained. {text}</s></s>".replace(" ", "")
        assert one == start + "Wet.</s>"
        assert two == start + "Itisdry.</s>"


def test_the_alternatives_of_one_question_share_one_softmax(root, tokenizer, model):
    import torch

    task = make_task("choice")
    task.add_head(model)
    split = task.load(root, "train", "en")
    features = task.encode(split, tokenizer, train=True)
    batch = task.collate(features, tokenizer)
    assert batch["input_ids"].shape[:2] == (2, 2)
    outputs = model(**batch)
    rows = task.rows(outputs, batch)
    p = [torch.softmax(torch.from_numpy(row).double(), 0) for row in rows]
    assert outputs.loss.item() == pytest.approx(-(p[0][0].log() + p[1][1].log()).item() / 2, abs=1e-6)
    predictions = task.predict(split, features, rows)
    assert [p.predicted for p in predictions] == [int(row.argmax()) for row in rows]
    assert task.score(split, predictions)["accuracy"] in (0.0, 50.0, 100.0)
