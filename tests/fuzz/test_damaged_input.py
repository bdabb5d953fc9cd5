"""Real files, damaged in every way we could think of: a right result, or one sentence that says what is wrong.

Each input is a good file with one to three of: bytes cut, replaced, inserted; lines dropped, doubled, moved, joined; a
field set to a strange value or taken away. The same seed gives the same inputs; `make fuzz` tries 100,000 of them.
"""

import copy
import json
import os
import random
import shutil
import warnings

import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pyarrow import parquet
from typer.testing import CliRunner

from fishlens.cli import app
from fishlens.errors import InputError
from fishlens.journal import JournalWriter, export_runs, load_runs
from fishlens.recipe.loading import load_recipe
from fishlens.sweep.study import load_study
from fishlens.training.tasks import make_task

INPUTS = int(os.environ.get("FISHLENS_FUZZ", "2000"))
"""How many inputs all tests of this file try together."""
SHARES = {
    "files": 0.7,
    "journals": 0.16,
    "exports": 0.005,
    "recipes": 0.085,
    "studies": 0.04,
    "commands": 0.01,
}
LABELS = {"labels": ["x", "y"]}
STRANGE = [
    None, True, -1, 0, 1.5, 1e300, 10**30, "", "n/a", "\ud800", "\x00", "NaN", "Infinity", [], [None], {}, {"a": {}},
    "x" * 2000, [["deep"]] * 3,
]  # fmt: skip


def a_few(kind):
    """So many of the inputs, the same ones every time, and no search for smaller ones by the clock."""
    return lambda test: seed(0)(
        settings(
            max_examples=max(10, round(INPUTS * SHARES[kind])),
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )(test)
    )


# -- damage -----------------------------------------------------------------------------------------------------------


def damaged(data: bytes, generator: random.Random) -> bytes:
    """The bytes with one to three kinds of damage."""
    for _ in range(generator.randint(1, 3)):
        data = generator.choice(DAMAGE)(data, generator)
    return data


def _cut(data, generator):
    begin = generator.randint(0, len(data))
    return data[:begin] + data[begin + generator.choice([1, 2, 10, len(data)]) :]


def _replaced(data, generator):
    at = generator.randint(0, max(len(data) - 1, 0))
    return data[:at] + generator.choice(BYTES) + data[at + 1 :]


def _inserted(data, generator):
    at = generator.randint(0, len(data))
    return data[:at] + generator.choice(BYTES) * generator.choice([1, 1, 1, 50]) + data[at:]


def _lines(data, generator):
    lines = data.split(b"\n")
    one, other = generator.randrange(len(lines)), generator.randrange(len(lines))
    change = generator.randrange(4)
    if change == 0:
        del lines[one]
    elif change == 1:
        lines.insert(other, lines[one])
    elif change == 2:
        lines[one], lines[other] = lines[other], lines[one]
    else:
        lines[one] = lines[one] + lines[other]
    return b"\n".join(lines)


def _strange(data, generator):
    """A value somewhere in JSON set to what nobody expects, or taken away."""
    text = data.decode("utf-8", "replace")
    whole = None
    try:
        whole, lines = json.loads(text), None
    except ValueError:
        lines = text.split("\n")
    if lines is None:
        return json.dumps(_changed(whole, generator)).encode("utf-8", "surrogatepass")
    at = generator.randrange(len(lines))
    try:
        lines[at] = json.dumps(_changed(json.loads(lines[at]), generator))
    except ValueError:
        lines[at] = str(generator.choice(STRANGE))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _changed(value, generator):
    if isinstance(value, (dict, list)) and value and generator.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = generator.choice(list(keys))
        if generator.random() < 0.15:
            del value[key]
        else:
            value[key] = _changed(value[key], generator)
        return value
    return copy.deepcopy(generator.choice(STRANGE))


BYTES = [
    b"\x00",
    b"\xff",
    b"\t",
    b"\n",
    b"\r",
    b'"',
    b",",
    b"{",
    b"}",
    b"[",
    b":",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"9",
]
DAMAGE = [_cut, _replaced, _inserted, _lines, _strange, _strange]


def says_one_sentence(error):
    text = str(error)
    assert text.strip() and "\n" not in text and len(text) < 2500, text
    text.encode()  # can be printed


# -- files of tasks ---------------------------------------------------------------------------------------------------

WORD = "\t_\t_\t_\t_\t_\t_"
QUESTION = {"id": "1", "question": "Wo?", "answers": [{"text": "Köln", "answer_start": 3}]}
SQUAD = json.dumps(
    {"data": [{"paragraphs": [{"context": "In Köln.", "qas": [QUESTION, {**QUESTION, "id": "2"}]}]}]}
)
CHOICE = {"premise": "p", "choice1": "a", "choice2": "b", "question": "cause", "label": 0, "idx": 1}
LINES = [
    {
        "text": "ä",
        "second": "b",
        "label": "x",
        "labels": ["x"],
        "value": 1.5,
        "words": ["a", "b"],
        "tags": ["x", "y"],
    }
]
TABLE = "".join(json.dumps(row) + "\n" for row in LINES * 3)
CONLLU = f"# sent_id = 1\n1-2\tam{WORD}\t_\n1\tan\t_\tADP{WORD}\n2\tdem\t_\tDET{WORD}\n\n1\tc\t_\tX{WORD}\n\n"
FILES = {
    "nli": ("tsv", {}, 'a "q"\tb\tneutral\nc\td\tentailment\n'),
    "topic": ("tsv", {}, 'index_id\tcategory\ttext\n1\ttravel\t"Er sagte ""Ja"""\n2\tsports\tzwei\n'),
    "choice": ("jsonl", {}, "".join(json.dumps({**CHOICE, "idx": i}) + "\n" for i in range(3))),
    "qa": ("json", {"test": "mlqa"}, SQUAD),
    "pos": ("conllu", {}, CONLLU),
    "ner": ("txt", {}, "Ada B-PER\nsagt O\n\nKöln B-LOC\n"),
    "text": ("csv", LABELS, 'text,label\n"a, b",x\nc,y\n'),
    "pair": ("jsonl", LABELS, TABLE),
    "multilabel": ("jsonl", LABELS, TABLE),
    "regression": ("jsonl", {}, TABLE),
    "tagging": ("jsonl", LABELS, TABLE),
    "text parquet": ("parquet", LABELS, None),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def good_bytes(name, folder):
    text = FILES[name][2]
    if text is not None:
        return text.encode()
    parquet.write_table(pa.table({"text": ["a", "b"], "label": ["x", "y"]}), folder / "good.parquet")
    return (folder / "good.parquet").read_bytes()


@a_few("files")
@given(st.sampled_from(list(FILES)), st.integers(0, 2**32))
def test_files_of_tasks(folder, name, number):
    suffix, options, _ = FILES[name]
    path = folder / f"de.{suffix}"
    path.write_bytes(damaged(good_bytes(name, folder), random.Random(number)))
    task = make_task(name.split()[0], {"test": str(folder / f"{{language}}.{suffix}")}, **options)
    try:
        split = task.load(folder, "test", "de")
    except InputError as error:
        says_one_sentence(error)
        assert path.name in str(error)
        return
    assert len(split)
    for example in split:
        for row in task.row_texts(example):
            for text in row:
                text.encode()  # whatever was accepted can go to a tokenizer


# -- what runs leave behind -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(folder):
    start = {
        "factors": {"task": "t", "schedule": "gu", "seed": 1},
        "blocks": {"b0": 5, "head": 5},
        "device": "cpu",
    }
    with JournalWriter.open(folder / "good" / "run", start) as writer:
        for step in (0, 5):
            writer.write("fisher", step, trace={"b0": 1.5, "head": 2.0}, stderr={"b0": 0.1, "head": 0.1},
                         trainable={"b0": True, "head": True}, examples=8, purpose="track", seconds=0.1)  # fmt: skip
            writer.write("train", step + 1, loss=0.5, learning_rate=1e-3, epoch=0.5)
            writer.write("eval", step + 1, split="validation", language="en", metric="accuracy", value=50.0,
                         headline=True, examples=8, best=True)  # fmt: skip
        writer.write("unfreeze", 0, event=0, chosen=["b0"], trainable=["b0", "head"], scores={"b0": 1.0})
        writer.write(
            "eval", 6, split="test", language="de", metric="accuracy", value=40.0, headline=True, examples=8
        )
        writer.write("note", 6, level="warning", text="careful")
        writer.close("finished", best_step=6)
    return (folder / "good" / "run" / "journal-1.jsonl").read_bytes()


@a_few("journals")
@given(st.integers(0, 2**32))
def test_journals(folder, run, number):
    generator = random.Random(number)
    place = folder / "damaged" / "run"
    place.mkdir(parents=True, exist_ok=True)
    (place / "journal-1.jsonl").write_bytes(damaged(run, generator))
    strict = generator.random() < 0.3
    try:
        loaded = load_runs(place.parent, strict=strict)
    except InputError as error:
        says_one_sentence(error)
        return
    assert len(loaded.runs) == 1
    loaded.fisher.trace.sum(), loaded.evaluation.value.mean(), loaded.training.loss.mean()
    if generator.random() < 0.05:
        export_runs(loaded, folder / "exported")
        assert len(load_runs(folder / "exported").runs) == 1


@a_few("exports")
@given(st.integers(0, 2**32))
def test_exports(folder, run, number):
    generator = random.Random(number)
    place = folder / "export"
    shutil.rmtree(place, ignore_errors=True)  # what an earlier input damaged is not overwritten
    export_runs(load_runs(folder / "good"), place)
    file = generator.choice(sorted(place.glob("*.parquet")))
    if generator.random() < 0.5:
        table = parquet.read_table(file)
        column = generator.choice(table.column_names)
        dropped = table.drop_columns([column])
        strange = pa.array([generator.choice(["n/a", "", "x"])] * len(table))
        parquet.write_table(
            dropped if generator.random() < 0.5 else dropped.append_column(column, strange), file
        )
    else:
        file.write_bytes(damaged(file.read_bytes(), generator))
    try:
        load_runs(place)
    except InputError as error:
        says_one_sentence(error)


# -- what people write ------------------------------------------------------------------------------------------------

RECIPE = {
    "name": "toy", "seed": 1, "model": "x", "adapter": "seq_bn", "language_adapters": {"en": "a", "de": "b"},
    "task": {"name": "text", "labels": ["a", "b"], "columns": {"text": "t"}, "metrics": ["accuracy"]},
    "data": {"root": ".", "source": "en", "targets": ["de"], "test": {"en": "e.tsv", "de": "d.tsv"}},
    "train": {"steps": 5, "batch_size": 4}, "schedule": {"name": "gu", "every": 2}, "tracking": {"every": 2},
    "variants": [{"when": {"seed": 1}, "set": {"train.steps": 6}}],
}  # fmt: skip
STUDY = {
    "name": "s",
    "recipe": "toy.yaml",
    "set": {"train.steps": 3},
    "vary": {"seed": [0, 1], "schedule.name": ["gu"]},
}


def written(tree, generator):
    """A tree as YAML, with strange values or damaged text."""
    tree = json.loads(json.dumps(tree))
    for _ in range(generator.randint(0, 2)):
        tree = _changed(tree, generator)
    text = yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
    return damaged(text, generator) if generator.random() < 0.6 else text


@a_few("recipes")
@given(st.integers(0, 2**32))
def test_recipes(folder, number):
    path = folder / "toy.yaml"
    path.write_bytes(written(RECIPE, random.Random(number)))
    try:
        recipe = load_recipe(path)
        make_task(recipe.task.name, **recipe.task.options)
    except InputError as error:
        says_one_sentence(error)


@a_few("studies")
@given(st.integers(0, 2**32))
def test_studies(folder, number):
    path = folder / "study.yaml"
    path.write_bytes(written(STUDY, random.Random(number)))
    try:
        for grid in load_study(path).grids:
            grid.combinations()
    except InputError as error:
        says_one_sentence(error)


WORDS = [
    "runs", "recipes", "schedule", "export", "watch", "check", "evaluate", "track", "sweep", "--json", "--set", "-s",
    "seed=3", "seed=", "=", "train.steps=-1", "x.y.z=1", "task.name=[", "--run", "--every", "-1", "1e22", "quickstart",
    "nope", "gu", "fun", "--layers", "0", "12", "-o", "--output", "--fields", "--where", "seed=1", "--sort", "", "\x00",
    "--once", "--dry-run", "é", "..", "/dev/null", "--help", "--version",
]  # fmt: skip
HARMLESS = ("runs", "recipes", "schedule", "watch", "evaluate")


@a_few("commands")
@given(st.sampled_from(HARMLESS), st.lists(st.sampled_from(WORDS), max_size=5))
def test_command_lines(folder, run, command, words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = CliRunner().invoke(app, [command, *words, *([str(folder / "good")] * (len(words) % 2))])
    if isinstance(result.exception, InputError):
        says_one_sentence(result.exception)
    else:
        assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exception)


def test_the_damage_is_damage_and_the_same_each_time():
    good = FILES["topic"][2].encode()
    found = [damaged(good, random.Random(n)) for n in range(50)]
    assert found == [damaged(good, random.Random(n)) for n in range(50)]
    assert len(set(found)) > 40 and good not in found[:3]
