"""Where a Trainer's training is written: a run of its own, or the one that it goes on from."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fishlens.errors import InputError, first_line
from fishlens.journal import JournalWriter, attempts
from fishlens.tracking.resumption import (
    Origin,
    free_name,
    has_finished,
    is_one_of,
    open_free,
    origin_of_checkpoint,
)


@dataclass(frozen=True)
class Found:
    """`goes_on`: a run in `run` is gone on with, else it is new. `in_vain`: another name that was asked for."""

    run: Path
    goes_on: bool
    in_vain: Path | None = None


@dataclass(frozen=True)
class RunPlace:
    """Looks for the place of one training, which begins after `first_step` updates.

    named: the name that the user has given. own: runs of earlier trainings of the same callback, beside which a
    further one may stand. always: the run of a checkpoint goes on, finished or not, whatever was named; and a name that
    is taken is given a number (under `fishlens track`).
    """

    args: Any
    state: Any
    first_step: int
    named: Path | None
    own: Collection[Path] = ()
    always: bool = False

    def origin(self) -> Origin | None:
        """The run that the checkpoint belongs to which training goes on from."""
        return origin_of_checkpoint(self.args, self.state) if self.first_step else None

    def find(self) -> Found:
        """Raises `InputError` if the name is taken."""
        origin, asked = self.origin(), self._asked()
        if origin is not None and origin.ends is None:
            stored = origin.run
            if (
                asked is None
                or self.always
                or not has_finished(stored)
                or stored.resolve() == asked.resolve()
            ):
                as_named = self.named is None or is_one_of(stored, self.named)
                return Found(stored, True, None if as_named else self.named)
        if asked is None:
            return Found(self._free_name(), False)
        if attempts(asked):
            if self.first_step and (origin is None or not has_finished(asked)):
                return Found(asked, True)
            if not self.first_step and asked.resolve() not in self.own:
                raise InputError(f"{asked} already holds a run: resume it, or choose another name")
        return Found(free_name(asked), False)

    def take(self, start: dict[str, Any], note: Callable[[str], None]) -> tuple[JournalWriter, Path | None]:
        """The run's journal, and a name that was asked for in vain.

        A run that another process holds, and a name that was free when training began and is taken by now, are no
        reason not to track: the next free name is taken, and `note` is told so.
        """
        step, because = self.first_step or None, None
        try:
            found = self.find()
            run = found.run
            if found.goes_on:
                return JournalWriter.open(run, start, step), found.in_vain
        except InputError as error:
            run, because = self._asked() or self._free_name(), first_line(error)
        writer = open_free(run, start, step)
        origin = self.origin()
        if because is None and step is not None:
            because = "no run is known that the checkpoint belongs to" if origin is None else origin.ends
        if because is not None:
            note(f"a run of its own, {writer.path.parent}: {because}")
        return writer, None

    def _asked(self) -> Path | None:
        return free_name(self.named) if self.named is not None and self.always else self.named

    def _free_name(self) -> Path:
        return free_name(Path("runs") / (Path(self.args.output_dir).resolve().name or "run"))
