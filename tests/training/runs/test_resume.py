"""A run that was interrupted or killed ends in the same bits as one that was not: weights, optimizer, metrics."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fishlens.errors import InputError
from fishlens.journal import RunHeld, attempts, load_runs, read_run
from fishlens.training import loop, prepared_run, run
from fishlens.training.checkpoint import list_checkpoints
from fishlens.training.interrupt import watch_for_interruption
from fishlens.training.run import train
from fishlens.training.run_journal import RunJournal

SCHEDULES = {
    "standard": {},
    "gu": {},
    "gu-reverse": {},
    "lpft": {},
    "random": {},
    "fixed": {"order": [2, 0, 3, 1]},
    "fun": {"first": "select"},
    "surgical": {"subset": [0, 2]},
    "auto-rgn": {},
    "full": {},
}
WHEN = {"time", "seconds", "overhead"}  # what a clock says


class Killed(BaseException):
    """Stands for a process that is gone."""


def settings(recipe: dict, name: str) -> dict:
    """Eight updates in batches of 16 of 40 rows (so 3 are an epoch), in two parts each, dropout on."""
    full = name == "full"
    return {
        **recipe,
        "adapter": None if full else "seq_bn",
        "language_adapters": None if full else recipe["language_adapters"],
        "data": {**recipe["data"], "targets": ["de"]},
        "train": {
            "steps": 8,
            "batch_size": 16,
            "accumulate": 2,
            "learning_rate": 1e-2,
            "weight_decay": 0.01,
            "log_every": 3,
        },
        "schedule": {"name": name, "every": 2, **SCHEDULES[name]},
        "tracking": {"every": 4, "examples": 8},
        "evaluate": {"every": 3, "examples": 7, "test_examples": 7},
        "checkpoint": {"keep": 9},
    }


@contextlib.contextmanager
def interrupted_at(step: int):
    """As if somebody pressed Ctrl-C while update number `step` was under way."""

    class Asked:
        calls = 0

        def everywhere(self, device):
            self.calls += 1
            return self.calls > step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "watch_for_interruption", lambda: contextlib.nullcontext(Asked()))
        yield


@contextlib.contextmanager
def killed_in_update(step: int):
    """The process dies in the middle of update number `step`, after its backward pass: nothing is tidied up."""
    with pytest.MonkeyPatch.context() as patch:
        real = loop.sum_gradients
        count = iter(range(1000))

        def dying(parameters):
            if next(count) == step:
                raise Killed
            real(parameters)

        patch.setattr(loop, "sum_gradients", dying)
        patch.setattr(RunJournal, "close", lambda *_, **__: None)
        yield


def everything(place: Path) -> dict:
    """All that a run left behind, but for what a clock says and which attempt wrote it."""
    last = list_checkpoints(place / "checkpoints")[8]
    merged = read_run(place)
    records = [{k: v for k, v in r.items() if k not in WHEN and k != "attempt"} for r in merged.records]
    state = json.loads((last / "state.json").read_text())
    state["trainer_state"].pop("seconds")
    return {
        "weights": load_file(last / "weights.safetensors"),
        "optimizer": load_file(last / "optimizer.safetensors"),
        "random": load_file(last / "random-0.safetensors"),
        "state": state,
        "records": records,
        "predictions": {p.name: p.read_text() for p in (place / "predictions").iterdir()},
        "results": json.loads((place / "results.json").read_text()),
    }


def assert_same(one: dict, other: dict) -> None:
    for kind in ("weights", "optimizer", "random"):
        assert one[kind].keys() == other[kind].keys(), kind
        different = [k for k in one[kind] if not torch.equal(one[kind][k], other[kind][k])]
        assert not different, (kind, different)
    assert one["state"] == other["state"]
    assert sorted(map(str, one["records"])) == sorted(map(str, other["records"]))
    assert one["predictions"] == other["predictions"]
    assert one["results"] == other["results"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """name -> what the run without interruption left behind; made once for each schedule."""
    made = {}

    def of(name: str, recipe: dict) -> dict:
        if name not in made:
            place = tmp_path_factory.mktemp("undisturbed") / name
            train(settings(recipe, name), place)
            made[name] = everything(place)
        return made[name]

    return of


# events are at 0, 2, 4, 6: right before, at and right after one; checkpoints of their own are at 3, 6, 8
@pytest.mark.parametrize("step", [3, 4, 5])
@pytest.mark.parametrize("name", SCHEDULES)
def test_an_interrupted_run_goes_on_to_the_same_bits(name, step, recipe, undisturbed, tmp_path):
    with interrupted_at(step):
        result = train(settings(recipe, name), tmp_path / "run")
    assert (result.status, result.step) == ("interrupted", step)
    assert read_run(tmp_path / "run").end["status"] == "interrupted"
    result = train(settings(recipe, name), tmp_path / "run")
    assert result.status == "finished"
    assert read_run(tmp_path / "run").attempts == 2
    assert_same(everything(tmp_path / "run"), undisturbed(name, recipe))


@pytest.mark.parametrize("name", ["fun", "random"])
def test_a_run_killed_again_and_again_ends_in_the_same_bits(name, recipe, undisturbed, tmp_path):
    """Killed in update 0 (nothing to resume from), 4 (back to 3), then, resumed at 3, in update 7 (back to 6)."""
    for updates_of_this_attempt in (0, 4, 4):
        with killed_in_update(updates_of_this_attempt), pytest.raises(Killed):
            train(settings(recipe, name), tmp_path / "run")
    assert train(settings(recipe, name), tmp_path / "run").status == "finished"
    starts = [
        json.loads((tmp_path / "run" / f"journal-{n}.jsonl").read_text().splitlines()[0])[
            "resumed_from_step"
        ]
        for n in (1, 2, 3, 4)
    ]
    assert starts == [None, 0, 3, 6]
    assert_same(everything(tmp_path / "run"), undisturbed(name, recipe))


def test_a_run_killed_between_two_test_languages_repeats_no_record(recipe, tmp_path):
    early_best = {**settings(recipe, "gu"), "evaluate": {"every": 1}}
    assert train(early_best, tmp_path / "undisturbed").best_step < 8  # test scores are written at that step
    with pytest.MonkeyPatch.context() as patch:
        real = run.save_predictions

        def dying(place, split, found):
            if split.language == "de":
                raise Killed
            real(place, split, found)

        patch.setattr(run, "save_predictions", dying)
        patch.setattr(RunJournal, "close", lambda *_, **__: None)
        with pytest.raises(Killed):
            train(early_best, tmp_path / "run")
    train(early_best, tmp_path / "run")
    assert_same(everything(tmp_path / "run"), everything(tmp_path / "undisturbed"))
    test = load_runs(tmp_path / "run").evaluation.query("split == 'test'")
    assert sorted(test.language) == ["de", "en"]



def test_kill_minus_9_of_a_real_process(recipe, undisturbed, tmp_path):
    import yaml

    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings(recipe, "fun")))
    reached = tmp_path / "reached"
    code = (
        "import pathlib, time; from fishlens.training import loop; real = loop.record_training\n"
        "def stuck(job, *given):\n    real(job, *given)\n    if job.trainer_state.step == 5:\n"
        f"        pathlib.Path({str(reached)!r}).touch()\n        time.sleep(3600)\n"
        "loop.record_training = stuck\n"
        f"from fishlens.training.run import train; train({str(tmp_path / 'recipe.yaml')!r}, {str(tmp_path / 'run')!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not reached.exists():
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert read_run(tmp_path / "run").status == "died"
    train(settings(recipe, "fun"), tmp_path / "run")
    assert_same(everything(tmp_path / "run"), undisturbed("fun", recipe))


def test_ctrl_c_ends_at_the_next_step_with_a_checkpoint(recipe, tmp_path, monkeypatch):
    real = loop.record_training

    def record(job, *given):
        real(job, *given)
        if job.trainer_state.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop, "record_training", record)
    before = signal.getsignal(signal.SIGINT)
    result = train(recipe, tmp_path / "run")
    assert (result.status, result.step) == ("interrupted", 5)
    assert result.summary == "interrupted at step 5 of 8; the same command resumes it"
    assert 5 in list_checkpoints(tmp_path / "run" / "checkpoints")
    assert read_run(tmp_path / "run").end["status"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_ends_at_once_and_is_written_down(recipe, tmp_path, monkeypatch):
    def update(job):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop, "update", update)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run")
    assert read_run(tmp_path / "run").end["status"] == "interrupted"


@pytest.mark.parametrize("order", ["TERM", "TERM TERM", "INT TERM", "TERM INT", "TERM INT TERM"])
def test_sigterm_never_ends_a_run_at_once(order):
    """A cluster signals every process of a job, and a sweep signals its runs once more."""
    with watch_for_interruption() as interruption:
        for name in order.split():
            os.kill(os.getpid(), getattr(signal, f"SIG{name}"))
        assert interruption.asked


def test_another_recipe_in_the_same_directory_is_refused_with_the_field(recipe, tmp_path):
    train(recipe, tmp_path / "run")
    with pytest.raises(InputError, match="another recipe: seed is 6 instead of 5"):
        train({**recipe, "seed": 6}, tmp_path / "run")
    with pytest.raises(InputError, match="already holds a run"):
        train(recipe, tmp_path / "run", resume="never")


def test_a_failing_run_says_why_in_its_journal(recipe, tmp_path, monkeypatch):
    def update(job):
        raise ZeroDivisionError("made up")

    monkeypatch.setattr(loop, "update", update)
    with pytest.raises(ZeroDivisionError):
        train(recipe, tmp_path / "run")
    end = read_run(tmp_path / "run").end
    assert (end["status"], end["error"]) == ("failed", "ZeroDivisionError: made up")


def test_a_run_that_another_process_finishes_while_this_one_reads_is_not_trained_again(
    recipe, tmp_path, monkeypatch
):
    place, read = tmp_path / "run", prepared_run.read_data
    train(recipe, place, on_step=lambda step: os.kill(os.getpid(), signal.SIGINT) if step == 4 else None)

    def read_late(*arguments):
        monkeypatch.setattr(prepared_run, "read_data", read)
        assert train(recipe, place).status == "finished"
        return read(*arguments)

    monkeypatch.setattr(prepared_run, "read_data", read_late)
    with pytest.raises(RunHeld, match="has begun attempt 2"):
        train(recipe, place)
    assert len(attempts(place)) == 2 and read_run(place).status == "finished"
