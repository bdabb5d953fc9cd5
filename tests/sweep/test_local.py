"""The local engine: what is missing is run, what is finished is left alone, what fails is named."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from fishlens.cli import app
from fishlens.errors import InputError
from fishlens.sweep.local import run_locally
from fishlens.sweep.plan import Status, plan, state_of
from fishlens.sweep.study import load_study

TRACKIO = """
import json, os
def init(project, name, config): config = dict(config); write(config=config)
def log(values, step): write(step=step, values=values)
def finish(): write(finished=True)
def write(**what):
    with open(os.environ["KEPT"], "a") as file: print(json.dumps(what), file=file)
"""


def test_a_sweep_runs_what_is_missing_and_names_what_fails(study_file, tmp_path, monkeypatch):
    """Each run reports to the dashboards of its recipe (here a module that stands for trackio). The folder in which the
    sweep is started has files that are called as libraries are, and one run's own folder cannot be made."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("random", "adapters", "torch"):
        (tmp_path / "here" / f"{name}.py").write_text("raise SystemExit('a file of the user was imported')")
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "trackio.py").write_text(TRACKIO)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "library"))
    monkeypatch.setenv("KEPT", str(tmp_path / "kept.jsonl"))
    study = load_study(study_file)
    study.set["report_to"] = ["trackio"]
    planned = plan(study, tmp_path / "runs")
    assert [run.name for run in planned] == ["toy-gu-seed0", "toy-gu-seed1", "toy-fun-seed0", "toy-fun-seed1"]
    assert {run.recipe["tracking"]["every"] for run in planned} == {4}

    planned[0].recipe["data"]["root"] = "/nowhere/to-be-found"
    planned[2] = replace(planned[2], folder=study_file / "below a file")
    outcomes = {one.name: one.error for one in run_locally([planned[2], *planned[:2]], jobs=1)}
    assert "Not a directory" in outcomes["toy-fun-seed0"]
    assert outcomes["toy-gu-seed1"] is None, "the failure of one run does not stop the others"
    assert "/nowhere/to-be-found" in outcomes["toy-gu-seed0"]
    assert "output.log" in outcomes["toy-gu-seed0"]

    told = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    assert (told[0]["config"]["schedule"], told[0]["config"]["seed"], told[-1]) == (
        "gu",
        "1",
        {"finished": True},
    )
    assert any("fisher_sum" in line.get("values", {}) for line in told)

    again = {run.name: run for run in plan(study, tmp_path / "runs")}
    assert {name for name, run in again.items() if not run.is_due} == {"toy-gu-seed1"}
    assert again["toy-gu-seed1"].seconds > 0


def test_results_of_another_recipe_are_not_taken_for_this_one(study_file, tmp_path):
    folder = tmp_path / "runs/study/toy-gu-seed0"
    planned = plan(load_study(study_file), tmp_path / "runs")
    from fishlens.recipe.loading import load_recipe, recipe_text

    folder.mkdir(parents=True)
    (folder / "journal-1.jsonl").write_text(
        json.dumps({"kind": "start", "format": 1, "attempt": 1, "time": 0.0}) + "\n"
    )
    (folder / "recipe.yaml").write_text(
        recipe_text(load_recipe(planned[0].recipe, overrides=["train.steps=9"]))
    )
    with pytest.raises(InputError, match=r"toy-gu-seed0 holds a run made with another recipe: train\.steps"):
        plan(load_study(study_file), tmp_path / "runs")


def test_two_runs_of_one_name_are_refused(study_file, tmp_path):
    text = study_file.read_text().replace("- 1\n", "- 0\n")
    study_file.write_text(text)
    with pytest.raises(InputError, match="plans 'toy-gu-seed0' 2 times"):
        plan(load_study(study_file), tmp_path / "runs")


def test_a_run_does_not_outlive_the_sweep_that_started_it(study_file, tmp_path, wait_until):
    """The sweep is killed (no signal handler of its own can help): the run's process ends too."""
    run = plan(load_study(study_file), tmp_path / "runs")[0]
    run.recipe["train"]["steps"] = 100_000
    code = (
        "import json, sys, time; from pathlib import Path\n"
        "from fishlens.sweep.execute import start\n"
        "process = start(Path(sys.argv[1]), json.loads(sys.argv[2]), 1)\n"
        "print(process.pid, flush=True); time.sleep(600)"
    )
    sweep = subprocess.Popen(
        [sys.executable, "-c", code, str(run.folder), json.dumps(run.recipe)],
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = int(sweep.stdout.readline())
    wait_until(lambda: state_of(run.folder)[0] is Status.INTERRUPTED)  # its journal is open
    (held,) = run_locally([run], jobs=1)  # another sweep finds it
    assert held.held and held.error is None
    sweep.kill()
    wait_until(lambda: not alive(pid))


def test_the_plan_is_printed_and_nothing_is_run(study_file, tmp_path):
    result = CliRunner().invoke(
        app, ["sweep", str(study_file), "--runs", str(tmp_path / "runs"), "--dry-run"]
    )
    assert result.exit_code == 0, result.output
    assert "4 runs: 4 new" in result.output
    assert "toy-fun-seed1" in result.output
    assert "when the first one has finished" in " ".join(result.output.split())
    assert not (tmp_path / "runs").exists()


def test_a_dashboard_that_is_not_installed_is_named_before_any_run(study_file, tmp_path, monkeypatch):
    monkeypatch.setattr("fishlens.tracking.reporters.find_spec", lambda name: None)
    words = ["sweep", str(study_file), "--runs", str(tmp_path / "runs"), "-s", "report_to=[trackio]"]
    with pytest.raises(
        InputError, match="reporting to trackio needs a package that is not installed: pip install"
    ):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert not (tmp_path / "runs").exists()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_log_that_is_a_link_or_a_pipe_of_a_strangers_is_not_written_to(study_file, tmp_path):
    (run,) = plan(load_study(study_file), tmp_path / "runs")[:1]
    run.folder.mkdir(parents=True)
    (tmp_path / "precious").write_text("mine")
    (run.folder / "output.log").symlink_to(tmp_path / "precious")
    (outcome,) = run_locally([run], jobs=1)
    assert "symbolic link" in outcome.error and (tmp_path / "precious").read_text() == "mine"
    (run.folder / "output.log").unlink()
    (run.folder / "output.log").hardlink_to(tmp_path / "precious")
    (outcome,) = run_locally([run], jobs=1)
    assert "hard link" in outcome.error and (tmp_path / "precious").read_text() == "mine"
    (run.folder / "output.log").unlink()
    os.mkfifo(run.folder / "output.log")
    (outcome,) = run_locally([run], jobs=1)
    assert "output.log" in outcome.error


def test_values_of_any_length_give_folders_that_can_be_made(study_file, tmp_path):
    study = load_study(study_file)
    study.grids[0].vary["tracking.blocks"] = [{"x" * 300: ["*.adapters.*"]}, {"x" * 301: ["*.adapters.*"]}]
    names = {run.name for run in plan(study, tmp_path / "runs")}
    assert len(names) == 8 and all(len(name.encode()) <= 150 for name in names)
