"""Every operation on the files of a run fails once: training goes on or stops with one sentence, and can be resumed.

The operations are not listed by hand: a first, undisturbed run counts them (open, read, write, fsync, rename, make,
remove, below the run's folder), and then each is refused in a run of its own. All of them with FISHLENS_FAULTS=all.
"""

import contextlib
import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from faultydisk import Disk, chosen
from safetensors.torch import load_file

from fishlens.errors import InputError
from fishlens.journal import read_run
from fishlens.training import checkpoint
from fishlens.training.checkpoint import list_checkpoints
from fishlens.training.run import train

SOME = 6
"""so many of the operations, evenly spread, unless all are asked for"""


NATIVE = ((checkpoint, "save_file", 1), (checkpoint, "load_file", 0))


CLOCKS = ("time", "seconds", "attempt", "overhead", "best")


def left_by(place: Path, but: tuple[str, ...] = CLOCKS) -> dict:
    """Weights, optimizer and scores at the end, without clocks."""
    last = list_checkpoints(place / "checkpoints")[2]
    results = json.loads((place / "results.json").read_text())
    return {
        "tensors": {p.name: load_file(p) for p in last.glob("*.safetensors")},
        "scores": (results["test"], results["validation"], results["best_step"]),
        "predictions": {p.name: p.read_text() for p in (place / "predictions").glob("*.jsonl")},
        "series": sorted(
            str({k: v for k, v in r.items() if k not in but})
            for r in read_run(place, strict=True).records
            if r["kind"] not in ("note", "end")
        ),
    }


def refused_checkpoint(place: Path) -> bool:
    """Does the journal tell of a checkpoint that the disk refused? The best of the others is tested then."""
    notes = [record["text"] for record in read_run(place).records if record["kind"] == "note"]
    return any(text.startswith("the checkpoint of step") and "could not be written" in text for text in notes)


def lost_diagonal(place: Path) -> bool:
    """Does the journal tell of a diagonal that the disk refused? Its record names no file then."""
    notes = [record["text"] for record in read_run(place).records if record["kind"] == "note"]
    return any(text.startswith("the diagonal of step") and "is lost" in text for text in notes)


def losses(place: Path) -> list[float]:
    return [record["loss"] for record in read_run(place).records if record["kind"] == "train"]


def assert_whole(place: Path) -> None:
    """Whatever has a name of its own can be read."""
    for path in place.rglob("*"):
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors" and "writing" not in str(path.relative_to(place)):
            load_file(path)
    if list(place.glob("journal-*")):
        with contextlib.suppress(InputError):  # no record yet
            assert not read_run(place).damaged


@pytest.fixture
def small(recipe):
    return {
        **recipe, "language_adapters": None, "data": {**recipe["data"], "targets": []},
        "train": {"steps": 2, "batch_size": 4, "log_every": 1}, "schedule": {"name": "gu", "every": 1},
        "tracking": {"every": 1, "examples": 2, "diagonals": [1]}, "evaluate": {"every": 1, "batch_size": 16},
    }  # fmt: skip


def refuse_one_after_the_other(recipe, tmp_path, prepare) -> set[str]:
    """`prepare(place)`, then the run with one operation refused, and then again; returns the kinds of operations."""
    prepare(tmp_path / "whole")
    disk = Disk(tmp_path / "whole", native=NATIVE)
    with disk.watched():
        train(recipe, tmp_path / "whole")
    whole = left_by(tmp_path / "whole")
    for number in chosen(disk.done, SOME):
        place, operation = tmp_path / str(number) / "run", f"{number}: {disk.done[number]}"
        prepare(place)
        with warnings.catch_warnings(), Disk(place, refused=number, native=NATIVE).watched():
            warnings.simplefilter("ignore")
            try:
                train(recipe, place)
            except InputError as error:
                assert "\n" not in str(error), (operation, error)
            except OSError as error:
                pytest.fail(f"{operation} ended the run with {type(error).__name__}: {error}")
        assert_whole(place)
        train(recipe, place)
        if refused_checkpoint(place):  # it is said, and what was trained is the same
            assert losses(place) == losses(tmp_path / "whole"), operation
            continue
        but = (*CLOCKS, "diagonal") if lost_diagonal(place) else CLOCKS
        left, expected = left_by(place, but), left_by(tmp_path / "whole", but)
        for kind in ("scores", "predictions", "series"):
            assert left[kind] == expected[kind], (operation, kind)
        for name, tensors in whole["tensors"].items():
            assert all(torch.equal(left["tensors"][name][k], v) for k, v in tensors.items()), (operation, name)
    return {operation.split()[0] for operation in disk.done}


def test_whatever_fails_once_a_run_ends_as_if_nothing_had_failed(small, tmp_path):
    kinds = refuse_one_after_the_other(small, tmp_path, prepare=lambda place: None)
    assert kinds >= {"open", "write", "fsync", "rename", "replace", "mkdir", "save_file", "load_file"}


def test_whatever_fails_once_a_resumed_run_ends_as_if_nothing_had_failed(small, tmp_path):
    """It died before its results were written: recipe, journal and checkpoint are read again."""
    train(small, tmp_path / "died")
    (tmp_path / "died" / "results.json").unlink()
    kinds = refuse_one_after_the_other(
        small, tmp_path, prepare=lambda place: shutil.copytree(tmp_path / "died", place)
    )
    assert kinds >= {"open", "read", "load_file", "write", "replace"}
