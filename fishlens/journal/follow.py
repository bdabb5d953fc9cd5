"""Following a run while it is written: what every look reads is what is new.

The last journal is read from where the look before has stopped. All of the run is read again only where that is not
enough: another attempt has begun, which supersedes what was read, or the file was replaced.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from pydantic_core import from_json

from fishlens.errors import InputError
from fishlens.files import open_regular
from fishlens.journal.ends import LONGEST, NO_RECORD
from fishlens.journal.kinds import MINOR
from fishlens.journal.reader import Record, attempts, missing_attempts, not_begun, parse_record, start_of


class Taker(Protocol):
    """What the records of a run go into, one by one, as `read_run` would merge them.

    A record that a later attempt wrote again comes twice (`kinds.identity` is the same): the later one counts.
    """

    def begin(self, start: Record) -> None:
        """An attempt begins."""

    def take(self, record: Record) -> None:
        """The next record."""

    def damaged(self, text: str) -> None:
        """Something that could not be read."""


Taken = TypeVar("Taken", bound=Taker)


class Follower(Generic[Taken]):
    """Gives the records of the run in `run_dir` to what `make` makes; anew where all of the run is read again."""

    def __init__(self, run_dir: Path, make: Callable[[], Taken]):
        self._run_dir, self._make = run_dir, make
        self._journals: list[tuple[int, Path]] = []
        self._waiting: list[Path] = []  # journals without a start record yet
        self._last: _Journal | None = None
        self._taken: Taken | None = None
        self.bytes_read = 0

    def look(self) -> Taken:
        """Everything up to now. Raises `InputError` where there is no run, or it cannot be read."""
        journals = attempts(self._run_dir)
        begun = any(start_of(path) is not None for path in self._waiting)
        if self._taken is None or self._last is None or journals != self._journals or begun:
            return self._read_all(journals)
        if self._last.was_replaced():
            return self._read_all(journals)
        self._read(self._last, self._taken, None)
        return self._taken

    def _read_all(self, journals: list[tuple[int, Path]]) -> Taken:
        started = [(path, start_of(path)) for _, path in journals]
        begun = [(path, start) for path, start in started if start is not None]
        if not begun:
            raise not_begun(self._run_dir)
        self._journals, self._waiting = journals, [path for path, start in started if start is None]
        taken = self._taken = self._make()
        starts = [start for _, start in begun]
        for text in missing_attempts(self._run_dir, [number for number, _ in journals], starts):
            taken.damaged(text)
        for number, (path, start) in enumerate(begun):
            later = [one.get("resumed_from_step") for one in starts[number + 1 :]]
            until = min((-1 if step is None else step for step in later), default=None)
            taken.begin(start)
            try:
                self._last = _Journal(path, newer=(start.get("minor") or 0) > MINOR)
            except OSError as error:
                raise InputError(f"{path} cannot be read: {error.strerror}") from None
            self._read(self._last, taken, until)
        return taken

    def _read(self, journal: "_Journal", taken: Taken, until: int | None) -> None:
        """What is new in a journal; of one that was superseded, only what came up to step `until`."""
        before = journal.bytes_read
        try:
            for one in journal.new():
                if isinstance(one, str):
                    taken.damaged(one)
                elif until is None or (one["step"] <= until and one["kind"] != "end"):
                    taken.take(one)
        except OSError as error:
            raise InputError(f"{journal.path} cannot be read: {error.strerror}") from None
        finally:
            self.bytes_read += journal.bytes_read - before


class _Journal:
    """One journal file, read from where the last time stopped: a few lines at a time, whatever its length."""

    def __init__(self, path: Path, *, newer: bool):
        self.path, self._newer = path, newer
        self.bytes_read = 0
        self._position = self._lines = 0
        self._unbroken = False  # the last record was whole and its line break still to come
        there = path.stat()
        self._file = (there.st_dev, there.st_ino)

    def was_replaced(self) -> bool:
        """Is another file at the path, or has this one become shorter?"""
        try:
            there = self.path.stat()
        except OSError:
            return True
        return (there.st_dev, there.st_ino) != self._file or there.st_size < self._position

    def new(self) -> Iterator[Record | str]:
        """The records after the start record that were not read before, and in words what is none."""
        for line in self._new_lines():
            if self._unbroken and not line:
                self._unbroken = False
                continue
            self._lines += 1
            if self._lines == 1:
                continue  # the start record
            try:
                record = parse_record(line, self._newer)
            except ValueError as problem:
                yield f"{self.path}, line {self._lines}: {problem}"
                continue
            if record is not None:
                yield record

    def _new_lines(self) -> Iterator[bytes]:
        with open_regular(self.path) as file:
            file.seek(self._position, os.SEEK_SET)
            while line := file.readline(LONGEST):
                self.bytes_read += len(line)
                if line.endswith(b"\n"):
                    self._position += len(line)
                    yield line[:-1]
                elif len(line) == LONGEST:
                    self._position += len(line)
                    yield NO_RECORD
                elif _is_object(line):  # only its line break misses
                    self._position += len(line)
                    self._unbroken = True
                    yield line


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(from_json(line), dict)
    except ValueError:
        return False
