"""Who may go on with a run: the rules one by one (test_two_hosts.py has them all at work)."""

import errno
import os
from pathlib import Path

import pytest

from fishlens.journal import JournalWriter, RunHeld, lease, read_run, standing

HERE = {"host": "elsewhere", "pid": 1, "began": None}


def test_a_sleeper_that_was_taken_over_stops_before_it_writes_a_checkpoint(tmp_path):
    sleeper = JournalWriter.open(tmp_path / "a", {})
    JournalWriter.open(
        tmp_path / "a", {}, resumed_from_step=0
    )  # the same process may: as another machine, here
    with pytest.raises(RunHeld, match="was taken over by another process"):
        sleeper.check_place()


def test_a_run_on_another_machine_is_refused_while_it_gives_signs_of_life(tmp_path):
    journal = JournalWriter.open(tmp_path / "a", {})
    now, told, closed = [0.0], [], []

    def sleep(seconds):
        now[0] += seconds
        told.append(seconds)
        if len(told) == 5 and not closed:
            journal._heartbeat.beat(7)

    with pytest.raises(RunHeld, match="by process 1 on elsewhere"):
        lease.wait_until_gone(journal.path, HERE, True, sleep, lambda: now[0])
    told.clear()
    now[0] = 0.0
    journal.close()
    closed.append(True)
    lease.wait_until_gone(journal.path, HERE, True, sleep, lambda: now[0])
    assert sum(told) >= lease.PATIENCE


def test_whoever_went_on_while_a_checkpoint_was_read_goes_first(tmp_path):
    place = tmp_path / "a"
    JournalWriter.open(place, {}).close("interrupted")
    seen = standing(place)
    JournalWriter.open(place, {}, resumed_from_step=0, after=seen).close("interrupted")
    with pytest.raises(RunHeld, match="has begun attempt 2"):
        JournalWriter.open(place, {}, resumed_from_step=0, after=seen)


def test_a_run_that_its_holder_finished_meanwhile_is_not_gone_on_with(tmp_path):
    holder = JournalWriter.open(tmp_path / "a", {})
    seen = standing(tmp_path / "a")
    holder.close("finished")
    with pytest.raises(RunHeld, match="has gone on with"):
        JournalWriter.open(tmp_path / "a", {}, resumed_from_step=0, after=seen)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["journal-1.jsonl"]


def without_links(*paths):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_where_files_have_no_links_two_that_begin_in_one_moment_are_told_apart(tmp_path, monkeypatch):
    """One finds the other's journal still empty, and begins the next: whoever looks last sees the other."""
    place, write, later = tmp_path / "a", os.write, []
    monkeypatch.setattr(os, "link", without_links)

    def writing(descriptor, data):
        if later and Path(f"/proc/self/fd/{descriptor}").readlink().name == "journal-1.jsonl":
            later.pop()()
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", writing)
    later.append(lambda: JournalWriter.open(place, {}).close("finished"))
    with pytest.raises(RunHeld, match="has just begun attempt 1"):
        JournalWriter.open(place, {})
    assert read_run(place).status == "finished"


def test_a_process_id_of_another_start_of_the_system_says_nothing(tmp_path):
    from fishlens.journal.records import is_alive, this_process

    me = this_process()
    assert is_alive(me) is True and is_alive({**me, "system": "another boot"}) is None
