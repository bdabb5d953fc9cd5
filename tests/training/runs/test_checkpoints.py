"""A checkpoint is whole or not there."""

import contextlib
import copy
import json
import resource
import warnings
from dataclasses import asdict

import pytest
import torch

from fishlens.errors import InputError
from fishlens.journal import read_run
from fishlens.schedules import State
from fishlens.training import checkpoint, loop
from fishlens.training.checkpoint import (
    Snapshot,
    begin_checkpoint,
    finish_checkpoint,
    list_checkpoints,
    read_checkpoint,
    remove_old_checkpoints,
    write_random_state,
)
from fishlens.training.job import read_trainer_state
from fishlens.training.loop import TrainerState
from fishlens.training.run import train


def write(folder, step: int, size: int = 10):
    place = begin_checkpoint(folder, step)
    write_random_state(place, 0, {"cpu": torch.get_rng_state()})
    tensors = {"a": torch.full((size,), float(step))}
    return finish_checkpoint(place, Snapshot(step, tensors, tensors, {}, {"best": None}))


@contextlib.contextmanager
def disk_with_room_for(limit: int):
    """Files may not grow beyond `limit` bytes: the kernel itself refuses the write, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_written_is_read_back(tmp_path):
    path = write(tmp_path, 7)
    snapshot = read_checkpoint(path)
    assert snapshot.step == 7 and snapshot.state == {"best": None}
    assert torch.equal(snapshot.weights["a"], torch.full((10,), 7.0))
    assert sorted(p.name for p in path.iterdir()) == [
        "optimizer.safetensors",
        "random-0.safetensors",
        "state.json",
        "weights.safetensors",
    ]


def test_a_full_disk_leaves_the_old_checkpoint_as_it_was_and_nothing_half_written(tmp_path):
    old = write(tmp_path, 1)
    before = {p.name: p.read_bytes() for p in old.iterdir()}
    with disk_with_room_for(8192), pytest.raises(OSError):
        write(tmp_path, 2, size=100_000)
    assert list(list_checkpoints(tmp_path)) == [1]
    assert {p.name: p.read_bytes() for p in old.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["step-1"]


def test_training_goes_on_when_a_checkpoint_cannot_be_written_and_says_so(recipe, tmp_path, monkeypatch):
    """The disk is full at step 4 only; step 8 is written, and is then the best there is."""
    real = checkpoint._write_tensors

    def refusing(path, tensors):
        if path.parent.name == "writing-step-4":
            with disk_with_room_for(100):
                real(path, tensors)
        real(path, tensors)

    monkeypatch.setattr(checkpoint, "_write_tensors", refusing)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = train(recipe, tmp_path / "run")
    assert (result.status, result.best_step) == ("finished", 8)
    (text,) = result.warnings
    assert "the checkpoint of step 4 could not be written" in text
    notes = [r for r in read_run(tmp_path / "run").records if r["kind"] == "note"]
    assert [(n["level"], n["text"]) for n in notes] == [("error", text)]
    assert list(list_checkpoints(tmp_path / "run" / "checkpoints")) == [8]


def test_a_killed_writer_leaves_a_directory_that_is_no_checkpoint(tmp_path):
    write(tmp_path, 1)
    place = begin_checkpoint(tmp_path, 2)
    (place / "weights.safetensors").write_bytes(b"torn")
    assert list(list_checkpoints(tmp_path)) == [1]
    write(tmp_path, 2)
    assert list(list_checkpoints(tmp_path)) == [1, 2]
    begin_checkpoint(tmp_path, 3)
    remove_old_checkpoints(tmp_path, keep=2, best_step=None)
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".")) == ["step-1", "step-2"]


def test_the_newest_and_the_best_are_kept(tmp_path):
    for step in (1, 2, 3, 10, 20):
        write(tmp_path, step)
    remove_old_checkpoints(tmp_path, keep=2, best_step=2)
    assert list(list_checkpoints(tmp_path)) == [2, 10, 20]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "weights.safetensors").write_bytes(b"\x08"), "step-1 cannot be read"),
        (lambda p: (p / "optimizer.safetensors").unlink(), "step-1 cannot be read"),
        (lambda p: (p / "state.json").write_text("{"), "step-1 cannot be read"),
        (lambda p: (p / "state.json").write_text('{"format": 9}'), "expected format 1"),
        (lambda p: (p / "random-0.safetensors").unlink(), "random-0.safetensors"),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, damage, message):
    path = write(tmp_path, 1)
    damage(path)
    with pytest.raises(InputError, match=message):
        read_checkpoint(path)


STATE = {
    "trainer_state": asdict(TrainerState()), "loss_sum": 0.5, "schedule": State().to_json(),
    "probes": {"": {"layer.0": [1, 2]}, "de": {"layer.0": [1, 2]}, "sums of tr(F)": {"source": [0.1]}},
}  # fmt: skip
OTHER = (None, True, -1, 1e308, "", "x", [], [None], {}, {"a": 1}, [[]], "\ud800")


def places_in(value, path=()):
    """The way to every value of nested mappings and lists."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in pairs:
        yield from places_in(inside, (*path, key))


def test_any_field_of_a_checkpoints_state_that_is_of_another_kind_is_one_sentence_or_read():
    read_trainer_state(STATE)
    read_trainer_state({**STATE, "new": {"of": "a later version"}})
    refused = 0
    for place in [place for place in places_in(STATE) if place]:
        for other in OTHER:
            state = copy.deepcopy(STATE)
            inside = state
            for key in place[:-1]:
                inside = inside[key]
            inside[place[-1]] = other
            try:
                read_trainer_state(state)
            except InputError as error:
                refused += 1
                assert "\n" not in str(error) and "state.json is damaged" in str(error)
    assert refused > 50


def test_nothing_in_a_run_directory_is_pickled(recipe, tmp_path):
    train(recipe, tmp_path / "run")
    suffixes = {p.suffix for p in (tmp_path / "run").rglob("*") if p.is_file() and p.stat().st_size}
    assert suffixes == {".yaml", ".json", ".jsonl", ".safetensors"}


def test_the_best_step_is_chosen_on_the_source_language_alone(recipe, tmp_path, monkeypatch):
    """Made-up validation scores: the best is where the source is best; ties go to the earlier step."""
    asked = []
    real = loop.evaluate
    scores = iter([50.0, 70.0, 70.0, 60.0])

    def made_up(assembly, task, prepared, accelerator, *, language, batch_size):
        asked.append(language)
        result = real(assembly, task, prepared, accelerator, language=language, batch_size=batch_size)
        return type(result)({"accuracy": next(scores)}, result.predictions)

    monkeypatch.setattr(loop, "evaluate", made_up)
    result = train({**recipe, "evaluate": {"every": 2}, "checkpoint": {"keep": 1}}, tmp_path / "run")
    assert asked == ["en"] * 4
    assert result.best_step == 4 and result.validation == {"accuracy": 70.0}, "the best step's, not the last one's"
    assert list(list_checkpoints(tmp_path / "run" / "checkpoints")) == [4, 8]
    best = [
        r["best"]
        for r in read_run(tmp_path / "run").records
        if r["kind"] == "eval" and r["split"] == "validation"
    ]
    assert best == [True, True, False, False]
    assert json.loads((tmp_path / "run" / "results.json").read_text())["best_step"] == 4
