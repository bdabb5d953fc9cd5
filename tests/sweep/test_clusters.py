"""The jobs of a cluster divide a study between them: every run is done once, whatever starts when."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fishlens import load_runs
from fishlens.cli import app
from fishlens.cli.sweep import _said_of_interruption, _sigterm_interrupts
from fishlens.errors import InputError
from fishlens.sweep.local import threads_of_a_run, usable_cores
from fishlens.sweep.plan import PlannedRun, Status, plan, state_of
from fishlens.sweep.requeue import Requeue
from fishlens.sweep.selection import Shard
from fishlens.sweep.study import load_study

PAGE = Path(__file__).parents[2] / "docs/clusters.md"
DIRECTIVES = {  # of sbatch that the page uses, and how their values are written
    "job-name": r"\w+", "array": r"1-\d+", "cpus-per-task": r"\d+", "gpus-per-node": r"\d+",
    "time": r"(\d+-)?\d+:\d\d:\d\d", "signal": r"B:USR1@\d+", "requeue": "", "open-mode": "append", "output": r"\S+",
}  # fmt: skip


@pytest.mark.parametrize("count", range(1, 9))
def test_every_run_is_in_one_shard_whatever_has_been_done(count, tmp_path):
    planned = [PlannedRun(f"r{n}", tmp_path / f"r{n}", {}, Status.NEW) for n in range(6)]
    later = [PlannedRun(run.name, run.folder, {}, Status.FINISHED) for run in planned[:3]] + planned[3:]
    shards = [Shard(index, count) for index in range(1, count + 1)]
    assert sorted(run.name for shard in shards for run in shard.of(planned)) == [run.name for run in planned]
    for shard in shards:
        assert [run.name for run in shard.of(later)] == [run.name for run in shard.of(planned)]


@pytest.mark.parametrize(
    "text", ["0/3", "4/3", "3", "1/0", "-1/3", "1/3/3", "a/b", "", "1 / 3", "١/٣", "1/3\n"]
)
def test_a_shard_that_is_not_one_is_refused(text):
    with pytest.raises(InputError, match=r"--shard is .*; expected I/N with I from 1 to N, as 2/8"):
        Shard.parse(text)


def sweep(*words, code=0):
    result = CliRunner().invoke(app, ["sweep", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


def test_the_plan_as_json_has_the_fields_of_the_page_and_runs_nothing(study_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = json.loads(sweep(study_file, "--dry-run", "--json", "--shard", "2/3", "-s", "train.steps=9"))
    assert not (tmp_path / "runs").exists()
    states = ("interrupted", "failed", "unreadable", "finished", "finished elsewhere")
    assert printed["counts"] == {"new": 1, **dict.fromkeys(states, 0)}
    [run] = printed["runs"]
    assert run["values"] == {"schedule.name": "gu", "seed": 1}
    assert json.loads(sweep(*run["command"][2:], "--dry-run", "--json"))["runs"] == [run], (
        "the command is of this run"
    )

    fields = set()
    for name, value in printed.items():
        if name == "runs":
            fields |= {f"runs[].{inner}" for inner in run}
        fields |= {f"{name}.{inner}" for inner in value} if name == "forecast" else {name}
    cells = re.findall(r"^\| (`.*?) \|", PAGE.read_text(encoding="utf-8"), re.M)
    assert {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)} == fields


def test_json_without_a_dry_run_and_a_shard_without_runs(study_file, tmp_path):
    with pytest.raises(InputError, match="expected --dry-run"):
        sweep(study_file, "--json")
    assert "shard 7/7 has none of the 4 runs" in sweep(
        study_file, "--runs", tmp_path / "runs", "--shard", "7/7"
    )


def test_the_forecast_of_a_shard_judges_by_all_finished_runs(study_file, tmp_path):
    first, *_ = plan(load_study(study_file), tmp_path / "runs")
    first.folder.mkdir(parents=True)
    lines = [
        {"kind": "start", "format": 1, "attempt": 1, "time": 100.0},
        {"kind": "end", "step": 9, "time": 160.0, "status": "finished"},
    ]
    (first.folder / "journal-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = (study_file, "--runs", tmp_path / "runs", "--dry-run", "--json", "--jobs", "2")
    assert json.loads(sweep(*words))["forecast"] == {"due": 3, "jobs": 2, "seconds": 180, "wall_seconds": 90}
    expected = {"due": 2, "jobs": 2, "seconds": 120, "wall_seconds": 60}
    assert json.loads(sweep(*words, "--shard", "2/2"))["forecast"] == expected


def test_no_more_threads_than_slurm_gave(monkeypatch):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    there = usable_cores()
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert usable_cores() == 1
    for nonsense in ("0", "", "many", str(there + 5)):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", nonsense)
        assert usable_cores() == there


def test_no_more_threads_than_the_environment_asks_for(monkeypatch):
    monkeypatch.setattr("fishlens.sweep.local.usable_cores", lambda: 8)
    for asked, threads in (("", 4), ("1", 1), ("3", 3), ("64", 4), ("0", 4), ("4,2", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert threads_of_a_run(2) == threads


def shorter(study: str, steps: int) -> str:
    return study.replace("  tracking.every: 4", f"  tracking.every: 4\n  train.steps: {steps}")


def the_script() -> str:
    [script] = re.findall(r"```bash\n(#!.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    return script


def test_the_page_s_directives_are_sbatch_s():
    given = re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?", the_script(), re.M)
    assert len(given) == the_script().count("#SBATCH")
    for name, value in given:
        assert re.fullmatch(DIRECTIVES[name], value), name


def test_the_jobs_of_the_page_s_array_do_every_run_once(study_file, tmp_path):
    """The script as it stands, once for each of two jobs, at the same time; then a third, which finds nothing to do."""
    study_file.write_text(shorter(study_file.read_text(), steps=4).replace("  - fun\n", ""))
    (tmp_path / "array.sh").write_text(the_script())
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "fishlens").write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'from fishlens.cli import main; main()' \"$@\"\n"
    )
    (bin_folder / "fishlens").chmod(0o755)

    (bin_folder / "scontrol").write_text("#!/bin/sh\n")
    (bin_folder / "scontrol").chmod(0o755)

    def job(index):
        slurm = {
            "SLURM_ARRAY_JOB_ID": "7",
            "SLURM_ARRAY_TASK_ID": str(index),
            "SLURM_ARRAY_TASK_COUNT": "2",
            "SLURM_CPUS_PER_TASK": "1",
        }
        path = f"{bin_folder}:{os.environ['PATH']}"
        return subprocess.Popen(
            [shutil.which("bash"), "array.sh"],
            cwd=tmp_path, env={**os.environ, **slurm, "PATH": path}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    first, second = job(1), job(2)
    printed = [one.communicate()[0] for one in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), printed
    assert ["finished toy-gu-seed0" in printed[0], "finished toy-gu-seed1" in printed[1]] == [True, True]
    runs = load_runs(tmp_path / "runs")
    assert sorted(runs.runs["attempts"]) == [1, 1] and set(runs.runs["status"]) == {"finished"}
    third = job(1)
    assert "1 finished" in third.communicate()[0] and third.returncode == 0


def test_requeue_outside_slurm_is_refused(study_file, monkeypatch, tmp_path):
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    assert Requeue.of({"SLURM_JOB_ID": "12", "PATH": folder_with_scontrol(tmp_path)}).job == "12"
    with pytest.raises(InputError, match="--requeue is for a job of SLURM's, and SLURM_JOB_ID is not set"):
        Requeue.of({})
    with pytest.raises(InputError, match="--requeue calls scontrol, which is not on this node's PATH"):
        Requeue.of({"SLURM_JOB_ID": "12", "PATH": str(tmp_path / "nowhere")})
    result = CliRunner().invoke(
        app, ["sweep", str(study_file), "--requeue", "--runs", str(tmp_path / "runs")]
    )
    assert isinstance(result.exception, InputError) and not (tmp_path / "runs").exists()


def folder_with_scontrol(tmp_path, exit_status=0):
    """A scontrol that writes down what it was asked."""
    folder = tmp_path / "slurm"
    folder.mkdir(exist_ok=True)
    script = f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho "not permitted" >&2\nexit {exit_status}\n'
    (folder / "scontrol").write_text(script)
    (folder / "scontrol").chmod(0o755)
    return str(folder)


def test_a_job_in_which_no_run_got_further_does_not_come_back_for_ever(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", folder_with_scontrol(tmp_path), prepend=os.pathsep)
    run = tmp_path / "run"
    (run / "checkpoints/step-80").mkdir(parents=True)
    for made, said in (
        ("checkpoints/step-80", "no run got further"),
        ("checkpoints/step-120", None),
        ("results.json", None),
    ):
        again = Requeue.of({**os.environ, "SLURM_JOB_ID": "9"}, [run])
        (run / made).mkdir(exist_ok=True)
        problem = again.back()
        assert problem is None if said is None else said in problem
    assert (tmp_path / "asked").read_text() == "requeue 9\nrequeue 9\n"


@pytest.mark.parametrize(
    ("sent", "exit_status", "said"),
    [
        (signal.SIGUSR1, 0, "job 31_2 is back in the queue"),
        (signal.SIGUSR1, 1, "job 31_2 is not back in the queue: not permitted; submit it again"),
        (signal.SIGTERM, 0, "the same command goes on"),
    ],
)
def test_a_job_that_runs_out_of_time_comes_back_and_a_cancelled_one_does_not(
    sent, exit_status, said, tmp_path, monkeypatch
):
    """The signal comes while runs are followed; what they leave is the next test's."""
    monkeypatch.setenv("PATH", folder_with_scontrol(tmp_path, exit_status), prepend=os.pathsep)
    again = Requeue.of({**os.environ, "SLURM_ARRAY_JOB_ID": "31", "SLURM_ARRAY_TASK_ID": "2"})
    with pytest.raises(KeyboardInterrupt), _sigterm_interrupts(), again.on_signal():
        os.kill(os.getpid(), sent)
    assert said in _said_of_interruption(again)
    asked = tmp_path / "asked"
    assert (asked.read_text() if asked.exists() else "") == (
        "requeue 31_2\n" if sent == signal.SIGUSR1 else ""
    )


def test_a_sweep_that_is_told_to_end_leaves_a_run_that_goes_on(study_file, tmp_path, wait_until):
    """SIGUSR1, as the page's array has SLURM send it some time before it kills."""
    study_file.write_text(shorter(study_file.read_text(), steps=100_000))
    process = subprocess.Popen(
        [
            sys.executable, "-c", "from fishlens.cli import main; main()", "sweep", str(study_file),
            "--runs", str(tmp_path / "runs"), "--jobs", "1", "--shard", "1/4",
            "--requeue",
        ],
        env={**os.environ, "SLURM_JOB_ID": "12", "PATH": f"{folder_with_scontrol(tmp_path)}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    folder = tmp_path / "runs/study/toy-gu-seed0"
    journal = folder / "journal-1.jsonl"
    wait_until(journal.exists)  # from here on nothing is lost
    process.send_signal(signal.SIGUSR1)
    assert (
        "job 12 is back in the queue, and goes on" in process.communicate()[0] and process.returncode == 130
    )
    assert state_of(folder)[0] is Status.INTERRUPTED
    assert '"status":"interrupted"' in journal.read_text().replace(" ", "")
    assert list((folder / "checkpoints").glob("step-*")), "it can go on from here"
