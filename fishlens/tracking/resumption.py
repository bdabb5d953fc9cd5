"""Finding a run again: a small file beside each of the Trainer's checkpoints says whose it is.

Beside it and not in the Trainer's own state, because that is restored on request only and is the script's output.
"""

import itertools
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fishlens.errors import InputError, first_line
from fishlens.files import write_file
from fishlens.journal import JournalWriter, RunHeld, Standing, attempts, read_run
from fishlens.journal.reader import first_start, run_id
from fishlens.tracking.guard import say

STATE_FILE = "fishlens.json"


def write_state(args: Any, state: Any, name: str, content: dict[str, Any]) -> None:
    """Beside the Trainer's checkpoint, whole or not at all. A disk that refuses is said: the checkpoint itself is the
    Trainer's affair."""
    if not state.is_world_process_zero:
        return
    place = Path(args.output_dir) / f"checkpoint-{state.global_step}" / name
    try:
        write_file(place, json.dumps(content))
    except OSError as error:
        say(f"{place} could not be written: {error.strerror}")
    except InputError as error:
        say(f"{place} could not be written: {error}")


def read_state(args: Any, state: Any, name: str) -> dict[str, Any] | None:
    """What `write_state` left at the checkpoint that training goes on from; None if there is none.

    Raises `InputError` for a file that is damaged.
    """
    for place in _checkpoints(args, state):
        if (place / name).is_file():
            try:
                content = json.loads((place / name).read_text(encoding="utf-8"))
                return {**content, "found_at": str(place)}
            except (OSError, ValueError, TypeError, RecursionError) as error:
                raise damaged(place / name, error) from None
    return None


def damaged(file: Path, error: BaseException) -> InputError:
    return InputError(
        f"{file} is damaged ({type(error).__name__}: {first_line(error)}); expected it as it was written"
    )


def write_run(args: Any, state: Any, run: Path) -> None:
    """Whose the checkpoint is: by the run's id and full path, and by the way from here, in case both are moved
    together; and where it was written, so that a copy is told from it."""
    place = Path(args.output_dir).resolve() / f"checkpoint-{state.global_step}"
    content = {
        "run": str(run.resolve()),
        "way": os.path.relpath(run.resolve(), place),
        "id": run_id(first_start(run)),
        "checkpoint": str(place),
    }
    write_state(args, state, STATE_FILE, content)


@dataclass(frozen=True)
class Origin:
    """The run that a checkpoint was written by. `ends`: why training from the checkpoint does not go on in it."""

    run: Path
    ends: str | None


def origin_of_checkpoint(args: Any, state: Any) -> Origin | None:
    """The run that training goes on from, wherever it lies now; None if there is none.

    Training goes on *in* it unless the checkpoint is a copy, or the run has finished after the checkpoint: the steps
    after it would be lost to every reader.
    """
    try:
        stored = read_state(args, state, STATE_FILE)
        if stored is not None and not all(_is_text(stored.get(name)) for name in _TOLD):
            raise damaged(
                Path(stored["found_at"]) / STATE_FILE, TypeError("a path or an id that is not text")
            )
    except InputError as error:
        say(str(error))
        return None
    if stored is None or not stored.get("run"):
        return None
    here, written = Path(stored["found_at"]).resolve(), Path(stored["run"])
    places = [Path(os.path.normpath(here / stored["way"]))] if stored.get("way") else []
    run = next((place for place in [*places, written] if _is_run(place, stored.get("id"))), None)
    if run is None:
        return None
    original = Path(stored["checkpoint"]) if stored.get("checkpoint") else here
    if run.resolve() == written.resolve() and here != original.resolve() and original.exists():
        return Origin(run, f"the checkpoint is a copy of {original}")
    found = read_run(run, kinds=("end",))
    if found.status == "finished" and found.last_step > state.global_step:
        return Origin(run, f"the checkpoint is of step {state.global_step} and the run has finished")
    return Origin(run, None)


_TOLD = ("run", "way", "id", "checkpoint")


def _is_text(value: Any) -> bool:
    """Can it be a path or an id?"""
    if not isinstance(value, str):
        return value is None
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def _is_run(place: Path, number: str | None) -> bool:
    """Is this the run of that id? Any run will do where an older version wrote no id."""
    try:
        return bool(attempts(place)) and (number is None or run_id(first_start(place)) == number)
    except InputError:
        return False


def has_finished(run: Path) -> bool:
    """Did the last attempt of a run come to its end?"""
    return read_run(run, kinds=("end",)).status == "finished"


def free_name(place: Path) -> Path:
    """`place`, or `place-2`, … : the first that holds no run now. `open_free` makes it one's own."""
    return next(name for name in _names(place) if not attempts(name))


def open_free(place: Path, start: dict[str, Any], resumed_from_step: int | None = None) -> JournalWriter:
    """A new run in `place`, or in `place-2`, … : the first in which its journal could be created.

    Choosing the name and taking it are one step, so that scripts that begin in one moment each get a run.
    """
    for name in _names(place):
        if attempts(name):
            continue
        try:
            return JournalWriter.open(name, start, resumed_from_step, after=Standing())
        except RunHeld:
            continue  # taken since
    raise AssertionError("names never end")


def _names(place: Path) -> "itertools.chain[Path]":
    return itertools.chain(
        [place], (place.with_name(f"{place.name}-{number}") for number in itertools.count(2))
    )


def is_one_of(run: Path, place: Path) -> bool:
    """Is it `place`, or `place-2`, …, as `free_name` makes them?"""
    run, place = run.resolve(), place.resolve()
    numbered = re.fullmatch(rf"{re.escape(place.name)}(-\d+)?", run.name)
    return run.parent == place.parent and numbered is not None


def _checkpoints(args: Any, state: Any) -> list[Path]:
    """Where the checkpoint may lie that training goes on from, the likeliest first."""
    if state.global_step == 0:
        return []
    given = [_given_to_train(), args.resume_from_checkpoint]
    places = [Path(place) for place in given if isinstance(place, str | os.PathLike)]
    return [*places, Path(args.output_dir) / f"checkpoint-{state.global_step}"]


def _given_to_train() -> Any:
    """The `resume_from_checkpoint` that `Trainer.train` was called with: a callback is not told, so it is read off the
    call that is under way."""
    frame = sys._getframe()
    while frame is not None:
        found = frame.f_locals.get("resume_from_checkpoint")
        if frame.f_code.co_filename.endswith("trainer.py") and isinstance(found, str | os.PathLike):
            return found
        frame = frame.f_back  # type: ignore[assignment]
    return None
