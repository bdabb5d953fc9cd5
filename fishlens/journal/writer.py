"""The writer: one process appends to one file, and a failing disk never stops the training it describes.

Failure model. A record is handed to the operating system before `write` returns (with `fsync=True`, to the
disk).
`kill -9` therefore loses at most the record being written: a torn last line, which readers ignore. When the
file system refuses (disk full), the bytes wait in memory and are tried again with every later
record, from the very byte where the file stopped, so that the journal is whole again once there is room. A
warning says so once. Whatever is still waiting when the process ends is lost, and `close` says how much. A stale
handle is opened anew, and a file that an editor or a sync tool has replaced is followed (`_follow_file`).
"""

import contextlib
import errno
import getpass
import os
import shlex
import socket
import sys
import time
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fishlens.errors import InputError
from fishlens.journal.creation import FLAGS, create
from fishlens.journal.ends import last_record
from fishlens.journal.kinds import FORMAT, KINDS, MINOR
from fishlens.journal.lease import Heartbeat, RunHeld, next_journal, wait_until_gone
from fishlens.journal.provenance import git_state
from fishlens.journal.reader import Standing, attempts, run_id, standing, start_of
from fishlens.journal.records import check_status, encode, installed_versions, plain, this_process

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
        self._heartbeat: Heartbeat | None = None

    @classmethod
    def open(
        cls,
        run_dir: str | Path,
        start: dict[str, Any] | None = None,
        resumed_from_step: int | None = None,
        fsync: bool = False,
        after: Standing | None = None,
    ) -> "JournalWriter":
        """Begin an attempt in `run_dir` (made when missing) and write its start record.

        `start` gives the start record's `factors`, `seeds`, `device`, `estimator`, `blocks` (and `run`,
        `versions` where the defaults, the directory's name and the installed versions, will not do).
        `resumed_from_step` None means a new run: no attempt may have begun in the directory. A number means another
        attempt of the same run, whose weights are those after that many updates (0: from the beginning
        again); readers then drop what earlier attempts wrote after that step. `after`: how the run stood when the
        caller chose where to go on; where it stands otherwise, somebody else went on.

        Raises `InputError` when the directory cannot be written or already holds a run that is not resumed, and
        `RunHeld` when it is being written by a living process, here or on another machine; two processes that ask at
        the same time never share a file. Waits up to `lease.PATIENCE` seconds for a sign of life from another machine.
        """
        run_dir = Path(run_dir)
        earlier = attempts(run_dir)
        last = earlier[-1][0] if earlier else 0
        begun = {path: start_of(path) for _, path in earlier}
        started = [(path, found) for path, found in begun.items() if found is not None]
        if after is not None and last != after.attempt:
            raise RunHeld(f"another process has begun attempt {last} of {run_dir} meanwhile")
        if started and resumed_from_step is None:
            raise InputError(
                f"{run_dir} already holds a run ({started[-1][0].name}): resume it, or choose another name"
            )
        if started:
            _refuse_living_writer(*started[-1])
        attempt = last + 1
        path = run_dir / f"journal-{attempt}.jsonl"
        record = {
            "run": run_dir.resolve().name,
            "versions": installed_versions(),
            "machine": socket.gethostname(),
            "user": user_name(),
            "command": shlex.join(sys.argv),
            "git": git_state(),
            **(start or {}),
            "format": FORMAT,
            "minor": MINOR,
            "id": run_id(started[0][1]) if started else uuid.uuid4().hex,
            "attempt": attempt,
            "resumed_from_step": resumed_from_step,
            "process": this_process(),
        }
        line = checked_line("start", record)
        if after is not None and standing(run_dir) != after:  # the last moment before one's own journal
            raise RunHeld(f"another process has gone on with {run_dir} meanwhile")
        held = RunHeld(f"another process has just begun attempt {attempt} of {run_dir}")
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            descriptor = create(path, line)
        except FileExistsError as error:
            if error.filename == os.fspath(run_dir):
                raise InputError(f"{error.filename} is a file; a run needs a directory there") from None
            raise held from None
        except OSError as error:
            raise InputError(f"cannot write a journal in {run_dir}: {error.strerror}") from None
        if _was_overtaken(path, [one for one, found in begun.items() if found is None]):
            os.close(descriptor)
            raise held
        writer = cls(path, descriptor, fsync=fsync)
        writer._heartbeat = Heartbeat(path)
        if fsync:
            os.fsync(descriptor)
        return writer

    def check_place(self) -> None:
        """Raises `InputError` where the run's folder is gone or renamed, or another process has taken the run over.

        Asked before anything else is written into the folder: a checkpoint of two processes would be nobody's.
        """
        if not self.path.parent.is_dir():
            raise InputError(
                f"{self.path.parent} was renamed or removed while the run was writing in it: the run stops here, "
                "and its journal went with the folder"
            )
        taken = next_journal(self.path)
        if taken.exists():
            raise RunHeld(
                f"{self.path.parent} was taken over by another process ({taken.name}): this one stops"
            )

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
        if self._heartbeat is not None:
            self._heartbeat.stop()
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
        line = checked_line(kind, fields)
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
            self._follow_file()
            while self._waiting:
                del self._waiting[: self._write_some()]
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

    def _write_some(self) -> int:
        """Write what the file takes; a handle that went stale (a file server restarted) is opened anew once."""
        assert self._descriptor is not None
        try:
            return os.write(self._descriptor, self._waiting)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            fresh = os.open(self.path, FLAGS)
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = fresh
            return os.write(fresh, self._waiting)

    def _follow_file(self) -> None:
        """Write to the file at `path`: an editor or a sync tool may have put another one there, or taken it away.

        What the old file has and the new one lacks is carried over, so that nothing is lost; where the two do not agree
        a note says so. Where the folder itself is gone the old file goes on (see `check_place`).
        """
        assert self._descriptor is not None
        mine = os.fstat(self._descriptor)
        try:
            there = self.path.lstat()
            if (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
                return
        except FileNotFoundError:
            if not self.path.parent.is_dir():
                return
        fresh = os.open(self.path, FLAGS | os.O_CREAT, 0o666)
        agrees = _carry_over(self._descriptor, fresh)
        os.close(self._descriptor)
        self._descriptor = fresh
        if not agrees:
            text = (
                f"{self.path.name} was replaced while it was written: records before this one may be missing"
            )
            self._waiting[:0] = checked_line(
                "note", {"step": self._last_step, "level": "error", "text": text}
            )


def checked_line(kind: str, fields: dict[str, Any]) -> bytes:
    """A record as one line. Raises `ValueError` or `TypeError` for what the kind does not have."""
    if kind not in KINDS:
        raise ValueError(f"a journal has no records of kind {kind!r}; expected one of {', '.join(KINDS)}")
    unknown = fields.keys() - KINDS[kind].fields.keys()
    if unknown:
        raise ValueError(f"a {kind!r} record has no field {', '.join(map(repr, sorted(unknown)))}")
    if kind == "end":
        check_status(fields["status"])
    record = plain({"kind": kind, "time": time.time(), **fields})
    if problem := KINDS[kind].problem(record):
        raise TypeError(problem)
    return encode(record)


def user_name() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return None


def _was_overtaken(path: Path, empty: Sequence[Path]) -> bool:
    """Has another process begun beside this one? Only where journals appear empty (`creation`): one that was empty when
    this process looked has a start record now, or another has found this one's empty. This one's is removed then."""
    if next_journal(path).exists():
        return True
    if not any(start_of(one) is not None for one in empty):
        return False
    with contextlib.suppress(OSError):
        path.unlink()
    return True


def _carry_over(old: int, new: int) -> bool:
    """Append to `new` what `old` has beyond its length. False, and a line break at most, where `old` does not begin as
    `new` does."""
    length, longer = os.fstat(new).st_size, os.fstat(old).st_size
    look = min(length, 64 * 1024)
    if length > longer or os.pread(old, look, length - look) != os.pread(new, look, length - look):
        if length and os.pread(new, 1, length - 1) != b"\n":
            os.write(new, b"\n")
        return False
    while length < longer:
        length += os.write(new, os.pread(old, min(2**20, longer - length), length))
    return True


def _refuse_living_writer(journal: Path, start: dict[str, Any]) -> None:
    """Two writers of one run would hide each other's records: refuse while the last process lives."""
    last = last_record(journal)
    if last is not None and last.get("kind") == "end":
        return
    wait_until_gone(journal, start.get("process"), signed=bool(start.get("minor")))
