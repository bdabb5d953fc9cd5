"""Every task on the real files: every language loads with the counts that the data's own page gives."""

from collections import Counter

import pytest

from fishlens.training.data.conllu import read_conllu
from fishlens.training.tasks import make_task
from fishlens.training.tasks.qa import in_context

XNLI = ["ar", "de", "en", "es", "hi", "ru", "sw", "zh"]
XCOPA = ["et", "id", "it", "sw", "ta", "th", "tr", "vi", "zh"]
XQUAD = ["ar", "de", "el", "en", "es", "th", "zh"]
SIB = [
    "ar",
    "de",
    "el",
    "en",
    "es",
    "et",
    "fi",
    "fr",
    "hi",
    "id",
    "it",
    "ru",
    "sw",
    "ta",
    "th",
    "tr",
    "vi",
    "zh",
]
PUD = {
    "ar": 20_747, "de": 21_332, "es": 23_283, "fi": 15_813, "fr": 24_726, "hi": 23_829,
    "id": 19_446, "it": 23_732, "ru": 19_355, "th": 22_330, "tr": 16_881, "zh": 21_415,
}  # fmt: skip

COUNTS = [
    ("nli", {}, "train", {"en": 15_001}),
    ("nli", {}, "validation", dict.fromkeys(XNLI, 2_490)),
    ("nli", {}, "test", dict.fromkeys(XNLI, 5_010)),
    ("choice", {}, "train", {"en": 400}),
    ("choice", {}, "validation", dict.fromkeys(["en", *XCOPA], 100)),
    ("choice", {}, "test", {**dict.fromkeys(XCOPA, 500), "en": 100}),
    ("qa", {}, "train", {"en": 6_007}),
    ("qa", {}, "validation", {"en": 1_002}),
    ("qa", {"test": "xquad"}, "test", dict.fromkeys(XQUAD, 1_190)),
    ("qa", {"test": "mlqa"}, "test", {"ar": 517, "de": 512, "en": 1_148}),
    ("pos", {}, "train", {"en": 12_543}),
    ("pos", {}, "validation", {"en": 2_001}),
    ("pos", {}, "test", {"en": 2_077, **dict.fromkeys(PUD, 1_000)}),
    ("topic", {}, "train", dict.fromkeys(SIB, 701)),
    ("topic", {}, "validation", dict.fromkeys(SIB, 99)),
    ("topic", {}, "test", dict.fromkeys(SIB, 204)),
]


@pytest.fixture(scope="module")
def root(shared):
    return shared / "data"


@pytest.mark.parametrize(
    ("name", "options", "split", "counts"),
    COUNTS,
    ids=[f"{n}-{o.get('test', '')}-{s}" for n, o, s, _ in COUNTS],
)
def test_every_language_is_there_with_all_its_examples(root, name, options, split, counts):
    task = make_task(name, **options)
    assert task.languages(root, split) == sorted(counts)
    assert {language: len(task.load(root, split, language)) for language in counts} == counts


def test_labels_are_those_of_the_page(root):
    train = make_task("nli").load(root, "train", "en")
    assert Counter(e.label for e in train) == {0: 5_100, 1: 4_397, 2: 5_504}
    copa = make_task("choice").load(root, "train", "en")
    assert Counter(e.label for e in copa) == {0: 195, 1: 205}
    assert Counter(e.question for e in copa) == {"cause": 198, "effect": 202}
    topic = make_task("topic")
    for language in SIB:
        counts = Counter(e.label for e in topic.load(root, "test", language))
        assert [counts[i] for i in range(7)] == [19, 17, 22, 30, 51, 25, 40]


@pytest.mark.parametrize(("split", "words"), [("train", 204_573), ("validation", 25_147), ("test", 25_094)])
def test_english_words_are_counted_without_ranges_and_empty_nodes(root, split, words):
    assert sum(len(e.words) for e in make_task("pos").load(root, split, "en")) == words


def test_words_of_the_other_languages(root):
    task = make_task("pos")
    assert {language: sum(len(e.words) for e in task.load(root, "test", language)) for language in PUD} == PUD


@pytest.mark.parametrize(
    ("file", "share"),
    [("zh_pud", 0.98), ("th_pud", 0.98), ("ar_pud", 0.98), ("ru_pud", 0.98), ("hi_pud", 0.98)],
)
def test_the_text_is_rebuilt_as_it_was_written(root, file, share):
    """Against the `# text` lines of treebanks without multiword ranges, which are the written text itself."""
    from fishlens.training.tasks.words import spaced_text

    path = root / "ud" / f"{file}-ud-test.conllu"
    written = [
        line[9:] for line in path.read_text(encoding="utf-8").split("\n") if line.startswith("# text = ")
    ]
    rebuilt = [
        spaced_text([w.form for w in s.words], [w.space_after for w in s.words]).text
        for s in read_conllu(path)
    ]
    assert sum(a == b for a, b in zip(written, rebuilt, strict=True)) >= share * len(written)


def test_every_gold_answer_is_at_its_offset_and_leading_marks_are_kept(root):
    beginning_with_mark = {}
    for test in ("xquad", "mlqa"):
        task = make_task("qa", test=test)
        for language in task.languages(root, "test"):
            split = task.load(root, "test", language)
            assert split.notes == ()
            assert all(in_context(e, answer) for e in split for answer in e.answers)
            contexts = {e.context for e in split}
            if test == "xquad":
                beginning_with_mark[language] = sum(context.startswith("\ufeff") for context in contexts)
    assert beginning_with_mark == {"ar": 9, "de": 6, "el": 7, "en": 0, "es": 2, "th": 7, "zh": 6}


def test_questions_of_xcopa_can_be_taken_from_a_language_where_they_are_right(root):
    thai = make_task("choice").load(root, "test", "th")
    assert Counter(e.question for e in thai) == {"effect": 500}
    repaired = make_task("choice", questions_from="et").load(root, "test", "th")
    assert Counter(e.question for e in repaired) == {"cause": 250, "effect": 250}
    assert "250 of 500 questions" in repaired.notes[0]
    assert [e.premise for e in repaired] == [e.premise for e in thai]


@pytest.mark.parametrize("language", ["en", "de", "ar", "zh", "fi", "it"])
def test_every_word_gets_a_token(root, mini_xlmr, language):
    """Of the long ones too, whose sentences go on in further rows."""
    task = make_task("pos")
    split = task.load(root, "test", language)
    features = task.encode(split, mini_xlmr, train=False, max_length=64)
    assert len(features) > len(split)
    placed = Counter((f["example"], int(word)) for f in features for word in f["words"])
    assert set(placed.values()) == {1}
    assert len(placed) == sum(len(e.words) for e in split)


@pytest.mark.parametrize("language", ["en", "ar", "de", "es", "zh"])
def test_gold_tokens_say_the_gold_answer(root, mini_xlmr, language):
    """The characters of the gold tokens are the gold answer, but for what begins or ends inside a token."""
    task = make_task("qa")
    split = task.load(root, "test", language)
    features = [f for f in task.encode(split, mini_xlmr, max_length=256, train=False) if f["start"]]
    answered = {f["example"] for f in features}
    assert answered == set(range(len(split)))
    exact = 0
    for f in features:
        gold = split[f["example"]].answers[0].text
        begin, end = f["offsets"][f["start"], 0], f["offsets"][f["end"], 1]
        text = split[f["example"]].context[begin:end]
        assert gold in text
        exact += text.strip() == gold.strip()
    assert exact >= 0.97 * len(features)


def test_perfect_logits_score_perfectly(root, mini_xlmr):
    """With all logits on the gold tokens, the answers come back through windows and offsets."""
    import numpy as np

    for test, language in [("xquad", "zh"), ("xquad", "ar"), ("mlqa", "de")]:
        task = make_task("qa", test=test, max_answer=150)
        split = task.load(root, "test", language)
        features = task.encode(split, mini_xlmr, max_length=256, train=False)
        rows = [np.zeros((2, len(f["input_ids"])), dtype=np.float32) for f in features]
        for f, row in zip(features, rows, strict=True):
            if f["start"]:
                row[0, f["start"]] = row[1, f["end"]] = 10.0
        scores = task.score(split, task.predict(split, features, rows))
        assert scores["exact_match"] > 98 and scores["f1"] > 98, (test, language, scores)
