"""The writer: one process appends to one file, and a failing disk never stops the training it describes.

Failure model. A record is handed to the operating system before `write` returns (with `fsync=True`, to the
disk).
`kill -9` therefore loses at most the record being written: a torn last line, which readers ignore. When the
file system refuses (disk full, stale handle), the bytes wait in memory and are tried again with every later
record, from the very byte where the file stopped, so that the journal is whole again once there is room. A
warning says so once. Whatever is still waiting when the process ends is lost, and `close` says how much.
"""

import contextlib
import os
import time
import warnings
from pathlib import Path
from typing import Any

from fishlens.errors import InputError
from fishlens.journal.kinds import FORMAT, KINDS, MINOR
from fishlens.journal.reader import attempts, read_attempt
from fishlens.journal.records import (
    check_status,
    encode,
    installed_versions,
    is_alive,
    plain,
    this_process,
)

WAITING_LIMIT = 64 * 2**20  # bytes kept while the disk refuses; further records are dropped, and counted


class JournalWriter:
    """Appends records to `journal-<attempt>.jsonl`. Open it with `JournalWriter.open`; use as a context
    manager."""

    def __init__(self, path: Path, descriptor: int, *, fsync: bool):
        self.path = path
        self._descriptor: int | None = descriptor
        self._fsync = fsync
        self._waiting = bytearray()
        self._dropped = 0
        self._failing = False
        self._last_step = 0

    @classmethod
    def open(
        cls,
        run_dir: str | Path,
        start: dict[str, Any] | None = None,
        resumed_from_step: int | None = None,
        fsync: bool = False,
    ) -> "JournalWriter":
        """Begin an attempt in `run_dir` (made when missing) and write its start record.

        `start` gives the start record's `factors`, `seeds`, `device`, `estimator`, `blocks` (and `run`,
        `versions` where the defaults, the directory's name and the installed versions, will not do).
        `resumed_from_step` None means a new run: the directory must hold no journal. A number means another
        attempt of the same run, whose weights are those after that many updates (0: from the beginning
        again); readers then drop what earlier attempts wrote after that step.

        Raises `InputError` when the directory cannot be written, already holds a run that is not resumed,
        or is being written by a living process; two processes that ask at the same time never share a file.
        """
        run_dir = Path(run_dir)
        earlier = attempts(run_dir)
        if earlier and resumed_from_step is None:
            raise InputError(
                f"{run_dir} already holds a run ({earlier[-1][1].name}): resume it, or choose another name"
            )
        if earlier:
            _refuse_living_writer(earlier[-1][1])
        attempt = earlier[-1][0] + 1 if earlier else 1
        path = run_dir / f"journal-{attempt}.jsonl"
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError as error:
            if error.filename != os.fspath(path):
                raise InputError(f"{error.filename} is a file; a run needs a directory there") from None
            raise InputError(f"another process has just begun attempt {attempt} of {run_dir}") from None
        except OSError as error:
            raise InputError(f"cannot write a journal in {run_dir}: {error.strerror}") from None
        writer = cls(path, descriptor, fsync=fsync)
        record = {"run": run_dir.resolve().name, "versions": installed_versions(), **(start or {})}
        record |= {
            "format": FORMAT,
            "minor": MINOR,
            "attempt": attempt,
            "resumed_from_step": resumed_from_step,
        }
        writer._append("start", {**record, "process": this_process()})
        return writer

    def write(self, kind: str, step: int, **fields: Any) -> None:
        """Append one record; `step` is the number of completed optimizer updates.

        Raises `ValueError` for a kind or field that the format does not have, `TypeError` for a value that is not
        what `kinds` declares for its field: mistakes in the calling code. A failing disk raises nothing
        (see the top of this file).
        """
        self._last_step = int(step)
        self._append(kind, {"step": self._last_step, **fields})

    def close(
        self,
        status: str | None = None,
        *,
        step: int | None = None,
        error: str | None = None,
        best_step: int | None = None,
    ) -> None:
        """Write the `end` record when `status` is given (finished, interrupted, failed) and close the file.

        Closing twice is allowed. Warns when the disk still refuses what was waiting to be written.
        """
        if self._descriptor is None:
            return
        if status is not None:
            last = self._last_step if step is None else step
            self.write("end", last, status=status, error=error, best_step=best_step)
        self._flush()
        descriptor, self._descriptor = self._descriptor, None
        with contextlib.suppress(OSError):
            os.close(descriptor)
        lost = self._waiting.count(b"\n") + self._dropped
        if lost:
            warnings.warn(f"{self.path}: {lost} records could not be written and are lost", stacklevel=2)

    def __enter__(self) -> "JournalWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, kind: str, fields: dict[str, Any]) -> None:
        if self._descriptor is None:
            raise ValueError(f"{self.path} is closed: a {kind!r} record cannot be written")
        if kind not in KINDS:
            raise ValueError(f"a journal has no records of kind {kind!r}: expected one of {', '.join(KINDS)}")
        unknown = fields.keys() - KINDS[kind].fields.keys()
        if unknown:
            raise ValueError(f"a {kind!r} record has no field {', '.join(map(repr, sorted(unknown)))}")
        if kind == "end":
            check_status(fields["status"])
        record = plain({"kind": kind, "time": time.time(), **fields})
        if problem := KINDS[kind].problem(record):
            raise TypeError(problem)
        line = encode(record)
        if self._waiting:
            self._flush()
        if len(self._waiting) + len(line) > WAITING_LIMIT:
            self._dropped += 1
            return
        self._waiting += line
        self._flush()

    def _flush(self) -> None:
        """Hand what is waiting to the file system; on refusal keep the rest, from the byte where it
        stopped."""
        assert self._descriptor is not None
        try:
            while self._waiting:
                del self._waiting[: os.write(self._descriptor, self._waiting)]
            if self._fsync:
                os.fsync(self._descriptor)
        except OSError as error:
            if not self._failing:
                warnings.warn(
                    f"{self.path} cannot be written ({error.strerror}): records wait in memory",
                    stacklevel=4,
                )
            self._failing = True
            return
        self._failing = False
        if self._dropped:
            text = f"{self._dropped} records were lost: the file system refused them for too long"
            self._dropped = 0
            self.write("note", self._last_step, level="error", text=text)


def _refuse_living_writer(journal: Path) -> None:
    """Two writers of one run would hide each other's records: refuse while the last process lives."""
    last = read_attempt(journal, kinds=("start", "end"))
    if last is None or any(record["kind"] == "end" for record in last.records):
        return
    process = last.start.get("process")
    if process == this_process():
        return  # resumed inside the process that was interrupted
    if process and is_alive(process):
        raise InputError(
            f"{journal.parent} is being written by process {process['pid']} ({journal.name}): "
            "wait for it, or give this run another name"
        )
