"""Tasks told in a recipe: labels, columns and metrics of one's own, from any common format."""

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from fishlens.errors import InputError
from fishlens.training.metrics.choose import points
from fishlens.training.tasks import make_task
from fishlens.training.tasks.classification import TextExample
from fishlens.training.tasks.tagging import TaggedSentence

ROWS = [("Schön!", "good", "a1"), ('Er sagte "nein"', "bad", "a2"), ("Komma, Punkt", "good", "a3")]
EXPECTED = tuple(TextExample(name, text, None, int(label == "good")) for text, label, name in ROWS)


def objects():
    return [{"sentence": text, "mood": label, "key": name, "other": 1} for text, label, name in ROWS]


def quoted(text):
    return '"' + text.replace('"', '""') + '"'


def write(path, suffix):
    header = ("mood", "sentence", "key")
    if suffix == ".csv":
        lines = [",".join(header), *(f"{label},{quoted(text)},{name}" for text, label, name in ROWS)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif suffix == ".tsv":
        lines = ["\t".join(header), *(f"{label}\t{quoted(text)}\t{name}" for text, label, name in ROWS)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in objects()), encoding="utf-8")
    elif suffix == ".json":
        path.write_text(json.dumps({"data": objects()}), encoding="utf-8")
    else:
        parquet.write_table(pa.Table.from_pylist(objects()), path)


def mood(root, **options):
    return make_task(
        "text",
        files={"test": str(root / "{language}")},
        labels=["bad", "good"],
        columns={"text": "sentence", "label": "mood", "id": "key"},
        **options,
    )


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_the_same_rows_from_every_format(tmp_path, suffix):
    write(tmp_path / f"de{suffix}", suffix)
    task = make_task(
        "text",
        files={"test": f"{{language}}{suffix}"},
        labels=["bad", "good"],
        columns={"text": "sentence", "label": "mood", "id": "key"},
    )
    assert task.load(tmp_path, "test", "de").examples == EXPECTED


def test_a_headline_alone_is_computed_beside_the_default_metrics():
    of = {"labels": ["bad", "good"]}
    task = make_task("text", headline="macro_f1", **of)
    assert list(task.metrics) == ["accuracy", "macro_f1"] and task.headline == "macro_f1"
    named = make_task("text", metrics=[f"{__name__}:divided"], headline=f"{__name__}:divided", **of)
    assert named.headline == "divided"
    with pytest.raises(
        InputError, match="headline is 'matthews'; expected one of the metrics accuracy: add it to"
    ):
        make_task("text", metrics="accuracy", headline="matthews", **of)


def divided(gold, predicted):
    return len(gold) / 0


def test_a_metric_of_ones_own_that_fails_says_what_failed_and_where(tmp_path):
    line = divided.__code__.co_firstlineno + 1
    with pytest.raises(
        InputError, match=rf"'divided' gives no number: ZeroDivisionError: .* \(test_text.py, line {line}\)"
    ):
        points({"divided": divided}, ["a"], ["a"])


def test_a_file_without_quoting_and_one_without_header(tmp_path):
    (tmp_path / "en.tsv").write_text('text\tlabel\n"a\tbad\n', encoding="utf-8")
    plain = make_task("text", {"test": "{language}.tsv"}, labels=["bad", "good"], quoting=False)
    assert plain.load(tmp_path, "test", "en").examples == (TextExample("2", '"a', None, 0),)
    (tmp_path / "fr.csv").write_text('good,"a, b"\n', encoding="utf-8")
    bare = make_task("text", {"test": "{language}.csv"}, labels=["bad", "good"], header=["label", "text"])
    assert bare.load(tmp_path, "test", "fr").examples == (TextExample("1", "a, b", None, 1),)


@pytest.mark.parametrize("quoting", [True, False])
def test_a_file_that_is_cut_at_another_character_is_read_or_says_which(tmp_path, quoting):
    (tmp_path / "en.csv").write_text("text;label\na, b;good\n", encoding="utf-8")
    of = {"files": {"test": "{language}.csv"}, "labels": ["bad", "good"], "quoting": quoting}
    task = make_task("text", delimiter=";", **of)
    assert task.load(tmp_path, "test", "en").examples == (TextExample("2", "a, b", None, 1),)
    with pytest.raises(InputError, match=r"no column 'text'; it has 'text;label': .*; set delimiter: \";\""):
        make_task("text", **of).load(tmp_path, "test", "en")
    for wrong in (";;", "", "\n", '"', 3):
        with pytest.raises(InputError, match=r"delimiter is .*; expected one character"):
            make_task("text", delimiter=wrong, **of)


def test_labels_may_be_numbers_in_the_data_and_names_in_results(tmp_path):
    (tmp_path / "en.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n')
    task = make_task("text", {"test": "{language}.jsonl"}, labels={0: "bad", 1: "good"})
    split = task.load(tmp_path, "test", "en")
    rows = [np.array([0.0, 1.0]), np.array([0.0, 1.0])]
    predictions = task.predict(split, [], rows)
    assert [(p.gold, p.predicted) for p in predictions] == [("good", "good"), ("bad", "good")]
    assert task.score(split, predictions) == {"accuracy": 50.0}


def test_a_pair_a_number_and_several_labels(tmp_path):
    (tmp_path / "en.csv").write_text("text,second,label,value,labels\na,b,yes,2.5,x;z\nc,d,no,-1,\n")
    files = {"test": "{language}.csv"}
    load = lambda name, **options: make_task(name, files, **options).load(tmp_path, "test", "en").examples  # noqa: E731
    assert load("pair", labels=["no", "yes"])[0] == TextExample("2", "a", "b", 1)
    numbers = load("regression", columns={"second": "second"})
    assert [(e.second, e.label) for e in numbers] == [("b", 2.5), ("d", -1.0)]
    several = load("multilabel", labels=["x", "y", "z"], separator=";")
    assert [e.label for e in several] == [(1, 0, 1), (0, 0, 0)]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".conll"])
def test_tags_from_lists_from_spaced_text_and_from_lines(tmp_path, suffix):
    text = {
        ".jsonl": '{"words": ["Anna", "ruft"], "tags": ["NAME", "VERB"]}\n',
        ".csv": "words,tags\nAnna ruft,NAME VERB\n",
        ".conll": "Anna NAME\nruft VERB\n\n",
    }[suffix]
    (tmp_path / f"de{suffix}").write_text(text)
    task = make_task("tagging", {"test": f"{{language}}{suffix}"}, labels=["NAME", "VERB"])
    (example,) = task.load(tmp_path, "test", "de").examples
    assert example == TaggedSentence(example.id, ("Anna", "ruft"), (0, 1), (True, True))
    assert list(task.metrics) == ["accuracy"]
    assert list(make_task("tagging", labels=["O", "B-X", "I-X"]).metrics) == ["f1", "precision", "recall"]


def own_metric(gold, predicted):
    return 100.0 * (gold[0] == predicted[0])


def percent_of_percent(gold, predicted):
    return 4200.0


def test_metrics_and_headline_come_from_the_recipe_own_ones_too(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "my_metrics", sys.modules[__name__])
    write(tmp_path / "de.csv", ".csv")
    task = make_task(
        "text",
        {"test": "{language}.csv"},
        labels=["bad", "good"],
        columns={"text": "sentence", "label": "mood"},
        metrics=["accuracy", "macro_f1", "my_metrics:own_metric"],
        headline="own_metric",
    )
    split = task.load(tmp_path, "test", "de")
    predictions = task.predict(split, [], [np.array([0.0, 1.0])] * 3)
    scores = task.score(split, predictions)
    assert task.headline == "own_metric"
    # two of three right; F1 of good 2·2/(2+3) = .8, of bad 0
    assert scores == pytest.approx({"accuracy": 200 / 3, "macro_f1": 40.0, "own_metric": 100.0})
    wrong = make_task("text", labels=["bad", "good"], metrics="my_metrics:percent_of_percent")
    with pytest.raises(
        InputError, match=r"'percent_of_percent' gives 4200\.0; expected points from 0 to 100"
    ):
        wrong.score(split, predictions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "labels is None; expected the list of its labels"),
        ({"labels": ["a"]}, r"labels is \['a'\]; expected at least two"),
        ({"labels": ["a", "a", "b"]}, "expected each label once"),
        ({"labels": "a, b"}, "labels is 'a, b'; expected the list"),
        (
            {"labels": ["a", "b"], "columns": {"txt": "x"}},
            "columns: task 'text' has no 'txt'; it has text, label, id",
        ),
        ({"labels": ["a", "b"], "columns": {"text": 3}}, "columns: text is 3; expected the name of a column"),
        ({"labels": ["a", "b"], "metrics": ["f2"]}, "no metric 'f2'; expected accuracy, macro_f1, matthews"),
        ({"labels": ["a", "b"], "metrics": []}, "is given no metric"),
        ({"labels": ["a", "b"], "headline": "f1"}, "headline is 'f1'; expected one of the metrics accuracy"),
        (
            {"labels": ["a", "b"], "metrics": "no.such:f"},
            "task.metrics is 'no.such:f', which cannot be imported",
        ),
        ({"labels": ["a", "b"], "header": "text"}, "header is 'text'; expected the list"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make_task("text", **options)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("text", '{"text": "a"}', r"line 1: no 'label'; there is 'text'"),
        ("text", '{"text": "a", "label": null}', r"line 1: unknown label None; text has a, b"),
        ("text", '{"text": "a", "label": 1.5}', r"line 1: 'label' is 1.5; expected text or a whole number"),
        ("text", '{"text": 3, "label": "a"}', r"line 1: 'text' is 3; expected text"),
        (
            "text",
            '{"text": "\\ud800", "label": "a"}',
            r"'text' has half a surrogate pair, U\+D800, at character 1",
        ),
        ("text", '{"text": "x", "label": "a"', r"line 1: not JSON: .* at character"),
        ("text", "[" * 100_000, r"line 1: JSON that is nested too deeply"),
        ("text", '{"text": "x", "label": ' + "9" * 5000 + "}", r"line 1: not JSON that can be read"),
        ("text", "7", r"line 1: expected an object with columns, got int"),
        ("multilabel", '{"text": "x", "labels": ["a", "c"]}', "unknown label 'c'; multilabel has a, b"),
        ("multilabel", '{"text": "x", "labels": 3}', "'labels' is 3; expected a list of labels"),
        ("regression", '{"text": "x", "value": "n/a"}', "'value' is 'n/a'; expected a number"),
        ("regression", '{"text": "x", "value": NaN}', "'value' is nan; expected a number"),
        ("regression", '{"text": "x", "value": true}', "'value' is True; expected a number"),
        ("tagging", '{"words": ["x"], "tags": ["a", "b"]}', "1 words in 'words', but 2 tags"),
        ("tagging", '{"words": [""], "tags": ["a"]}', "'words' has ''; expected words"),
        ("tagging", '{"words": [], "tags": []}', "'words' is empty"),
        ("tagging", '{"words": ["x"], "tags": ["c"]}', "unknown tag 'c'; tagging has a, b"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path, name, line, message):
    (tmp_path / "de.jsonl").write_text(line + "\n", encoding="utf-8")
    options = {} if name == "regression" else {"labels": ["a", "b"]}
    with pytest.raises(InputError, match=message):
        make_task(name, {"test": "{language}.jsonl"}, **options).load(tmp_path, "test", "de")


def test_a_parquet_file_that_is_none_and_one_without_the_column(tmp_path):
    task = make_task("text", {"test": "{language}.parquet"}, labels=["a", "b"])
    (tmp_path / "de.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match=r"de\.parquet is not a Parquet file that can be read"):
        task.load(tmp_path, "test", "de")
    parquet.write_table(pa.table({"text": ["x"]}), tmp_path / "fr.parquet")
    with pytest.raises(InputError, match=r"fr\.parquet: no column 'label'; it has 'text'"):
        task.load(tmp_path, "test", "fr")
    with pytest.raises(InputError, match=r"the ending '\.xlsx' is not one of \.tsv"):
        (tmp_path / "it.xlsx").write_text("")
        make_task("text", {"test": "{language}.xlsx"}, labels=["a", "b"]).load(tmp_path, "test", "it")


def test_an_empty_text_is_noted(tmp_path):
    (tmp_path / "de.csv").write_text("text,label\na,a\n ,b\n")
    split = make_task("text", {"test": "{language}.csv"}, labels=["a", "b"]).load(tmp_path, "test", "de")
    assert split.notes == ("1 of 2 examples have an empty text, the first is '3'",)


def test_ids_that_stand_for_several_examples_are_noted(tmp_path):
    (tmp_path / "de.csv").write_text("text,label,id\na,a,7\nb,b,7\n")
    task = make_task("text", {"test": "{language}.csv"}, labels=["a", "b"], columns={"id": "id"})
    (note,) = task.load(tmp_path, "test", "de").notes
    assert note.endswith("1 ids stand for several examples, '7' for 2 of them")
