"""Runs that another machine finished count, known by an export of them alone."""

import json

import pytest
from typer.testing import CliRunner

from fishlens import InputError, load_runs
from fishlens.cli import app
from fishlens.journal import export_runs
from fishlens.journal.recipe_fields import recipe_fields
from fishlens.sweep.elsewhere import with_finished_elsewhere
from fishlens.sweep.plan import Status, plan
from fishlens.sweep.study import load_study


def pretend(run, status="finished", **changes):
    """What a finished run of this plan leaves behind, as far as it matters here."""
    run.folder.mkdir(parents=True)
    fields = {**recipe_fields(run.recipe), **changes}
    start = {
        "kind": "start",
        "format": 1,
        "attempt": 1,
        "time": 100.0,
        "blocks": {"layer.0": 8},
        "factors": fields,
    }
    end = {"kind": "end", "step": 4, "time": 107.0, "status": status}
    lines = [json.dumps({**start, "id": run.name}), json.dumps(end)]
    (run.folder / "journal-1.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def exported(study_file, tmp_path):
    """Exports the planned runs that `choose` keeps, as a study on another machine had them; the plan here."""

    def make(choose=lambda run: True, status="finished", **changes):
        study = load_study(study_file)
        for run in plan(study, tmp_path / "there"):
            if choose(run):
                pretend(run, status, **changes)
        export_runs(load_runs(tmp_path / "there"), tmp_path / "export")
        return plan(study, tmp_path / "here"), tmp_path / "export"

    return make


@pytest.mark.parametrize("form", ["export", "there"])
def test_runs_finished_elsewhere_are_not_due(exported, tmp_path, form):
    planned, _ = exported(lambda run: "seed1" not in run.name)
    found = with_finished_elsewhere(planned, [tmp_path / form])
    for run in found.planned:
        assert run.is_due == ("seed1" in run.name)
        assert run.status is (Status.NEW if run.is_due else Status.ELSEWHERE)
        assert run.seconds == (None if run.is_due else 7.0)
    assert found.others == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train.learning_rate": 0.125}, "train.learning_rate is 0.125"),
        ({"every": 3}, "every is 3 instead of"),
        ({"schedule_first": "select"}, "schedule_first is 'select' instead of None"),
        ({"evaluate.targets.every": 5}, "evaluate.targets.every is 5 instead of None"),
        ({"model": "elsewhere/another"}, "model is 'another'"),
        ({"seed": 7}, "seed is 7"),
        ({"train.precision": "no, then bf16"}, "train.precision is 'no, then bf16'"),
    ],
)
def test_a_run_of_another_recipe_does_not_count_and_is_named(exported, changes, told):
    planned, export = exported(lambda run: run.name.endswith("gu-seed0"), **changes)
    found = with_finished_elsewhere(planned, [export])
    assert all(run.is_due for run in found.planned)
    (other,) = found.others
    assert other.startswith(planned[0].name) and told in other


def test_places_are_another_machines_and_unfinished_runs_are_due(exported):
    planned, export = exported(**{"data.root": "/elsewhere", "language_adapters": None})
    assert not any(run.is_due for run in with_finished_elsewhere(planned, [export]).planned)


def test_a_run_that_did_not_finish_there_is_due_here(exported):
    planned, export = exported(status="interrupted")
    assert all(run.is_due for run in with_finished_elsewhere(planned, [export]).planned)


def test_a_field_younger_than_the_export_had_its_default(exported, monkeypatch):
    planned, export = exported()
    import fishlens.sweep.elsewhere as module

    def younger(where, tables):
        runs = load_runs(where, tables=tables)
        return type(runs)(**{**vars(runs), "runs": runs.runs.drop(columns=["train.weight_decay"])})

    monkeypatch.setattr(module, "load_runs", younger)
    assert not any(run.is_due for run in with_finished_elsewhere(planned, [export]).planned)
    for run in planned:
        run.recipe["train"]["weight_decay"] = 0.5
    assert all(run.is_due for run in with_finished_elsewhere(planned, [export]).planned)


def test_what_is_no_folder_of_runs_is_refused(exported, tmp_path):
    planned, _ = exported()
    with pytest.raises(InputError, match="no such folder"):
        with_finished_elsewhere(planned, [tmp_path / "nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        with_finished_elsewhere(planned, [tmp_path / "empty"])


def test_the_command_counts_them(exported, study_file, tmp_path):
    _, export = exported(lambda run: "seed1" not in run.name)
    command = ["sweep", str(study_file), "--runs", str(tmp_path / "here"), "--have", str(export), "--dry-run"]
    printed = CliRunner().invoke(app, command, catch_exceptions=False)
    assert "4 runs: 2 new, 2 finished elsewhere" in printed.output
    plan_ = json.loads(CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False).stdout)
    assert plan_["counts"]["finished elsewhere"] == 2 and plan_["forecast"]["seconds"] == 14.0
    assert str(export) in plan_["runs"][1]["command"]
