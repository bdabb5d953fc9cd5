"""Whose run a training is: a name is taken in one step, and a copied checkpoint never writes into the original."""

import shutil
from pathlib import Path

import pytest

from fishlens import FisherCallback, load_runs
from fishlens.journal import JournalWriter


def test_scripts_that_begin_in_one_moment_each_get_a_run(tmp_path, monkeypatch, make_model, make_trainer):
    monkeypatch.chdir(tmp_path)
    opened = JournalWriter.open.__func__

    def after_another(cls, run_dir, *arguments, **named):
        """Between the choice of the name and its journal, another script takes it."""
        monkeypatch.setattr(JournalWriter, "open", classmethod(opened))
        JournalWriter.open(run_dir, {"factors": {"script": "another"}}).close("finished")
        return JournalWriter.open(run_dir, *arguments, **named)

    for number, name in enumerate([None, tmp_path / "runs" / "named"]):
        monkeypatch.setattr(JournalWriter, "open", classmethod(after_another))
        callback = FisherCallback(every=4, run=name)
        make_trainer(make_model(), [callback], output=f"out{number}").train()
        assert callback.off is None
    runs = load_runs("runs").runs.set_index("run")
    assert set(runs.index) == {"out0", "out0-2", "named", "named-2"}
    assert set(runs.index[runs.script == "another"]) == {"out0", "named"}
    assert set(runs.status) == {"finished"}


@pytest.mark.parametrize("where", ["a copy", "a copy of an unfinished run", "the end", "the middle", "moved"])
def test_a_copied_checkpoint_begins_a_run_and_a_runs_own_goes_on_in_it(
    tmp_path, monkeypatch, make_model, make_trainer, where
):
    monkeypatch.chdir(tmp_path)
    arguments = {"save_strategy": "steps", "save_steps": 4, "max_steps": 8}
    made = make_trainer(make_model(), [FisherCallback(every=4)], output="mine", **arguments)
    made.train()
    output = Path(made.args.output_dir)
    if where == "a copy of an unfinished run":
        journal = tmp_path / "runs" / "mine" / "journal-1.jsonl"
        journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    before = load_runs("runs/mine")
    checkpoint = output / ("checkpoint-4" if where != "the end" else "checkpoint-8")
    if where.startswith("a copy"):
        checkpoint = Path(shutil.copytree(checkpoint, tmp_path / "theirs" / "deep" / checkpoint.name))
    elif where == "moved":  # a whole project, to another place
        (tmp_path / "elsewhere").mkdir()
        for folder in (output.relative_to(tmp_path).parts[0], "runs"):
            (tmp_path / folder).rename(tmp_path / "elsewhere" / folder)
        checkpoint = tmp_path / "elsewhere" / checkpoint.relative_to(tmp_path)
        monkeypatch.chdir(tmp_path / "elsewhere")
        journal = Path("runs/mine/journal-1.jsonl")
        journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    arguments["max_steps"] = 12
    callback = FisherCallback(every=4)
    again = make_trainer(make_model(), [callback], output="other", **arguments)
    again.train(resume_from_checkpoint=str(checkpoint))
    assert callback.off is None
    runs = load_runs("runs").runs.set_index("run")
    if where in ("the end", "moved"):
        assert runs.index.tolist() == ["mine"] and runs.attempts["mine"] == 2 and runs.steps["mine"] == 12
        return
    assert load_runs("runs/mine").fisher.equals(before.fisher), "the original is as it was"
    assert runs.attempts.tolist() == [1, 1] and runs.steps["other"] == 12
    notes = load_runs("runs/other").notes.text
    assert notes.str.contains(
        "is a copy of" if "copy" in where else "is of step 4 and the run has finished"
    ).any()
