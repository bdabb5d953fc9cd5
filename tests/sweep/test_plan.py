"""A plan names its runs, knows what has been done, and never runs over somebody else's results."""

import json

import pytest

from fishlens import InputError
from fishlens.sweep.plan import PlannedRun, Status, run_name, state_of
from fishlens.sweep.selection import only


def journal(folder, attempt, *records, torn=""):
    folder.mkdir(exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / f"journal-{attempt}.jsonl").write_text(lines + torn, encoding="utf-8")


START = {"kind": "start", "format": 1, "attempt": 1, "time": 100.0}
TRAIN = {"kind": "train", "step": 1, "time": 101.0, "loss": 1.0}


def end(status):
    return {"kind": "end", "step": 9, "time": 160.0, "status": status}


def test_a_name_tells_what_varies():
    assert run_name("pos", {"schedule.name": "gu-reverse", "seed": 3}) == "pos-gu-reverse-seed3"
    assert (
        run_name("pos", {"train.learning_rate": 5e-4, "tracking.preset": None})
        == "pos-learning_rate_0.0005-preset_None"
    )
    assert "/" not in run_name("pos", {"model": "../models/x"})


def test_a_folder_without_a_journal_is_new(tmp_path):
    assert state_of(tmp_path / "nothing") == (Status.NEW, None)


@pytest.mark.parametrize(
    ("last", "status"),
    [(TRAIN, Status.INTERRUPTED), (end("interrupted"), Status.INTERRUPTED), (end("failed"), Status.FAILED)],
)
def test_a_run_that_did_not_finish_is_due(tmp_path, last, status):
    journal(tmp_path, 1, START, last)
    assert state_of(tmp_path) == (status, None)


def test_a_finished_run_knows_how_long_it_took_over_all_attempts(tmp_path):
    journal(tmp_path, 1, START, TRAIN)
    journal(tmp_path, 2, {**START, "time": 140.0}, end("finished"))
    assert state_of(tmp_path) == (Status.FINISHED, 60.0)


def test_the_tenth_attempt_follows_the_second(tmp_path):
    journal(tmp_path, 2, START, TRAIN)
    journal(tmp_path, 10, START, end("finished"))
    assert state_of(tmp_path)[0] is Status.FINISHED


def test_a_torn_last_line_is_not_the_end(tmp_path):
    journal(tmp_path, 1, START, TRAIN, torn='{"kind": "end", "status": "fin')
    assert state_of(tmp_path) == (Status.INTERRUPTED, None)


def test_an_empty_journal_is_a_run_that_has_not_begun(tmp_path):
    """As a full disk leaves it: the same command begins the run."""
    (tmp_path / "journal-1.jsonl").touch()
    assert state_of(tmp_path) == (Status.NEW, None)


def test_one_run_of_a_study_can_be_asked_for_by_name(tmp_path):
    names = ["topic-gu-seed0", "topic-gu-seed1", "pos-gu-seed0"]
    planned = [PlannedRun(name, tmp_path / name, {}, Status.NEW) for name in names]
    assert [run.name for run in only(planned, ["topic-gu-seed1"])] == ["topic-gu-seed1"]
    assert [run.name for run in only(planned, ["*-seed0", "pos-*"])] == ["topic-gu-seed0", "pos-gu-seed0"]
    assert only(planned, []) == planned
    with pytest.raises(InputError, match=r"no run of the study is called 'nli-\*': it has 3, topic-gu-seed0"):
        only(planned, ["topic-*", "nli-*"])
