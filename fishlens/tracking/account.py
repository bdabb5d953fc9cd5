"""How every training under `fishlens track` ended, said in one block when the program ends.

Processes of a program (launchers, their children) share one file of JSON lines, to which each appends; the process that
`fishlens track` has become reads it at its end. Without such a file nothing is recorded.
"""

import contextlib
import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fishlens.tracking.guard import say

_numbers = itertools.count(1)


@dataclass
class Training:
    """One training, as the account has it. `run`: where it is tracked. `because`: why it is not, or what went wrong."""

    name: str
    run: str | None = None
    resumed: int | None = None
    asked: str | None = None
    because: str | None = None


class Entry:
    """The account of one training, by whoever tracks it."""

    def __init__(self, place: str | None, name: str):
        self._place, self._id = place, f"{os.getpid()}-{next(_numbers)}"
        self._add(name=name)

    def tracked(self, run: Path, resumed: int | None, asked: Path | None) -> None:
        """It is tracked in `run`, which goes on from step `resumed`; `asked`: another name that was asked for."""
        self._add(run=str(run), resumed=resumed, asked=None if asked is None else str(asked))

    def untracked(self, because: str) -> None:
        self._add(because=because)

    def dropped(self) -> None:
        """Another callback has it: this entry does not count."""
        self._add(dropped=True)

    def _add(self, **fields: Any) -> None:
        if not self._place:
            return
        line = json.dumps({"id": self._id, **fields}) + "\n"
        with contextlib.suppress(OSError), Path(self._place).open("a", encoding="utf-8") as file:
            file.write(line)  # one write of one line: processes do not mix


def read(place: Path) -> list[Training]:
    """Every training of the account, in the order in which they began."""
    found: dict[str, Training] = {}
    for line in place.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        name = entry.pop("id")
        if "dropped" in entry:
            found.pop(name, None)
            continue
        training = found.setdefault(name, Training(entry.get("name", "")))
        for key, value in entry.items():
            setattr(training, key, value)
    return list(found.values())


def say_what_was_tracked(place: Path) -> None:
    """The block of lines at the end of a program."""
    for line in lines(read(place)):
        say(line)


def lines(trainings: list[Training]) -> list[str]:
    """The account in words: how many trainings, which were tracked where, which not and why, what was resumed."""
    if not trainings:
        return [
            "NOTHING WAS TRACKED: no transformers Trainer has begun to train in this program, or the script has taken "
            "our callback out of it. In a loop of your own use fishlens.watching or fishlens.Tracker; a Trainer in "
            "another program needs its environment (FISHLENS_TRACK, PYTHONPATH)."
        ]
    tracked = sum(training.run is not None for training in trainings)
    found = []
    if not tracked:
        found.append("NOTHING WAS TRACKED")
    if len(trainings) > 1:
        found.append(f"{len(trainings)} trainings began, {tracked} tracked")
    for number, training in enumerate(trainings, start=1):
        which = f"training {number} ({training.name}) " if len(trainings) > 1 else ""
        found.append(which + _outcome(training))
    return found


def _outcome(training: Training) -> str:
    if training.run is None:
        return f"NOT TRACKED, because {training.because or 'it ended before its first update'}"
    text = f"tracked in {training.run}"
    if training.resumed is not None:
        text += f", resumed at step {training.resumed}"
    if training.asked is not None:
        text += f" (not in {training.asked}: its checkpoint belongs to this run)"
    if training.because is not None:
        text += f"; BUT {training.because}"
    return text
