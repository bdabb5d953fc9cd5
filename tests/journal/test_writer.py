"""A journal is one file an attempt, one writer a file, and a disk that refuses does not stop the writer."""

import errno
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from fishlens import InputError
from fishlens.journal import JournalWriter, attempts, load_runs, read_run, writer

START = {"factors": {"task": "xnli", "seed": 3}, "blocks": {"layer.0": 10, "layer.1": 10}}


def lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_every_record_is_one_strict_json_object_on_its_own_line(tmp_path):
    with JournalWriter.open(tmp_path / "a", START) as journal:
        journal.write("train", 1, loss=np.float32(0.5), learning_rate=1e-4)
        journal.write(
            "fisher", 1, trace={"layer.0": math.nan, "layer.1": math.inf}, noise_scale={"layer.0": -math.inf}
        )
        journal.write("note", 2, level="info", text="line\nbreak, \u2028 and \udcff")

    def no_constants(name):
        raise AssertionError(f"{name} is not strict JSON")

    text = journal.path.read_text(encoding="utf-8")
    start, train, fisher, note = (json.loads(t, parse_constant=no_constants) for t in text.split("\n")[:-1])
    assert (start["kind"], start["format"], start["attempt"], start["run"]) == ("start", 1, 1, "a")
    assert start["resumed_from_step"] is None and start["versions"]["fishlens"]
    assert train["loss"] == 0.5 and train["step"] == 1 and train["time"] > 1e9
    assert fisher["trace"] == {"layer.0": "NaN", "layer.1": "Infinity"}
    assert fisher["noise_scale"] == {"layer.0": "-Infinity"}
    assert note["text"].startswith("line\nbreak, \u2028 and ")


def test_not_finite_values_come_back_as_floats(tmp_path):
    with JournalWriter.open(tmp_path / "a", START) as journal:
        journal.write("fisher", 0, trace={"layer.0": math.nan, "layer.1": math.inf}, stderr=None)
        journal.write("eval", 0, split="test", language="de", metric="gain", value=-math.inf, unit="nats")
    runs = load_runs(tmp_path)
    assert math.isnan(runs.fisher.trace[0]) and runs.fisher.trace[1] == math.inf
    assert runs.fisher.stderr.isna().all()
    assert runs.evaluation.value[0] == -math.inf


@pytest.mark.parametrize(
    ("kind", "fields", "names"),
    [("los", {}, "los"), ("train", {"los": 1.0}, "los"), ("train", {"loss": 1.0, "kin": 2}, "kin")],
)
def test_what_the_format_does_not_have_cannot_be_written(tmp_path, kind, fields, names):
    journal = JournalWriter.open(tmp_path / "a", START)
    with pytest.raises(ValueError, match=names):
        journal.write(kind, 1, **fields)
    with pytest.raises(TypeError, match="object"):
        journal.write("train", 1, loss=object())
    journal.close()
    assert [r["kind"] for r in lines(journal.path)] == ["start"]


def test_a_new_run_never_begins_where_a_run_already_is(tmp_path):
    JournalWriter.open(tmp_path / "a", START).close("finished")
    with pytest.raises(InputError, match="already holds a run"):
        JournalWriter.open(tmp_path / "a", START)
    assert [attempt for attempt, _ in attempts(tmp_path / "a")] == [1]
    again = JournalWriter.open(tmp_path / "a", START, resumed_from_step=0)
    assert again.path.name == "journal-2.jsonl"


def test_a_run_that_a_living_process_writes_cannot_be_resumed_by_another(tmp_path):
    code = (
        "import sys; from fishlens.journal import JournalWriter\n"
        f"journal = JournalWriter.open({str(tmp_path / 'a')!r}); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as other:
        other.stdout.readline()
        with pytest.raises(InputError, match=f"being written by process {other.pid}"):
            JournalWriter.open(tmp_path / "a", resumed_from_step=5)
        assert read_run(tmp_path / "a").status == "running"
        other.kill()
        other.wait()
        assert read_run(tmp_path / "a").status == "died"
        JournalWriter.open(tmp_path / "a", resumed_from_step=5).close("finished")
    assert read_run(tmp_path / "a").status == "finished"


def test_of_processes_that_open_one_name_at_the_same_moment_one_wins_and_nothing_is_lost(tmp_path):
    code = (
        "import sys\nfrom fishlens import InputError\nfrom fishlens.journal import JournalWriter\n"
        "print(flush=True); sys.stdin.readline()\n"
        f"try:\n    JournalWriter.open({str(tmp_path / 'a')!r}).write('note', 0, text='mine')\n"
        "except InputError as e:\n    sys.exit(str(e))"
    )
    crowd = [subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, stderr=-1) for _ in range(6)]
    for one in crowd:
        one.stdout.readline()
    for one in crowd:
        one.stdin.write(b"\n")
        one.stdin.flush()
    said = [one.communicate()[1].decode().strip() for one in crowd]
    assert sorted(one.returncode for one in crowd) == [0, 1, 1, 1, 1, 1]
    sentences = [text for text in said if text]
    assert all("already holds a run" in text or "has just begun" in text for text in sentences)
    assert [r["kind"] for r in lines(tmp_path / "a" / "journal-1.jsonl")] == ["start", "note"]
    assert len(attempts(tmp_path / "a")) == 1


def test_losing_the_race_for_the_file_itself_is_one_sentence(tmp_path, monkeypatch):
    JournalWriter.open(tmp_path / "a").close()
    monkeypatch.setattr(writer, "attempts", lambda run_dir: [])  # as seen just before the other began
    with pytest.raises(InputError, match="another process has just begun attempt 1"):
        JournalWriter.open(tmp_path / "a")


def test_a_directory_that_cannot_be_written_is_refused_before_the_first_step(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        JournalWriter.open(tmp_path / "file")
    with pytest.raises(InputError, match="Not a directory"):
        JournalWriter.open(tmp_path / "file" / "below")

    def read_only(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(InputError, match=r"cannot write a journal in .*Read-only file system"):
        JournalWriter.open(tmp_path / "a")


class FullDisk:
    """`os.write` of a disk with so many bytes left; `room` may grow."""

    def __init__(self, room):
        self.room, self.real = room, os.write

    def __call__(self, descriptor, data):
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self.real(descriptor, bytes(data[: self.room]))
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 1, 40, 100])
def test_when_the_disk_fills_and_is_freed_again_the_journal_is_whole(tmp_path, monkeypatch, room):
    journal = JournalWriter.open(tmp_path / "a", START)
    disk = FullDisk(room)
    monkeypatch.setattr(os, "write", disk)
    with pytest.warns(UserWarning, match="No space left on device") as caught:
        for step in range(1, 6):
            journal.write("train", step, loss=1.0 / step)
    assert len(caught) == 1  # said once, not at every step
    whole = [r["step"] for r in read_run(tmp_path / "a").records]
    assert whole == list(range(1, len(whole) + 1)) and len(whole) < 5  # a torn tail, ignored meanwhile
    disk.room = 10**6
    journal.write("train", 6, loss=0.0)
    journal.close("finished")
    assert [r["step"] for r in read_run(tmp_path / "a", strict=True).records] == [1, 2, 3, 4, 5, 6, 6]


def test_a_disk_that_stays_full_costs_records_and_says_how_many(tmp_path, monkeypatch):
    journal = JournalWriter.open(tmp_path / "a", START)
    monkeypatch.setattr(os, "write", FullDisk(0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(3):
            journal.write("train", step, loss=1.0)
        journal.close("finished")
    assert "4 records could not be written and are lost" in str(caught[-1].message)
    assert read_run(tmp_path / "a").records == []


def test_memory_for_a_refusing_disk_is_bounded_and_the_gap_is_noted(tmp_path, monkeypatch):
    journal = JournalWriter.open(tmp_path / "a", START)
    disk = FullDisk(0)
    monkeypatch.setattr(os, "write", disk)
    monkeypatch.setattr(writer, "WAITING_LIMIT", 500)
    with pytest.warns(UserWarning, match="No space left"):
        for step in range(20):
            journal.write("train", step, loss=1.0)
    disk.room = 10**6
    journal.write("note", 20, level="info", text="room again")
    journal.close()
    *kept, lost, end = read_run(tmp_path / "a", strict=True).records
    assert 0 < len(kept) < 20
    assert lost["text"].startswith(f"{20 - len(kept)} records were lost") and end["text"] == "room again"


def test_the_order_of_records_is_the_order_written_whatever_the_clock_says(tmp_path, monkeypatch):
    clock = iter([1e9, 5e9, 2e9, 1e9, 3e9])
    monkeypatch.setattr(writer.time, "time", lambda: next(clock))
    with JournalWriter.open(tmp_path / "a", START) as journal:
        for step in range(4):
            journal.write("train", step, loss=0.0)
    frame = load_runs(tmp_path).training
    assert frame.step.tolist() == [0, 1, 2, 3] and frame.time.tolist() == [5e9, 2e9, 1e9, 3e9]


def test_a_closed_journal_takes_nothing_more_and_closes_twice(tmp_path):
    journal = JournalWriter.open(tmp_path / "a", START)
    journal.close("finished", step=7, best_step=5)
    journal.close("failed")
    with pytest.raises(ValueError, match="closed"):
        journal.write("train", 8, loss=0.0)
    run = read_run(tmp_path / "a")
    assert run.status == "finished" and run.end["best_step"] == 5 and run.last_step == 7


def test_fsync_asks_the_disk_for_every_record(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", calls.append)
    with JournalWriter.open(tmp_path / "a", START, fsync=True) as journal:
        journal.write("train", 1, loss=0.0)
        assert len(calls) == 2


def test_a_full_disk_at_the_start_is_one_sentence_and_with_room_the_same_call_works(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", FullDisk(10))
        with pytest.raises(InputError, match=r"cannot write a journal in .*No space left on device"):
            JournalWriter.open(tmp_path / "a", START)
    assert not list((tmp_path / "a").iterdir())
    JournalWriter.open(tmp_path / "a", START).close("finished")
    assert read_run(tmp_path / "a").status == "finished"


def test_a_journal_that_holds_nothing_is_no_run(tmp_path):
    """As older versions left it on a full disk."""
    (tmp_path / "journal-1.jsonl").touch()
    JournalWriter.open(tmp_path, START).close("finished")
    assert [attempt for attempt, _ in attempts(tmp_path)] == [1, 2] and read_run(
        tmp_path
    ).status == "finished"


def replaced_by_a_copy(path):
    """An editor, or a tool that synchronises folders."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def replaced_by_an_older_copy(path):
    whole = path.read_bytes()
    path.with_name("copy").write_bytes(whole[: whole.rindex(b'{"kind"')])
    path.with_name("copy").replace(path)


@pytest.mark.parametrize("harm", [replaced_by_a_copy, replaced_by_an_older_copy, os.unlink])
def test_a_journal_that_is_replaced_or_removed_while_it_is_written_loses_nothing(tmp_path, harm):
    with JournalWriter.open(tmp_path / "a", START) as journal:
        for step in (1, 2):
            journal.write("train", step, loss=1.0)
        harm(journal.path)
        for step in (3, 4):
            journal.write("train", step, loss=1.0)
    assert [record["step"] for record in read_run(tmp_path / "a", strict=True).records] == [1, 2, 3, 4]


def test_a_journal_that_is_replaced_by_something_else_says_so(tmp_path):
    with JournalWriter.open(tmp_path / "a", START) as journal:
        journal.write("train", 1, loss=1.0)
        text = journal.path.read_text().replace('"loss":1.0', '"loss":7.0')
        journal.path.with_name("edited").write_text(text)
        journal.path.with_name("edited").replace(journal.path)
        journal.write("train", 2, loss=1.0)
    first, note, last = read_run(tmp_path / "a", strict=True).records
    assert (first["loss"], last["step"]) == (7.0, 2) and "was replaced while it was written" in note["text"]


def test_a_stale_handle_is_opened_anew(tmp_path, monkeypatch):
    journal = JournalWriter.open(tmp_path / "a", START)
    stale, real = journal._descriptor, os.write

    def write(descriptor, data):
        if descriptor == stale:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(descriptor, data)

    spare = os.dup(stale)  # keeps the number of the handle from being used again
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        patch.setattr(os, "close", lambda descriptor: None)
        journal.write("train", 1, loss=1.0)
    os.close(spare)
    journal.close("finished")
    assert [record["kind"] for record in read_run(tmp_path / "a", strict=True).records] == ["train", "end"]


def test_a_folder_that_is_renamed_under_way_is_one_sentence_before_anything_is_written_there(tmp_path):
    journal = JournalWriter.open(tmp_path / "a", START)
    (tmp_path / "a").rename(tmp_path / "b")
    journal.write("train", 1, loss=1.0)
    with pytest.raises(InputError, match="was renamed or removed"):
        journal.check_place()
    journal.close("failed", error="renamed")
    assert read_run(tmp_path / "b").status == "failed" and not (tmp_path / "a").exists()


def test_going_on_with_a_long_journal_reads_its_ends_alone(tmp_path, monkeypatch):
    journal = JournalWriter.open(tmp_path / "a", START)
    journal._waiting += b'{"kind":"train","time":1.0,"step":1,"loss":1.0}\n' * 200_000
    journal.close("interrupted")
    read = [0]
    real = writer.last_record.__globals__["open_regular"]

    def counted(path):
        file = real(path)
        take = file.read

        class Counting:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def read(self, *size):
                data = take(*size)
                read[0] += len(data)
                return data

            def readline(self, *size):
                line = file.readline(*size)
                read[0] += len(line)
                return line

            def seek(self, *where):
                return file.seek(*where)

        return Counting()

    monkeypatch.setitem(writer.last_record.__globals__, "open_regular", counted)
    JournalWriter.open(tmp_path / "a", resumed_from_step=1).close("finished")
    assert journal.path.stat().st_size > 9_000_000 and 0 < read[0] < 500_000
