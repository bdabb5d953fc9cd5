"""Finding a run again: a small file beside each of the Trainer's checkpoints says whose it is.

Beside it and not in the Trainer's own state, because that is restored on request only and is the script's output.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from fishlens.journal import attempts
from fishlens.journal.reader import read_attempt
from fishlens.tracking.guard import say

STATE_FILE = "fishlens.json"


def write_state(args: Any, state: Any, name: str, content: dict[str, Any]) -> None:
    """Beside the Trainer's checkpoint, whole or not at all. A disk that refuses is said: the checkpoint itself is the
    Trainer's affair."""
    if not state.is_world_process_zero:
        return
    place = Path(args.output_dir) / f"checkpoint-{state.global_step}"
    unfinished = place / f"{name}.writing"
    try:
        unfinished.write_text(json.dumps(content), encoding="utf-8")
        unfinished.replace(place / name)
    except OSError as error:
        say(f"{place / name} could not be written: {error.strerror}")


def read_state(args: Any, state: Any, name: str) -> dict[str, Any] | None:
    """What `write_state` left at the checkpoint that training goes on from; None if there is none."""
    for place in _checkpoints(args, state):
        if (place / name).is_file():
            content = json.loads((place / name).read_text(encoding="utf-8"))
            return {**content, "checkpoint": str(place)}
    return None


def write_run(args: Any, state: Any, run: Path) -> None:
    """Whose the checkpoint is: by its full path, and by the way from here, in case both are moved together."""
    place = Path(args.output_dir).resolve() / f"checkpoint-{state.global_step}"
    way = os.path.relpath(run.resolve(), place)
    write_state(args, state, STATE_FILE, {"run": str(run.resolve()), "way": way})


def run_of_checkpoint(args: Any, state: Any) -> Path | None:
    """The run that training goes on with, wherever it lies now; None if there is none."""
    stored = read_state(args, state, STATE_FILE)
    if stored is None:
        return None
    places = [Path(stored["run"])]
    if stored.get("way"):
        places.insert(0, Path(os.path.normpath(Path(stored["checkpoint"]).resolve() / stored["way"])))
    return next((place for place in places if attempts(place)), None)


def has_finished(run: Path) -> bool:
    """Did the last attempt of a run come to its end?"""
    last = read_attempt(attempts(run)[-1][1], kinds=("start", "end"))
    return last is not None and any(record.get("status") == "finished" for record in last.records)


def free_name(place: Path) -> Path:
    """`place`, or `place-2`, … : the first that holds no run."""
    number, free = 1, place
    while attempts(free):
        number += 1
        free = place.with_name(f"{place.name}-{number}")
    return free


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
