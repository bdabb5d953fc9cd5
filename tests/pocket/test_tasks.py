"""Labels follow from meanings, files are in the official formats, and the trainer's own loaders read them."""

import json
from collections import Counter

import pytest

from fishlens.pocket.formats import SIZES, conllu, squad_json, write_tasks
from fishlens.pocket.languages import make_family, text_of
from fishlens.pocket.meanings import CONCEPTS, OPPOSITES, RESULTS, TOPICS, World
from fishlens.pocket.tasks import MAKERS, make_splits

FAMILY, WORLD = make_family(), World()


@pytest.fixture(scope="module")
def examples():
    return {task: make_splits(task, WORLD, {"train": 3000, "test": 300}, seed=0) for task in MAKERS}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    write_tasks(folder, FAMILY, WORLD)
    return folder


def follows(event, hypothesis):
    """An independent judge: True, False or None of a hypothesis, given what is said to have happened."""
    for said, meant in ((hypothesis.subject, event.subject), (hypothesis.object, event.object)):
        if said.noun not in (meant.noun, CONCEPTS[meant.noun].kind) or said.adjective not in (
            None,
            meant.adjective,
        ):
            return None
    if event.negated and event != event.core():
        return None  # which part of it was not so is not said
    if hypothesis.predicate == event.predicate:
        return hypothesis.negated == event.negated
    if hypothesis.predicate == OPPOSITES[event.predicate] and not event.negated:
        return hypothesis.negated  # who does one thing does not do the opposite; who does not, may do either
    return None


def test_the_label_of_a_pair_is_what_an_independent_judge_says(examples):
    meaning = {True: "entailment", False: "contradiction", None: "neutral"}
    wrong = [
        pair
        for pair in examples["nli"]["train"]
        if meaning[follows(pair.premise, pair.hypothesis)] != pair.label
    ]
    assert not wrong, wrong[0]


def test_labels_are_balanced_and_negation_alone_does_not_tell_them(examples):
    pairs = examples["nli"]["train"]
    assert set(Counter(pair.label for pair in pairs).values()) == {1000}
    negated = Counter(pair.label for pair in pairs if pair.hypothesis.negated)
    assert max(negated.values()) < 0.45 * sum(negated.values())
    assert abs(Counter(choice.label for choice in examples["choice"]["train"])[0] - 1500) <= 50


def test_the_right_choice_is_the_cause_or_the_result_and_the_wrong_one_is_not(examples):
    for example in examples["choice"]["train"]:
        right, wrong = example.choices[example.label], example.choices[1 - example.label]
        if example.question == "cause":
            assert RESULTS[right.predicate] == example.premise.predicate != RESULTS[wrong.predicate]
        else:
            assert RESULTS[example.premise.predicate] == right.predicate != wrong.predicate


def test_the_topic_of_a_text_is_that_of_most_of_its_nouns(examples):
    for example in examples["topic"]["train"]:
        topics = Counter(CONCEPTS[clause.subject.noun].topic for clause in example.clauses)
        assert topics.most_common(1)[0][0] == example.topic
    assert {example.topic for example in examples["topic"]["train"]} == set(TOPICS)


@pytest.mark.parametrize("task", MAKERS)
def test_no_example_is_in_two_splits(task, examples):
    assert not set(examples[task]["train"]) & set(examples[task]["test"])


@pytest.mark.parametrize("language", FAMILY.languages, ids=lambda language: language.code)
def test_answers_are_at_their_offsets_and_are_the_asked_noun_phrase(language, examples):
    passages = examples["qa"]["test"][:50]
    data = json.loads(squad_json(passages, language, "test"))["data"]
    for passage, article in zip(passages, data, strict=True):
        paragraph = article["paragraphs"][0]
        for (question, number), asked in zip(passage.questions, paragraph["qas"], strict=True):
            answer = asked["answers"][0]
            start = answer["answer_start"]
            assert paragraph["context"][start : start + len(answer["text"])] == answer["text"]
            phrase = getattr(passage.clauses[number], question.asked)
            noun = language.lexicon[phrase.noun]
            words = answer["text"].split()
            assert len(words) == (2 if phrase.adjective else 1)
            assert any(word.startswith(noun) for word in words)


def test_only_the_answering_clause_fits_the_question(examples):
    for passage in examples["qa"]["train"]:
        for question, number in passage.questions:
            about = question.clause
            others = [clause for i, clause in enumerate(passage.clauses) if i != number]
            for other in others:
                assert other.predicate != about.predicate
                assert other.subject.noun != about.subject.noun


def test_tagged_words_are_the_words_of_the_sentence(examples):
    for language in FAMILY.languages:
        blocks = conllu(examples["tagging"]["test"][:30], language).strip().split("\n\n")
        for meaning, block in zip(examples["tagging"]["test"][:30], blocks, strict=True):
            lines = block.split("\n")
            rows = [line.split("\t") for line in lines if not line.startswith("#")]
            assert all(len(row) == 10 for row in rows)
            joined = "".join(row[1] + ("" if row[9] == "SpaceAfter=No" else " ") for row in rows).strip()
            assert joined == text_of(language.say(meaning)) == lines[1].removeprefix("# text = ")
            assert [row[3] for row in rows] == [token.tag for token in language.say(meaning)]


def test_the_same_seed_writes_the_same_files(root, tmp_path):
    write_tasks(tmp_path, make_family(), World())
    files = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all((root / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)


@pytest.mark.parametrize("task", ["nli", "choice", "qa", "pos", "topic"])
def test_the_trainers_loaders_read_every_language(task, root):
    from fishlens.training.tasks import make_task

    files = {"train": "squad/train-v1.1.json", "validation": "squad/dev-v1.1.json"} if task == "qa" else None
    loader = make_task(task, files)
    sizes = SIZES["tagging" if task == "pos" else task]
    per_example = 2 if task == "qa" else 1  # questions of a passage
    assert set(loader.languages(root, "test")) == {language.code for language in FAMILY.languages}
    assert len(loader.load(root, "train", "mu")) == sizes["train"] * per_example
    assert len(loader.load(root, "validation", "mu")) == sizes["validation"] * per_example
    for language in FAMILY.languages:
        split = loader.load(root, "test", language.code)
        assert len(split) == sizes["test"] * per_example
        assert not split.notes


def test_test_rows_are_parallel(root):
    labels = set()
    for language in FAMILY.languages:
        rows = (root / f"xnli/test-{language.code}.tsv").read_text().splitlines()
        labels.add(tuple(row.split("\t")[2] for row in rows))
    assert len(labels) == 1


def test_a_world_of_another_seed_prefers_other_things():
    one, other = (make_splits("topic", World(seed), {"train": 50}, seed=0)["train"] for seed in (0, 1))
    assert one != other
