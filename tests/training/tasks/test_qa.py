"""Extractive QA: contexts in windows, gold answers as tokens, logits back to characters of the context."""

import json
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from fishlens.errors import InputError
from fishlens.training.data.squad import Answer, Question
from fishlens.training.tasks import Prediction, Split, make_task, windows

CONTEXT = "\ufeffThe river Po flows through Turin, Piacenza and Cremona to the sea."


def squad(*qas, context=CONTEXT):
    questions = [
        {"id": f"q{i}", "question": question, "answers": [{"text": t, "answer_start": s} for t, s in answers]}
        for i, (question, answers) in enumerate(qas)
    ]
    return {"version": 1.0, "data": [{"title": "Po", "paragraphs": [{"context": context, "qas": questions}]}]}


def question(answer, context=CONTEXT, text="Where?"):
    return Question("q0", text, context, (Answer(answer, context.index(answer)),))


def a_split(*questions, name="test", language="de"):
    return Split(name, language, "here", questions)


@pytest.fixture
def root(tmp_path):
    for place in ("squad/train-v1.1.json", "xquad/xquad.de.json", "mlqa/dev-context-de-question-de.json"):
        (tmp_path / place).parent.mkdir()
        content = squad(("What?", [("The river Po", 1)]), ("Where?", [("Turin", 28), ("Piacenza", 35)]))
        (tmp_path / place).write_text(json.dumps(content))
    return tmp_path


def test_a_file_is_read_untouched_and_offsets_count_a_leading_mark(root):
    split = make_task("qa").load(root, "test", "de")
    assert split[0].context == CONTEXT
    assert split[1].answers == (Answer("Turin", 28), Answer("Piacenza", 35))
    assert split.notes == ()


def test_an_official_file_goes_before_a_sample(root):
    (root / "squad" / "train-v1.1.sample.json").write_text("{}")
    assert make_task("qa").file(root, "train", "en").name == "train-v1.1.json"
    assert make_task("qa").languages(root, "train") == ["en"]


def test_a_gold_answer_that_is_not_in_its_context_is_counted_and_not_trained_on(root, tokenizer):
    wrong = squad(("What?", [("The river Po", 1)]), ("Where?", [("Turin", 27), ("Piacenza", 35)]))
    (root / "squad" / "train-v1.1.json").write_text(json.dumps(wrong))
    task = make_task("qa")
    split = task.load(root, "train", "en")
    assert len(split) == 2
    assert split.notes[0].startswith(
        "1 of 3 gold answers are not at their offset in the context, the first is 'Turin' at 27 of question 'q1'"
    )
    assert {f["example"] for f in task.encode(split, tokenizer, train=True)} == {0}
    assert {f["example"] for f in task.encode(split, tokenizer, train=False)} == {0, 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"data": [\n  {"paragraphs": \n',
            r"xquad\.de\.json, line 2: not JSON: Expecting value at character 18",
        ),
        ("", r"line 1: not JSON"),
        ("[]", r"xquad\.de\.json: expected an object with 'data', got list"),
        ('{"data": []}', r"xquad\.de\.json is empty"),
        ('{"data": [{"title": ""}]}', r"xquad\.de\.json: data\[0\]: no 'paragraphs'; there is 'title'"),
        (json.dumps(squad(("Q?", []))), r"data\[0\]\.paragraphs\[0\]\.qas\[0\]: question 'q0' has no answer"),
        (
            json.dumps(squad(("Q?", [("a", "1")]))),
            r"qas\[0\]\.answers\[0\]: 'answer_start' is '1'; expected a whole number",
        ),
        (json.dumps(squad((None, [("a", 1)]))), r"qas\[0\]: 'question' is None; expected text"),
    ],
)
def test_a_malformed_file_is_named_with_the_place_in_it(root, content, message):
    (root / "xquad" / "xquad.de.json").write_text(content)
    with pytest.raises(InputError, match=message):
        make_task("qa").load(root, "test", "de")


def test_an_answer_that_is_withheld_is_refused_and_not_trained_on_as_the_first_token(root):
    (root / "xquad" / "xquad.de.json").write_text(json.dumps(squad(("Q?", [("", 0)]))), encoding="utf-8")
    with pytest.raises(InputError, match=r"answers\[0\]: the answer of question 'q0' is ''; .*withheld"):
        make_task("qa").load(root, "test", "de")


def test_two_questions_of_one_id_are_refused(root):
    twice = squad(("Q?", [("Turin", 27)]), ("R?", [("Turin", 27)]))
    for qa in twice["data"][0]["paragraphs"][0]["qas"]:
        qa["id"] = "same"
    (root / "xquad" / "xquad.de.json").write_text(json.dumps(twice), encoding="utf-8")
    with pytest.raises(
        InputError, match="1 ids stand for several examples, 'same' for 2 of them; expected an id"
    ):
        make_task("qa").load(root, "test", "de")


def test_mlqas_rules_follow_the_language_of_the_context_not_of_the_recipe(root):
    text = json.dumps(squad(("Q?", [("sea", 0)])))
    (root / "test-context-en-question-de.json").write_text(text, encoding="utf-8")
    task = make_task("qa", {"test": {"de": "test-context-en-question-de.json"}}, test="mlqa")
    split = task.load(root, "test", "de")
    article = [Prediction("q0", ["the sea"], "sea")]
    assert task.score(split, article)["exact_match"] == 100.0  # "the" is an article in English alone
    assert task.score(replace(split, source="mine.json"), article)["exact_match"] == 0.0


def test_a_language_without_mlqas_rules_is_refused_when_its_file_is_read(root):
    (root / "ru.json").write_text(json.dumps(squad(("Q?", [("sea", 0)]))), encoding="utf-8")
    with pytest.raises(InputError, match="MLQA has no rules for language 'ru': it has en"):
        make_task("qa", {"test": "{language}.json"}, test="mlqa").load(root, "test", "ru")


def test_windows_cover_the_context_and_neighbours_share_the_stride(tokenizer):
    task = make_task("qa", stride=10)
    features = task.encode(a_split(question("Turin")), tokenizer, max_length=40, train=False)
    spans = [[(int(a), int(b)) for a, b in f["offsets"] if a >= 0] for f in features]
    assert len(features) > 2
    assert {a for span in spans for a, _ in span} == set(range(len(CONTEXT)))
    for one, two in pairwise(spans):
        assert len(set(one) & set(two)) == 10
    for f in features:
        text = tokenizer.decode(f["input_ids"]).replace(" ", "")
        assert text.startswith("<s>Where?</s></s>")
        assert len(f["input_ids"]) <= 40


@pytest.mark.parametrize("answer", ["\ufeffThe", "Turin", "Cremona to the sea.", "."])
def test_gold_tokens_are_the_answers_own_in_each_window_that_has_all_of_it(tokenizer, answer):
    task = make_task("qa", stride=20)
    example = question(answer)
    features = task.encode(a_split(example), tokenizer, max_length=40, train=False)
    found = [f for f in features if f["start"]]
    assert found
    for f in features:
        inside = {int(a) for a, _ in f["offsets"] if a >= 0}
        begin = example.answers[0].start
        whole = set(range(begin, begin + len(answer))) <= inside
        assert bool(f["start"]) == whole
        if whole:
            assert (f["offsets"][f["start"], 0], f["offsets"][f["end"], 1]) == (begin, begin + len(answer))


def test_a_long_question_is_cut_and_windows_still_move_on(tokenizer, caplog):
    windows._say_that_the_stride_is_shortened.cache_clear()
    task = make_task("qa", stride=128)
    for _ in ("en", "de"):
        features = task.encode(
            a_split(question("sea", text="w" * 200)), tokenizer, max_length=384, train=False
        )
        assert len(features) < 20
        assert any(f["start"] for f in features)
    assert caplog.text.count("stride 128 is too long for windows of 64 tokens") == 1


def test_a_window_without_room_is_refused(tokenizer):
    with pytest.raises(InputError, match="max_length 6 leaves 2 tokens for question and context"):
        make_task("qa").encode(a_split(question("sea")), tokenizer, max_length=6, train=False)


def test_the_loss_is_that_of_the_gold_positions(tokenizer, model):
    import torch

    task = make_task("qa", stride=10)
    task.add_head(model)
    features = task.encode(a_split(question("Turin"), question("Po")), tokenizer, max_length=50, train=True)
    batch = task.collate(features, tokenizer)
    before = {key: value.clone() for key, value in batch.items()}
    outputs = model(**batch)
    expected = sum(
        -torch.log_softmax(logits.double(), -1)[range(len(features)), batch[f"{end}_positions"]].mean()
        for end, logits in [("start", outputs.start_logits), ("end", outputs.end_logits)]
    )
    assert outputs.loss.item() == pytest.approx(expected.item() / 2, abs=1e-6)
    assert all(
        torch.equal(batch[key], before[key]) for key in batch
    )  # the head clamps in place: nothing to clamp
    assert [row.shape for row in task.rows(outputs, batch)] == [(2, len(f["input_ids"])) for f in features]


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_at_the_gold_positions_give_the_gold_answer_on_either_side_of_padding(tokenizer, side):
    import torch

    tokenizer.padding_side = side
    try:
        task = make_task("qa", stride=10)
        split = a_split(
            question("Turin"), question("Po", context="The Po."), question("Piacenza and Cremona")
        )
        features = task.encode(split, tokenizer, max_length=50, train=False)
        batch = task.collate(features, tokenizer)
        shape = batch["input_ids"].shape
        start, end = torch.zeros(shape), torch.zeros(shape)
        for i, f in enumerate(features):
            high = 5.0 if f["start"] else 0.1  # a window without the answer points at its first token
            start[i, batch["start_positions"][i]] = end[i, batch["end_positions"][i]] = high
        outputs = SimpleNamespace(start_logits=start, end_logits=end)
        predictions = task.predict(split, features, task.rows(outputs, batch))
        assert [p.predicted for p in predictions] == ["Turin", "Po", "Piacenza and Cremona"]
        assert task.score(split, predictions) == {"f1": 100.0, "exact_match": 100.0}
    finally:
        tokenizer.padding_side = "right"


def feature(offsets, example=0):
    return {"example": example, "offsets": np.asarray(offsets)}


OUT = (-1, -1)


def rows(start, end):
    return np.asarray([start, end], dtype=np.float32)


def predicted(task, example, *features_and_rows):
    features, logits = zip(*features_and_rows, strict=True)
    return task.predict(a_split(example), features, logits)[0].predicted


WORDS = question("ab", context="ab cd ef gh")
OFFSETS = [OUT, (0, 2), (3, 5), (6, 8), (9, 11)]


def test_the_best_pair_is_by_the_sum_of_both_not_by_either_alone():
    # the highest start (token 3) and the highest end (token 1) make no span; 1-1 has 3 + 6, 3-4 has 5 + 3
    window = (feature(OFFSETS), rows([0, 3, 0, 5, 0], [0, 6, 0, 0, 3]))
    assert predicted(make_task("qa"), WORDS, window) == "ab"
    # now 1-1 has 1 + 6, 3-4 has 5 + 3
    window = (feature(OFFSETS), rows([0, 1, 0, 5, 0], [0, 6, 0, 0, 3]))
    assert predicted(make_task("qa"), WORDS, window) == "ef gh"


def test_tokens_outside_the_context_are_no_answer():
    window = (feature(OFFSETS), rows([9, 1, 0, 0, 0], [9, 0, 1, 0, 0]))
    assert predicted(make_task("qa"), WORDS, window) == "ab cd"


def test_an_answer_has_at_most_so_many_tokens():
    window = (feature(OFFSETS), rows([0, 5, 0, 3, 0], [0, 1, 0, 0, 5]))
    assert predicted(make_task("qa"), WORDS, window) == "ab cd ef gh"
    assert predicted(make_task("qa", max_answer=3), WORDS, window) == "ef gh"


def test_only_the_n_best_starts_and_ends_are_tried():
    # with one of each, start 4 and end 1 make no span: there is no prediction, which scores 0
    window = (feature(OFFSETS), rows([0, 1, 0, 0, 5], [0, 5, 0, 0, 1]))
    assert predicted(make_task("qa", n_best=1), WORDS, window) is None
    assert predicted(make_task("qa", n_best=2), WORDS, window) == "ab"


def test_the_best_window_of_a_question_wins():
    low = (feature([OUT, (0, 2)]), rows([0, 1], [0, 1]))
    high = (feature([OUT, (6, 8)]), rows([0, 2], [0, 2]))
    assert predicted(make_task("qa"), WORDS, low, high) == "ef"
    assert predicted(make_task("qa"), WORDS, high, low) == "ef"


def test_a_token_may_begin_with_the_space_before_its_word():
    window = (feature([OUT, (2, 5)]), rows([0, 1], [0, 1]))
    assert predicted(make_task("qa"), WORDS, window) == "cd"


def test_the_rules_are_those_of_the_test_set_and_on_validation_squads():
    predictions = [Prediction("1", ["Der Hund"], "dem Hund")]
    test = a_split(WORDS)
    assert make_task("qa", test="xquad").score(test, predictions) == {"f1": 50.0, "exact_match": 0.0}
    assert make_task("qa", test="mlqa").score(test, predictions) == {"f1": 100.0, "exact_match": 100.0}
    # a typographic quotation mark is punctuation for MLQA in any language, not for SQuAD
    quoted = [Prediction("1", ["“dog”"], "dog")]
    validation = a_split(WORDS, name="validation", language="en")
    assert make_task("qa", test="mlqa").score(validation, quoted) == {"f1": 0.0, "exact_match": 0.0}
    english = a_split(WORDS, name="test", language="en")
    assert make_task("qa", test="mlqa").score(english, quoted) == {"f1": 100.0, "exact_match": 100.0}
