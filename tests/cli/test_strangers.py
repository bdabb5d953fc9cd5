"""A stranger's folder at the command line: what cannot be read is named, nothing in it reaches the terminal as anything
but text, and outputs go where they were asked to go, as what is there."""

import errno
import json
import os
import stat
from pathlib import Path

import pytest
from faultydisk import Disk
from typer.testing import CliRunner

from fishlens.cli import app, main
from fishlens.errors import InputError
from fishlens.journal import JournalWriter, read_run
from fishlens.names import printable

ESCAPE = "\x1b]0;PWNED\x07\x1b[2J\u202e"


def write_run(place, *, schedule="gu", seed=0, status="finished", **factors):
    known = {
        "task": "topic",
        "schedule": schedule,
        "seed": seed,
        "source": "en",
        "model": "m",
        "adapter": "a",
    }
    start = {"factors": known | factors, "blocks": {"low": 1, "head": 1}}
    with JournalWriter.open(place, start) as journal:
        for step in (0, 10):
            values = {"low": 1.0 + step + seed, "head": 2.0}
            journal.write("fisher", step, trace=values, stderr=values, trainable={"low": True, "head": True},
                          purpose="track")  # fmt: skip
        for split, language in (("validation", "en"), ("test", "de"), ("test", "sw")):
            journal.write(
                "eval", 10, split=split, language=language, metric="f1", value=50.0 + seed, headline=True
            )
        journal.write("end", 10, status=status, best_step=10)
    return place


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for schedule in ("gu", "fun"):
        for seed in range(2):
            write_run(tmp_path / "runs" / f"{schedule}-{seed}", schedule=schedule, seed=seed)
    return tmp_path / "runs"


def typed(*words):
    """Everything that a command prints, its one sentence included."""
    result = CliRunner().invoke(app, [os.fspath(word) for word in words])
    if isinstance(result.exception, InputError):
        assert "\n" not in str(result.exception)
        return result.output + printable(result.exception)  # as `main` says it
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result.output


def set_in_journal(place, old, new):
    journal = place / "journal-1.jsonl"
    journal.write_text(journal.read_text().replace(old, new))


RECIPE = "name: x\nmodel: m\ntask: {name: topic}\ntrain: {steps: 1}\n"


def test_no_command_passes_a_control_sequence_on(runs, tmp_path):
    escaped = '"\\e]0;PWNED\\a\\e[2J"'
    write_run(runs / "status", seed=7)
    set_in_journal(runs / "status", '"status":"finished"', f'"status":{json.dumps(ESCAPE)}')
    write_run(runs / f"name{ESCAPE}", status="failed")
    write_run(tmp_path / "two" / "a", seed=8, task=f"topic{ESCAPE}")
    write_run(tmp_path / "two" / "b", seed=9)
    files = {
        "recipe.yaml": f"{RECIPE}{escaped}: 1\n",
        "value.yaml": RECIPE.replace("steps: 1", f"steps: {escaped}"),
        "study.yaml": f"name: x\nrecipe: quickstart\n{escaped}: 1\n",
        "name.yaml": f"name: s\nrecipe: quickstart\nset: {{name: {escaped}}}\nvary: {{seed: [0, 1]}}\n",
    }
    for name, text in files.items():
        Path(name).write_text(text)
    commands = [
        ("runs",), ("runs", "--json"), ("runs", "--show", runs / f"name{ESCAPE}"), ("runs", "two", "--diff"),
        ("report", "runs", "--unfinished", "--format", "md", "-o", "-"), ("report", "two", "-o", "two.html"),
        ("report", "runs", "--format", "csv", "-o", "-"), ("report", "runs", "--format", "latex", "-o", "-"),
        ("power", "runs"), ("export", "two", "-o", "data"), ("runs", "data"), ("power", "data"),
        ("watch", "--once", runs / "status"), ("watch", "--once", "two/a"), ("watch", "--json", "two/a"),
        ("recipes", "recipe.yaml"), ("check", "recipe.yaml"), ("check", "value.yaml"), ("measure", runs / "status"),
        ("evaluate", runs / f"name{ESCAPE}"), ("sweep", "study.yaml", "--dry-run"), ("sweep", "name.yaml", "--dry-run"),
        ("schedule", f"x{ESCAPE}"), ("track", f"x{ESCAPE}"),
    ]  # fmt: skip
    for command in commands:
        shown = typed(*command)
        assert not {"\x1b", "\x07", "\u202e"} & set(shown), command
        assert shown, command


def test_the_command_says_its_one_sentence_in_printable_text(tmp_path, monkeypatch, capsys):
    Path(tmp_path / "recipe.yaml").write_text(f'{RECIPE}"\\e]0;PWNED\\a": 1\n')
    for name in ("own_code.refuse_all", "ignore_those_of_the_working_directory", "quiet_streams"):
        monkeypatch.setattr(f"fishlens.cli.{name}", lambda: None)
    monkeypatch.setattr("sys.argv", ["fishlens", "recipes", str(tmp_path / "recipe.yaml")])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert "there is no field \\x1b]0;PWNED\\x07" in said and "\x1b" not in said


def test_a_run_that_cannot_be_read_is_named_and_the_others_are_shown_reported_and_exported(runs):
    (runs / "new").mkdir()
    (runs / "new" / "journal-1.jsonl").touch()
    for command in (("runs",), ("report", "runs", "-o", "page.html"), ("export", "runs", "-o", "data")):
        shown = typed(*command)
        assert "left out: runs/new (runs/new has only just begun" in shown, command
    assert "runs/new" in Path("page.html").read_text() and shown.count("4 rows") >= 1


def test_a_missing_attempt_is_said_by_runs_and_in_the_report(runs):
    start = {name: read_run(runs / "gu-0").start[name] for name in ("factors", "blocks")}
    JournalWriter.open(runs / "gu-0", start, resumed_from_step=5).close("finished", step=10)
    (runs / "gu-0" / "journal-1.jsonl").unlink()
    assert "gu-0: 1 damaged lines or missing journals" in typed("runs")
    typed("report", "runs", "-o", "page.html")
    assert 'class="warning"' in Path("page.html").read_text()


def test_a_folder_of_runs_that_is_also_a_run_and_holds_exports_and_links_shows_all(runs):
    typed("export", "runs", "-o", "runs")
    write_run(runs / "NEW", seed=9)
    (runs / "gu-0").rename("elsewhere")
    (runs / "gu-0").symlink_to("../elsewhere")
    (runs / "latest").symlink_to("fun-0")
    for file in write_run(Path("inside"), seed=5).iterdir():
        file.rename(runs / file.name)
    for where in ("runs", "runs/*"):
        shown = typed("runs", where)
        assert all(f"runs/{name}" in shown for name in ("gu-0", "gu-1", "fun-0", "fun-1", "NEW"))
        assert "runs/latest" not in shown
    assert typed("runs", "runs/fun-0", Path("runs/fun-0").absolute()).count("finished") == 1


def test_a_page_goes_through_a_link_keeps_a_mode_and_leaves_a_pipe_a_pipe(runs):
    Path("real.html").write_text("old")
    Path("real.html").chmod(0o600)
    Path("link.html").symlink_to("real.html")
    typed("report", "runs", "-o", "link.html")
    assert Path("link.html").is_symlink() and "<html" in Path("real.html").read_text()
    assert stat.S_IMODE(Path("real.html").stat().st_mode) == 0o600
    os.mkfifo("pipe.md")
    reader = os.open("pipe.md", os.O_RDONLY | os.O_NONBLOCK)
    typed("report", "runs", "-o", "pipe.md")
    assert os.read(reader, 2) == b"# " and stat.S_ISFIFO(Path("pipe.md").stat().st_mode)
    os.close(reader)
    assert "No space left on device" in typed("report", "runs", "--format", "md", "-o", "/dev/full")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_stays_a_device(runs):
    os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    typed("report", "runs", "--format", "md", "-o", "null")
    assert stat.S_ISCHR(Path("null").stat().st_mode)


READS = tuple((os, name, 0) for name in ("stat", "lstat", "scandir", "listdir", "readlink"))
READERS = [
    (("runs",), errno.EIO),
    (("report", "runs", "--format", "md", "-o", "-"), errno.ESTALE),
    (("watch", "--once", "runs/gu-0"), errno.EACCES),
]


@pytest.mark.parametrize(("command", "number"), READERS, ids=["runs", "report", "watch"])
def test_whatever_a_disk_refuses_to_a_reader_is_one_sentence_or_one_run_less(runs, command, number):
    """Each operation on the runs' files once."""
    disk = Disk(Path("runs"), native=READS)
    with disk.watched():
        typed(*command)
    assert len(disk.done) > 5
    step = max(1, len(disk.done) // (5 if command[0] == "report" else 20))
    for refused in range(0, len(disk.done), step):
        with Disk(Path("runs"), refused=refused, number=number, native=READS).watched():
            shown = typed(*command)
        assert shown.strip(), disk.done[refused]
        if command[0] != "watch":
            whole = all(f"{name}-{seed}" in shown for name in ("gu", "fun") for seed in range(2))
            assert whole or os.strerror(number) in shown, disk.done[refused]
