"""What is read back is what an undisturbed run would have left: torn tails ignored, later attempts
superseding."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fishlens import InputError
from fishlens.journal import JournalWriter, attempts, find_runs, load_runs, read_run

START = {"factors": {"task": "xnli", "seed": 3}, "blocks": {"layer.0": 10, "layer.1": 10}}


def run_from(journal, first, last):
    """The records that a run leaves from step `first` (weights just restored) to `last`."""
    for step in range(first, last + 1):
        if step > first:
            journal.write("train", step, loss=1.0 / step)
        if step % 4 == 0:
            if step > first or step == 0:
                journal.write("eval", step, split="validation", language="en", metric="f1", value=float(step))
            journal.write(
                "fisher", step, trace={"layer.0": step + 0.5, "layer.1": 1.0}, purpose="select", examples=8
            )
            journal.write("unfreeze", step, event=step // 4, chosen=["layer.1"])


def series(run_dir):
    """The merged records without what may differ between attempts: the clock and the attempt."""
    run = read_run(run_dir, strict=True)
    return [{k: v for k, v in r.items() if k not in ("time", "attempt")} for r in run.records]


def test_a_journal_cut_at_any_byte_gives_every_record_before_the_cut(tmp_path):
    with JournalWriter.open(tmp_path / "whole", START) as journal:
        run_from(journal, 0, 4)
        journal.write("note", 4, level="info", text="über ☃")
    data = journal.path.read_bytes()
    lines = data.split(b"\n")[:-1]
    whole = read_run(tmp_path / "whole").records
    (tmp_path / "cut").mkdir()
    cut = tmp_path / "cut" / "journal-1.jsonl"
    for length in range(len(data) + 1):
        cut.write_bytes(data[:length])
        ends = [sum(len(line) + 1 for line in lines[: i + 1]) - 1 for i in range(len(lines))]
        complete = sum(end <= length for end in ends)  # the newline itself may be missing
        if complete == 0:
            with pytest.raises(InputError, match=r"has only just begun.* no record in its journal yet"):
                read_run(tmp_path / "cut")
        else:
            assert read_run(tmp_path / "cut", strict=True).records == whole[: complete - 1]


@pytest.mark.parametrize("killed_at", range(13))
@pytest.mark.parametrize("saved_every", [4, 3])
def test_a_resumed_run_reads_like_one_that_was_never_interrupted(tmp_path, killed_at, saved_every):
    with JournalWriter.open(tmp_path / "straight", START) as journal:
        run_from(journal, 0, 12)
    journal = JournalWriter.open(tmp_path / "resumed", START)
    run_from(journal, 0, killed_at)
    checkpoint = killed_at // saved_every * saved_every
    with JournalWriter.open(tmp_path / "resumed", START, resumed_from_step=checkpoint) as journal:
        run_from(journal, checkpoint, 12)
    by_time = sorted(series(tmp_path / "resumed"), key=lambda r: r["step"])
    straight = sorted(series(tmp_path / "straight"), key=lambda r: r["step"])
    key = lambda r: (r["step"], json.dumps(r, sort_keys=True))  # noqa: E731
    assert sorted(by_time, key=key) == sorted(straight, key=key)
    assert read_run(tmp_path / "resumed").attempts == 2


def test_an_attempt_resumed_from_before_the_last_one_supersedes_that_too(tmp_path):
    for resumed, first, last in [(None, 0, 10), (8, 8, 10), (4, 4, 6)]:
        with JournalWriter.open(tmp_path / "a", START, resumed_from_step=resumed) as journal:
            run_from(journal, first, last)
    with JournalWriter.open(tmp_path / "straight", START) as journal:
        run_from(journal, 0, 6)
    assert sorted(map(str, series(tmp_path / "a"))) == sorted(map(str, series(tmp_path / "straight")))
    assert read_run(tmp_path / "a").last_step == 6


def test_an_attempt_that_was_killed_before_its_first_line_supersedes_nothing(tmp_path):
    with JournalWriter.open(tmp_path / "a", START) as journal:
        run_from(journal, 0, 6)
    (tmp_path / "a" / "journal-2.jsonl").write_bytes(b'{"kind":"start","time":17')
    assert read_run(tmp_path / "a").last_step == 6
    JournalWriter.open(tmp_path / "a", START, resumed_from_step=4).close("finished")
    assert read_run(tmp_path / "a").last_step == 4 and read_run(tmp_path / "a").start["attempt"] == 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{not json", "not a JSON object"),
        ("[1, 2]", "not a record"),
        ('{"kind":"zebra","step":1}', "not a record"),
        ('{"kind":"train","step":"one"}', "expected a whole number"),
        ('{"kind":"train","step":-1}', "step is -1; expected a whole number, 0 or more"),
        ('{"kind":"train","step":1e22}', "step is 1e\\+22; expected a whole number, 0 or more"),
        ('{"kind":"eval","step":1,"metric":"f1","value":"n/a"}', "value is 'n/a'; expected a number"),
        (
            '{"kind":"eval","step":1,"metric":"f1","value":150}',
            "value is 150; expected a number from -100 to 100",
        ),
        (
            '{"kind":"eval","step":1,"metric":"f1","value":"Infinity"}',
            "value is 'Infinity'; expected a number from",
        ),
        ('{"kind":"fisher","step":1,"trace":{"a":1.0,"b":-2.0}}', "trace is -2.0; expected 0 or more"),
        (
            '{"kind":"fisher","step":1,"trace":{"a":1.0},"confidence":1.5}',
            "confidence is 1.5; .* from 0 to 1",
        ),
        ('{"kind":"start","attempt":1}', "second start record"),
    ],
)
def test_a_damaged_line_costs_that_line_and_is_reported_by_file_and_number(tmp_path, line, said):
    with JournalWriter.open(tmp_path / "a", START) as journal:
        run_from(journal, 0, 3)
    lines = journal.path.read_text().splitlines()
    lines.insert(3, line)
    journal.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=rf"journal-1\.jsonl, line 4: .*{said}"):
        read_run(tmp_path / "a", strict=True)
    runs = load_runs(tmp_path)
    assert runs.runs.damaged.tolist() == [1] and runs.training.step.tolist() == [1, 2, 3]
    assert f"{journal.path}, line 4" in runs.notes.text[0] and runs.notes.level[0] == "error"


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("{}", "line 1: expected the start record"),
        ('{"kind":"train","step":1}', "line 1: expected the start record"),
        ('{"kind":"start","format":2,"attempt":1}', "format 2"),
    ],
)
def test_a_file_that_is_no_journal_of_ours_is_refused_by_name(tmp_path, first, said):
    (tmp_path / "journal-1.jsonl").write_text(first + '\n{"kind":"train","step":1}\n')
    with pytest.raises(InputError, match=said):
        read_run(tmp_path)


def test_runs_are_found_by_directory_pattern_or_list_and_named_once(tmp_path):
    for name in ("a/one", "a/two", "b/three"):
        JournalWriter.open(tmp_path / name, START).close("finished")
    (tmp_path / "a" / "one" / "checkpoints").mkdir()
    everything = [tmp_path / "a" / "one", tmp_path / "a" / "two", tmp_path / "b" / "three"]
    assert find_runs(tmp_path) == everything
    assert find_runs(str(tmp_path / "*" / "t*")) == everything[1:]
    assert find_runs([tmp_path / "a", tmp_path / "a" / "one", tmp_path / "b"]) == everything
    with pytest.raises(InputError, match="nowhere"):
        find_runs(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no run"):
        find_runs(tmp_path / "a" / "one" / "checkpoints")


def test_a_journal_is_read_whole_up_to_the_present_while_it_is_written(tmp_path):
    code = (
        "from fishlens.journal import JournalWriter\n"
        f"journal = JournalWriter.open({str(tmp_path / 'a')!r})\n"
        "for step in range(3000): journal.write('train', step, loss=step / 7)\n"
    )
    seen = [0]
    with subprocess.Popen([sys.executable, "-c", code]) as writing:
        while writing.poll() is None:
            if Path(tmp_path / "a" / "journal-1.jsonl").exists():
                try:
                    steps = [r["step"] for r in read_run(tmp_path / "a", strict=True).records]
                except InputError as error:
                    assert "begun" in str(error)
                    continue
                assert steps == list(range(len(steps)))
                seen.append(len(steps))
    assert seen == sorted(seen)
    assert len(read_run(tmp_path / "a").records) == 3000


def write(run_dir, nth_write=0, share=0.0):
    """A trainer's journal of 1,000 steps; killed within its n-th write, of which a share is written."""
    resumed = None
    if attempts(run_dir):
        try:
            resumed = max(read_run(run_dir).last_step // 10 * 10, 0)
        except ValueError:
            resumed = 0
    journal = JournalWriter.open(run_dir, {"blocks": {"layer.0": 1}}, resumed_from_step=resumed)
    left, real = nth_write, os.write

    def killed_within(descriptor, data):
        nonlocal left
        left -= 1
        if left == 0:
            real(descriptor, data[: round(share * len(data))])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(descriptor, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", killed_within)
        for step in range((resumed or 0), 1001):
            if step > (resumed or 0):
                journal.write("train", step, loss=1.0 / step)
            if step % 10 == 0:
                journal.write("fisher", step, trace={"layer.0": step / 3}, purpose="track", examples=8)
        journal.close("finished")


def test_killed_within_fifty_random_writes_the_merged_series_is_the_undisturbed_one(tmp_path):
    """The checkpoint of this stand-in for a trainer is every tenth step that its journal tells of."""
    rng, forked = random.Random(0), multiprocessing.get_context("fork")
    for _ in range(50):
        moment = (rng.randint(1, 20), rng.random())  # which write, and how much of it is written
        killed = forked.Process(target=write, args=(str(tmp_path / "a"), *moment))
        killed.start()
        killed.join()
        assert killed.exitcode == -signal.SIGKILL
        read_run(tmp_path / "a", strict=True)  # every complete record is readable
    write(str(tmp_path / "a"))
    write(str(tmp_path / "straight"))
    key = lambda r: (r["step"], r["kind"])  # noqa: E731
    assert sorted(series(tmp_path / "a"), key=key) == sorted(series(tmp_path / "straight"), key=key)
