"""`runs`, `watch` and `export`: what is shown is what the journals say, and nothing in them can do anything."""

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from typer.testing import CliRunner

from fishlens.cli import app
from fishlens.errors import InputError
from fishlens.journal import JournalWriter, read_run
from fishlens.tracking.watch import plain, sparkline

EVIL = "[red]\x1b[2J\x07[/red]"


def write_run(run_dir, *, end="finished", schedule="fun", steps=4, name="layer.0", **factors):
    known = {"task": "xnli", "schedule": schedule, "seed": 3}
    start = {"factors": known | factors, "blocks": {name: 5, "head": 5}}
    with JournalWriter.open(run_dir, start) as journal:
        for step in range(0, steps, 2):
            fields = {"stderr": {name: 0.1, "head": 0.1}, "trainable": {name: step > 0, "head": True}}
            journal.write(
                "fisher", step, trace={name: float(step), "head": 1.0}, purpose="track", overhead=0.021, examples=8,
                **fields,
            )  # fmt: skip
            journal.write("train", step + 2, loss=1.0 / (step + 1), learning_rate=1e-3)
        for value in (61.5, 60.0):
            journal.write(
                "eval",
                steps,
                split="validation",
                language="en",
                metric="accuracy",
                value=value,
                headline=True,
            )
        for language, value in (("de", 40.0), ("sw", 50.0)):
            journal.write(
                "eval", steps, split="test", language=language, metric="accuracy", value=value, headline=True
            )
        journal.write("unfreeze", 2, event=1, chosen=[name], runner_up="head", margin=2.5)
        journal.write("note", 2, level="warning", text=f"careful {EVIL}")
        if end:
            journal.write("end", steps, status=end, best_step=2)


def fishlens(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_runs_lists_status_factors_best_validation_and_mean_test(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", end="failed", schedule="gu")
    rows = json.loads(fishlens("runs", tmp_path, "--json"))
    assert [(r["run"], r["status"], r["schedule"], r["steps"]) for r in rows] == [
        ("a", "finished", "fun", 4),
        ("b", "failed", "gu", 4),
    ]
    assert [(r["validation"], r["test"]) for r in rows] == [(61.5, 45.0)] * 2
    table = [line.split() for line in fishlens("runs", tmp_path).splitlines()]
    assert table[0] == ["date", "run", "status", "steps", "task", "model", "adapter", "schedule", "seed", "validation",
                        "test", "path"]  # fmt: skip
    assert table[1][2:-1] == ["a", "finished", "4", "xnli", "fun", "3", "61.5", "45.0"]


def test_the_average_of_a_run_is_without_its_source_as_in_the_report(tmp_path):
    write_run(tmp_path / "a", source="de")
    write_run(tmp_path / "b", source="sw")
    assert [row["test"] for row in json.loads(fishlens("runs", tmp_path, "--json"))] == [50.0, 40.0]


def study(folder):
    for rate, seed in ((0.002, 0), (0.002, 1), (0.0005, 0)):
        write_run(folder / f"{rate}-{seed}", seed=seed, **{"train.learning_rate": rate})


def names(*words):
    return [row["run"] for row in json.loads(fishlens("runs", *words, "--json"))]


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("train.learning_rate=0.002", ["0.002-0", "0.002-1"]),
        ("train.learning_rate=2e-3", ["0.002-0", "0.002-1"]),
        ("train.learning_rate<0.001", ["0.0005-0"]),
        ("seed!=0", ["0.002-1"]),
        ("schedule.name=fun", ["0.0005-0", "0.002-0", "0.002-1"]),
        ("schedule=gu", []),
        ("error=", ["0.0005-0", "0.002-0", "0.002-1"]),
    ],
)
def test_runs_are_chosen_by_any_field(tmp_path, condition, found):
    study(tmp_path)
    assert names(tmp_path, "--where", condition) == found


def test_runs_are_sorted_by_fields_and_what_is_not_said_comes_last(tmp_path):
    study(tmp_path)
    write_run(tmp_path / "none", seed=None)
    order = ["--sort", "-seed", "--sort", "train.learning_rate"]
    assert names(tmp_path, *order) == ["0.002-1", "0.0005-0", "0.002-0", "none"]


def test_diff_shows_the_fields_that_differ_and_no_other(tmp_path, monkeypatch):
    study(tmp_path / "runs")
    places = [tmp_path / "runs" / name for name in ("0.002-0", "0.0005-0")]
    (row,) = json.loads(fishlens("runs", "--diff", *places, "--json"))
    assert row == {"field": "train.learning_rate", "0.002-0": 0.002, "0.0005-0": 0.0005}
    monkeypatch.chdir(tmp_path)
    shown = fishlens("runs", "--diff", "0.002-0", "0.0005-0").splitlines()
    assert shown[1].split() == ["train.learning_rate", "0.0005", "0.002"]
    assert "no field differs" in fishlens("runs", "--diff", places[0], _copy(places[0]))


def test_an_empty_list_and_a_field_that_an_old_run_does_not_have_are_no_difference(tmp_path):
    write_run(tmp_path / "old", **{"tracking.languages": []})
    write_run(tmp_path / "new", extra=[])
    assert "no field differs" in fishlens("runs", "--diff", tmp_path / "old", tmp_path / "new")


def _copy(place):
    return shutil.copytree(place, place.parent / "copy")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--where", "seed"], "is not a condition; expected FIELD=VALUE"),
        (["--where", "speed=1"], "no run has a field 'speed'; expected one of .*schedule.*"),
        (["--where", "schedule>gu"], "compares with 'gu'; expected a number after >"),
        (["--sort", "speed"], "no run has a field 'speed'"),
        (["nothing"], "nothing is neither a place nor the name of a run in"),
        (["--diff", "--where", "seed=1"], "--diff compares runs, and here are 1"),
        (["--show", "nothing"], "nothing holds no run, and there is none of this name in"),
    ],
)
def test_a_question_that_cannot_be_answered_is_one_sentence(tmp_path, words, sentence):
    study(tmp_path)
    with pytest.raises(InputError, match=sentence):
        fishlens("runs", tmp_path, *words)


def test_show_says_what_a_run_was_made_of(tmp_path):
    write_run(tmp_path / "a", source="en", targets=["de", "sw"])
    (tmp_path / "a" / "recipe.yaml").write_text("name: a\ntrain:\n  learning_rate: 0.002\n")
    found = json.loads(fishlens("runs", tmp_path, "--show", "a", "--json"))
    assert found["recipe"].endswith("learning_rate: 0.002\n")
    assert found["data"] == {"task": "xnli", "source": "en", "targets": ["de", "sw"]}
    assert set(found["files"]) == {"journal-1.jsonl", "recipe.yaml"} and found["run"]["steps"] == 4
    shown = fishlens("runs", "--show", tmp_path / "a")
    assert "learning_rate: 0.002" in shown and "targets  de, sw" in shown and "examples of" not in shown


def test_show_names_the_examples_that_each_language_and_series_measured(tmp_path):
    with JournalWriter.open(tmp_path / "a", {"factors": {"source": "en"}, "blocks": {"head": 5}}) as journal:
        for step, kind in (
            (0, {"examples_ids": ["7", "3"]}), (2, {"examples_ids": ["7", "3", "9"]}), (4, {}),
            (0, {"examples_ids": [5], "language": "de"}), (4, {"examples_ids": ["1"], "series": "again"}),
        ):  # fmt: skip
            journal.write("fisher", step, trace={"head": 1.0}, purpose="track", **kind)
        journal.write("end", 4, status="finished")
    found = json.loads(fishlens("runs", "--show", tmp_path / "a", "--json"))["examples of the probes"]
    assert found == {"en": ["7", "3", "9"], "de": [5], "en, series again": ["1"]}


def test_what_an_old_journal_does_not_say_is_read_from_the_recipe_beside_it(tmp_path):
    for name, rate in (("a", 0.002), ("b", 0.01)):
        write_run(tmp_path / name, every=20)
        text = f"name: {name}\nseed: 7\ntrain: {{learning_rate: {rate}, steps: 600}}\nschedule: {{name: gu, every: 9}}"
        (tmp_path / name / "recipe.yaml").write_text(text)
    (row,) = json.loads(fishlens("runs", tmp_path, "--where", "train.learning_rate=0.01", "--json"))
    assert (row["run"], row["train.steps"]) == ("b", 600)
    assert (row["seed"], row["every"], row["schedule"]) == (3, 20, "fun")  # the journal goes before


@pytest.mark.parametrize("text", ["[not a recipe", "just words", "a: &a [1]\nb: {c: *a}\n", ""])
def test_a_recipe_that_is_none_changes_nothing(tmp_path, text):
    write_run(tmp_path / "a")
    (tmp_path / "a" / "recipe.yaml").write_text(text)
    assert names(tmp_path) == ["a"]


def test_runs_needs_no_torch(tmp_path):
    write_run(tmp_path / "a")
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom fishlens.cli import app\n"
        f"for command in (['runs'], ['watch', '--once'], ['export', '-o', {str(tmp_path / 'out')!r}]):\n"
        f"    assert CliRunner().invoke(app, [*command, {str(tmp_path / 'a')!r}]).exit_code == 0, command\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_watch_shows_curves_state_loss_score_events_and_cost(tmp_path):
    write_run(tmp_path / "a")
    shown = fishlens("watch", tmp_path / "a", "--once")
    assert "a  finished" in shown and "step 4" in shown and "loss 0.3333" in shown
    assert "test sw accuracy 50" in shown and "2.10% of training" in shown
    lines = {line.split()[0]: line for line in shown.splitlines() if line.startswith(("layer.0", "head"))}
    assert "▁█" in lines["layer.0"] and lines["layer.0"].split()[-1] == "trains"
    assert list(lines) == ["head", "layer.0"]  # top block first
    assert "unfroze layer.0 (step 2, leads head by 2.5 s.e.)" in shown


@pytest.mark.parametrize("command", [["runs"], ["watch", "--once"]])
def test_names_from_journals_are_never_markup_nor_terminal_control(tmp_path, command):
    write_run(tmp_path / "a", schedule=EVIL, name=EVIL)
    shown = fishlens(*command, tmp_path / "a")
    assert "\x1b[2J" not in shown and "\x07" not in shown and "[red]\\x1b[2J" in shown


def test_watch_tells_a_died_run_from_a_running_one(tmp_path):
    write_run(tmp_path / "here", end=None)
    assert read_run(tmp_path / "here").status == "running"  # this process
    text = (tmp_path / "here" / "journal-1.jsonl").read_text()
    (tmp_path / "gone").mkdir()
    dead = text.replace('"began":"', '"began":"1')
    (tmp_path / "gone" / "journal-1.jsonl").write_text(dead)
    assert "gone  died" in fishlens("watch", tmp_path / "gone")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "journal-1.jsonl").write_text(text.replace('"host":"', '"host":"not-'))
    assert "elsewhere  unfinished" in fishlens("watch", tmp_path / "elsewhere")


def test_watch_as_json_gives_the_latest_record_of_each_kind(tmp_path):
    write_run(tmp_path / "a")
    latest = json.loads(fishlens("watch", tmp_path / "a", "--json"))
    assert latest["status"] == "finished" and latest["latest"]["train"]["step"] == 4


def test_export_writes_one_row_per_run_step_and_block(tmp_path):
    write_run(tmp_path / "runs" / "a")
    write_run(tmp_path / "runs" / "b", steps=6)
    told = json.loads(fishlens("export", tmp_path / "runs", "-o", tmp_path / "data", "--json"))
    frame = pd.read_parquet(tmp_path / "data" / "fisher.parquet")
    assert told["rows"]["fisher"] == len(frame) == 2 * 2 + 2 * 3
    assert not frame.duplicated(["run", "step", "block"]).any() and set(frame.run) == {"a", "b"}
    assert pd.read_parquet(tmp_path / "data" / "runs.parquet").schedule.tolist() == ["fun", "fun"]
    assert not [path for path in (tmp_path / "data").iterdir() if path.name.startswith(".")]


def test_runs_whose_factors_are_of_different_kinds_can_be_exported(tmp_path):
    for name, seed in (("a", 3), ("b", "three"), ("c", None)):
        JournalWriter.open(tmp_path / "runs" / name, {"factors": {"seed": seed}}).close("finished")
    fishlens("export", tmp_path / "runs", "-o", tmp_path / "data")
    assert pd.read_parquet(tmp_path / "data" / "runs.parquet").seed.tolist()[:2] == ["3", "three"]


@pytest.mark.parametrize("command", ["runs", "watch", "export"])
def test_where_there_is_no_run_one_sentence_says_so(tmp_path, command):
    with pytest.raises(InputError, match="holds no run"):
        fishlens(command, tmp_path)


def test_a_sparkline_is_relative_to_its_largest_value_and_leaves_gaps():
    assert sparkline([0.0, 0.5, 1.0], 10) == "▁▅█"
    assert sparkline([float("nan"), 2.0, float("inf")], 10) == " █ "
    assert sparkline([0.0] * 5, 10) == "▁" * 5 and sparkline([], 10) == ""
    assert sparkline([1.0, 3.0, 4.0, 4.0], 2) == "▅█"


def test_plain_text_is_one_printable_line():
    assert plain("a\nb\x1b[0m\u202e") == "a\\nb\\x1b[0m\\u202e" and plain("Übung ☃") == "Übung ☃"
