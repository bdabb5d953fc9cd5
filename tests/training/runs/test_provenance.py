"""What made a run's numbers is in its journal, and a run that goes on under other code says so."""

import json
import shutil
import subprocess

import pytest
from typer.testing import CliRunner

from fishlens import own_code
from fishlens.cli import app
from fishlens.journal import first_start, load_runs, provenance, read_run
from fishlens.training.run import train

METRIC = """
from fishlens.training.tasks.topic import Topic
class Mine(Topic):
    name = "mine"
    def score(self, split, predictions):
        return {key: SHARE * value for key, value in super().score(split, predictions).items()}
"""


@pytest.fixture
def own_task(tmp_path, monkeypatch):
    """Writes the module of a task of one's own, as another process would find it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(own_code, "_trusted", None)

    def write(share):
        (tmp_path / "mine_of_test.py").write_text(METRIC.replace("SHARE", str(share)))
        monkeypatch.delitem(__import__("sys").modules, "mine_of_test", raising=False)
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)

    return write


def test_a_metric_that_was_changed_is_named_when_the_run_goes_on(recipe, tmp_path, own_task, caplog):
    own_task(1.0)
    recipe["task"] = {"name": "mine_of_test:Mine"}
    recipe["train"]["steps"], recipe["tracking"], recipe["schedule"] = 2, {"every": None}, {"name": "standard"}
    place = tmp_path / "run"
    train(recipe, place)
    assert "code task.name (mine_of_test:Mine)" in first_start(place)["fingerprints"]
    train(recipe, place)
    assert "other code" not in caplog.text  # it is the same

    own_task(0.5)
    train(recipe, place)
    assert "is other code now" in caplog.text and "its results are as they were" in caplog.text
    (place / "results.json").unlink()
    train(recipe, place)
    (text,) = [text for text in load_runs(place).notes.text if "is other code now" in text]
    assert text.startswith("task.name (mine_of_test:Mine)")


def test_the_commit_and_whether_files_were_changed_since_are_in_the_start_record(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True, cwd=tmp_path)

    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    monkeypatch.chdir(tmp_path)
    assert provenance._state_of.__wrapped__(str(tmp_path)) is None
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "one")
    clean = provenance._state_of.__wrapped__(str(tmp_path))
    assert len(clean["commit"]) == 40 and clean["changed"] is False
    (tmp_path / "a").write_text("2")
    assert provenance._state_of.__wrapped__(str(tmp_path)) == {**clean, "changed": True}


def test_other_libraries_and_another_commit_are_said():
    start = {"versions": {"torch": "0.1"}, "git": {"commit": "0" * 40}, "fingerprints": {"model": "x"}}
    said = provenance.otherwise(start, {})
    assert any(text.startswith("torch was 0.1 when the run began, and is ") for text in said)
    present = provenance.git_state()
    assert any("at commit 000000000000" in text for text in said) == (present is not None)
    now = {"versions": provenance.installed_versions(), "git": present}
    assert provenance.otherwise(now, {}) == []


def test_runs_show_prints_how_a_run_was_made(tmp_path):
    from fishlens.journal import JournalWriter

    start = {"git": {"commit": "f" * 40, "changed": True}, "fingerprints": {"model": "abc123"}, "command": "mine --now"}
    with JournalWriter.open(tmp_path / "run", start) as writer:
        writer.write("train", 1, loss=1.0)
        writer.close("finished")
    printed = CliRunner().invoke(app, ["runs", "--show", str(tmp_path / "run")], catch_exceptions=False).stdout
    for what in ("f" * 40, "abc123", "attempt 1  mine --now", "torch"):
        assert what in printed
    found = json.loads(CliRunner().invoke(app, ["runs", "--show", str(tmp_path / "run"), "--json"]).stdout)
    assert found["git"] == start["git"] and read_run(tmp_path / "run").start["machine"] == found["machine"]
