"""What all tasks share: making them by name, seeded subsets, tables of predictions."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from fishlens.errors import InputError
from fishlens.recipe.loading import load_recipe
from fishlens.training.tasks import TASKS, Prediction, Split, make_task, options_of, subset, write_predictions
from fishlens.training.tasks.classification import TextExample
from fishlens.training.tasks.nli import NLI

OPTIONS = {name: {"labels": ["no", "yes"]} for name in ("text", "pair", "multilabel", "tagging")}
"""what a task cannot do without"""
SPLIT = Split("train", "en", "file.tsv", tuple(range(100)), ("a note",))


def test_a_subset_is_seeded_in_file_order_and_keeps_what_is_known_of_the_split():
    a, b = subset(SPLIT, 10, seed=1), subset(SPLIT, 10, seed=1)
    assert a == b != subset(SPLIT, 10, seed=2)
    assert list(a) == sorted(set(a)) and len(a) == 10
    assert (a.source, a.notes) == (SPLIT.source, SPLIT.notes)


def test_a_smaller_subset_is_part_of_a_larger_one():
    sizes = [set(subset(SPLIT, n, seed=3)) for n in (1, 10, 50, 100)]
    assert sizes[0] < sizes[1] < sizes[2] < sizes[3] == set(SPLIT)


def test_a_subset_is_the_same_on_every_machine():
    assert list(subset(SPLIT, 5, seed=0)) == [35, 40, 52, 75, 97]


@pytest.mark.parametrize("n", [0, 101])
def test_a_subset_that_cannot_be_is_refused(n):
    with pytest.raises(InputError, match=rf"{n} examples were asked for, but file\.tsv has 100"):
        subset(SPLIT, n, seed=0)


@pytest.mark.parametrize("name", list(TASKS))
def test_every_task_keeps_the_contract(name):
    from fishlens.fisher.outputs import OUTPUTS

    task = make_task(name, **OPTIONS.get(name, {}))
    assert task.name == name
    assert task.output in OUTPUTS
    assert set(task.layout.places) == {"train", "validation", "test"}


def test_a_task_of_ones_own():
    assert isinstance(make_task("fishlens.training.tasks.nli:NLI"), NLI)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "nil",
            {},
            "unknown task 'nil'; expected nli, qa, choice, pos, ner, topic, text, .*, or module:Class of your own",
        ),
        ("no.such:Task", {}, "no.such:Task.*cannot be imported"),
        ("fishlens.training.tasks.nli:No", {}, "cannot be imported"),
        ("collections:OrderedDict", {}, "is not a subclass of fishlens.training.tasks.Task"),
        ("nli", {"stride": 1}, "task 'nli' has no option 'stride': it has none"),
        ("qa", {"strid": 1}, "no option 'strid': it has test, stride, max_question, n_best, max_answer"),
        ("qa", {"test": "squad"}, "test is 'squad'; expected xquad or mlqa"),
        ("qa", {"n_best": 0}, "n_best is 0; expected at least 1"),
        ("qa", {"stride": -1}, "stride is -1; expected at least 0"),
        ("choice", {"prompt": "x"}, "unknown prompt 'x'; expected copa, published"),
        ("ner", {"types": "PER"}, "types is 'PER'; expected a list"),
    ],
)
def test_wrong_names_and_options_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        make_task(name, **options)


def test_predictions_are_written_as_json_lines(tmp_path):
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, [Prediction("1", ["Köln"], "Köln"), Prediction("2", ["O", "B-PER"], None)])
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]] == [
        {"id": "1", "gold": ["Köln"], "predicted": "Köln"},
        {"id": "2", "gold": ["O", "B-PER"], "predicted": None},
    ]
    assert "Köln" in path.read_text(encoding="utf-8")


def test_tasks_load_without_torch():
    code = (
        "import sys; from fishlens.training.tasks import TASKS, make_task; [make_task(n) for n in list(TASKS)[:6]];"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


DOCUMENT = (Path(__file__).parents[3] / "docs" / "tasks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", list(TASKS))
def test_the_document_names_every_task_option_and_place(name):
    task = make_task(name, **OPTIONS.get(name, {}))
    assert f"| `{name}` |" in DOCUMENT
    for option in options_of(type(task)):
        assert f"| `{option}` |" in DOCUMENT
    for place in task.layout.of("train"):
        assert f"`{place.pattern}`" in DOCUMENT


def test_the_documents_own_task_works(tmp_path):
    block = textwrap.dedent(DOCUMENT[DOCUMENT.index("    from fishlens.training.tasks import SPLITS") :])
    names = {}
    exec(block, names)
    (tmp_path / "sentiment").mkdir()
    (tmp_path / "sentiment" / "test-de.txt").write_text("positive Schön!\n", encoding="utf-8")
    task = names["Sentiment"]()
    assert task.load(tmp_path, "test", "de").examples == (TextExample("1", "Schön!", None, 1),)
    (tmp_path / "sentiment" / "test-de.txt").write_text("neutral Na ja\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 1: unknown label 'neutral'; sentiment has negative, positive"):
        task.load(tmp_path, "test", "de")


def test_the_documents_own_recipe_is_a_recipe(tmp_path):
    """The first example of the page, as somebody would type it."""
    block = textwrap.dedent(DOCUMENT[DOCUMENT.index("    task:\n      name: text") :].split("\n\n")[0])
    recipe = load_recipe({"name": "own", "model": "x", "train": {"steps": 1}, **yaml.safe_load(block)})
    task = make_task(recipe.task.name, {"train": recipe.data.train}, **recipe.task.options)
    (tmp_path / "moods").mkdir()
    (tmp_path / "moods" / "train-en.csv").write_text("sentence,mood\nYes!,positive\n", encoding="utf-8")
    assert task.load(tmp_path, "train", "en").examples == (TextExample("2", "Yes!", None, 1),)
    assert (task.headline, list(task.metrics)) == ("macro_f1", ["accuracy", "macro_f1"])
