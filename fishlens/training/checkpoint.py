"""Checkpoints: `checkpoints/step-<n>/`, all or nothing.

A checkpoint is written into a directory of another name, flushed to the disk and renamed: a directory called
`step-<n>` is complete. Whatever goes wrong while it is written (disk full, kill) leaves the earlier ones as they were.
Weights, optimizer and random states are safetensors, the rest is JSON; nothing is pickled.

    weights.safetensors     every parameter that can train, by name
    optimizer.safetensors   AdamW's state, `<parameter>/exp_avg` and so on
    random-<rank>.safetensors
    state.json              step, schedule, best validation so far, …
"""

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fishlens.errors import InputError
from fishlens.files import MARKER, is_own, mark, own_folder, writing

FORMAT = 1
CHECKPOINTS = "checkpoints"  # the folder of them in a run's directory
_NAME = re.compile(r"step-(\d+)")
_ANY_NAME = re.compile(r"(writing-)?step-\d+")
_FILES = re.compile(r"(weights|optimizer|random-\d+)\.safetensors|state\.json|\.[0-9a-f]{12}\.writing")

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds. state: JSON values."""

    step: int
    weights: Tensors
    optimizer: Tensors
    random: Tensors
    state: dict[str, Any]


def list_checkpoints(folder: Path) -> dict[int, Path]:
    """{step: directory} of the complete checkpoints, oldest first."""
    if not folder.is_dir():
        return {}
    found = {int(m[1]): path for path in folder.iterdir() if (m := _NAME.fullmatch(path.name))}
    return dict(sorted(found.items()))


def newest_checkpoint(folder: Path) -> Path | None:
    there = list_checkpoints(folder)
    return there[max(there)] if there else None


def place_for(folder: Path, step: int) -> Path:
    """Where a checkpoint is written before it is whole."""
    return folder / f"writing-step-{step}"


def claim_checkpoints(folder: Path) -> Path:
    """The folder, made and marked as ours. Raises `InputError` where it holds anything but our checkpoints."""
    if folder.is_dir() and not folder.is_symlink() and all(map(_is_ours, folder.iterdir())):
        mark(folder)  # written before folders were marked
    return own_folder(folder)


def begin_checkpoint(folder: Path, step: int) -> Path:
    """An empty directory to write into; what an earlier attempt left there is removed."""
    place = place_for(claim_checkpoints(folder), step)
    remove_checkpoint(place)
    place.mkdir()
    return place


def remove_checkpoint(place: Path) -> None:
    """Remove a checkpoint's own files, and its folder if nothing else is in it."""
    if place.is_symlink() or not place.is_dir():
        return
    with contextlib.suppress(OSError):
        for file in place.iterdir():
            if _FILES.fullmatch(file.name):
                file.unlink()
        place.rmdir()


def remove_all_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a run that needs none any more; what is not ours stays."""
    if not is_own(folder):
        return
    for path in folder.iterdir():
        if _is_ours(path):
            remove_checkpoint(path)
    with contextlib.suppress(OSError):
        if [path.name for path in folder.iterdir()] == [MARKER]:
            (folder / MARKER).unlink()
            folder.rmdir()


def _is_ours(path: Path) -> bool:
    if path.name == MARKER:
        return True
    if path.is_symlink() or not path.is_dir() or not _ANY_NAME.fullmatch(path.name):
        return False
    return all(_FILES.fullmatch(file.name) for file in path.iterdir())


def write_random_state(place: Path, rank: int, tensors: Tensors) -> None:
    _write_tensors(place / f"random-{rank}.safetensors", tensors)


def finish_checkpoint(place: Path, snapshot: Snapshot) -> Path:
    """Write the rest and give the directory its name. Raises `OSError` if the disk refuses; `place` is then gone."""
    try:
        _write_tensors(place / "weights.safetensors", snapshot.weights)
        _write_tensors(place / "optimizer.safetensors", snapshot.optimizer)
        text = json.dumps({"format": FORMAT, "step": snapshot.step, **snapshot.state}, indent=1)
        with (place / "state.json").open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        final = place.with_name(f"step-{snapshot.step}")
        remove_checkpoint(final)
        place.rename(final)
    except BaseException:
        remove_checkpoint(place)
        raise
    _sync_directory(final.parent)
    return final


def read_checkpoint(path: Path, rank: int = 0) -> Snapshot:
    """Raises `InputError` naming the file that is missing or damaged."""
    try:
        _check_regular(path)
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if not isinstance(state, dict):
            raise ValueError("state.json is not an object")
        if state.pop("format") != FORMAT:
            raise InputError(f"{path} is a checkpoint of another format; expected format {FORMAT}")
        step = state.pop("step")
        if type(step) is not int or step < 0:
            raise ValueError(f"step is {step!r}; expected a whole number")
        return Snapshot(
            step=step,
            weights=load_file(path / "weights.safetensors"),
            optimizer=load_file(path / "optimizer.safetensors"),
            random=load_file(path / f"random-{rank}.safetensors"),
            state=state,
        )
    except InputError:
        raise
    except Exception as error:  # safetensors raises its own kinds
        raise InputError(f"the checkpoint {path} cannot be read: {error}") from error


def read_weights(path: Path) -> Tensors:
    """Raises `InputError` naming the file that is missing or damaged."""
    try:
        _check_regular(path)
        return load_file(path / "weights.safetensors")
    except Exception as error:  # safetensors raises its own kinds
        raise InputError(f"the checkpoint {path} cannot be read: {error}") from error


def _check_regular(path: Path) -> None:
    """Raises `ValueError` where a file is none that can be read to its end: a pipe would be waited for."""
    for file in path.iterdir():
        if not file.is_file():
            raise ValueError(f"{file.name} is not a regular file")


def remove_old_checkpoints(folder: Path, keep: int, best_step: int | None) -> None:
    """All but the `keep` newest and the best one, and what a killed attempt left half-written."""
    there = list_checkpoints(folder)
    newest = list(there)[-keep:]
    for step, path in there.items():
        if step not in newest and step != best_step:
            remove_checkpoint(path)
    for path in folder.glob("writing-step-*"):
        remove_checkpoint(path)


def _write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    try:
        with writing(path) as beside:  # safetensors gives a file a mode of its own
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, beside)
            with beside.open("rb") as file:
                os.fsync(file.fileno())
    except SafetensorError as error:  # how it reports a refusing disk
        raise OSError(str(error)) from error


def _sync_directory(path: Path) -> None:
    with contextlib.suppress(OSError):  # not possible on every file system
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
