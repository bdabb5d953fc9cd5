"""The reader: the journals of one run directory, merged into the one series the run would have written
undisturbed.

- A torn last line (a crash, or a writer that is at it) is not yet a record and is ignored.
- A later attempt supersedes: of every earlier attempt the records after its `resumed_from_step` are
  dropped, and of those exactly at that step the ones it wrote again.
- A damaged line that is not the last (a bad disk, an editor) costs that line alone: it is reported in
  `Run.damaged` with file and line, or raises `InputError` with `strict=True`. A journal whose *first* line
  is damaged always raises: without a start record nobody knows what it supersedes.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import from_json  # four times as fast as json on numbers, and here with pydantic anyway

from fishlens.errors import InputError
from fishlens.files import open_regular
from fishlens.journal.ends import first_line, last_record, lines_of
from fishlens.journal.kinds import FORMAT, KINDS, MINOR, START, identity
from fishlens.journal.records import is_alive
from fishlens.names import printable

Record = dict[str, Any]
# bytes that a line must have for a name in it to be unfit to be shown (`names.printable`)
_UNFIT = re.compile(
    rb"\\u|[\x00-\x1f\x7f]|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]"
)
MOST_DAMAGED = 1000  # lines of one journal that are named one by one
_NAME = re.compile(r"journal-([1-9]\d{0,5})\.jsonl")


@dataclass(frozen=True)
class Attempt:
    """One journal file as it stands: its start record and the records after it, in the order written."""

    path: Path
    start: Record
    records: list[Record]
    last_step: int
    last_time: float
    damaged: list[str]
    more_damaged: int = 0  # lines beyond `MOST_DAMAGED`


@dataclass(frozen=True)
class Run:
    """One run: the last attempt's start record and the merged records of all attempts, in order."""

    path: Path
    start: Record
    records: list[Record]
    attempts: int
    last_step: int
    last_time: float
    damaged: list[str] = field(default_factory=list)
    starts: list[Record] = field(default_factory=list)  # of the attempts that records are left of, in order
    id: str = ""
    more_damaged: int = 0

    @property
    def blocks(self) -> list[str]:
        """Block names, bottom to top."""
        return list(self.start.get("blocks") or {})

    @property
    def end(self) -> Record | None:
        """The end record of the last attempt, if it has one."""
        mine = (r for r in reversed(self.records) if r["attempt"] == self.start["attempt"])
        return next((record for record in mine if record["kind"] == "end"), None)

    @property
    def status(self) -> str:
        """finished, interrupted or failed as written; else running or died where its process can be looked up
        (same machine), and unfinished where it cannot."""
        if self.end:
            return str(self.end.get("status"))
        return {True: "running", False: "died", None: "unfinished"}[is_alive(self.start.get("process"))]


def attempts(run_dir: str | Path) -> list[tuple[int, Path]]:
    """The journals of one run directory, `(attempt, file)` in order; empty when there is none.

    Raises `InputError` for a directory that cannot be read.
    """
    try:
        names = os.listdir(run_dir)  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"{run_dir} cannot be read: {error.strerror}") from None
    matches = [match for match in map(_NAME.fullmatch, names) if match]
    return sorted((int(match[1]), Path(run_dir, match[0])) for match in matches)


@dataclass(frozen=True)
class Standing:
    """How far a run is: its last journal, begun or not (0: none), and how that ended (None: it has no end)."""

    attempt: int = 0
    ended: str | None = None


def standing(run_dir: str | Path) -> Standing:
    """Asked before one chooses where to go on; `JournalWriter.open(after=…)` refuses where it has changed by then."""
    there = attempts(run_dir)
    if not there:
        return Standing()
    number, path = there[-1]
    try:
        last = last_record(path) or {}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return Standing(number, str(last.get("status")) if last.get("kind") == "end" else None)


def start_of(path: Path) -> Record | None:
    """A journal's start record; None where it holds no whole line (its process died, or its disk was full, at once).

    Raises `InputError` for what is not a journal of ours.
    """
    try:
        line = first_line(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return None if line is None else _start_record(path, line)


def first_start(run_dir: str | Path) -> Record:
    """The start record of a run's first attempt. Raises `InputError` where none has begun."""
    for _, path in attempts(run_dir):
        if (start := start_of(path)) is not None:
            return start
    raise not_begun(run_dir)


def not_begun(run_dir: str | Path) -> InputError:
    """What to say of a folder without a start record: is there a journal at all?"""
    if attempts(run_dir):
        return InputError(
            f"{run_dir} has only just begun, or its process died at once: there is no record in its journal yet"
        )
    return InputError(f"{run_dir} holds no run that has begun; expected a journal with a start record")


def begun(run_dir: str | Path) -> bool:
    """Has a run begun in this directory? A journal that cannot be read counts: it is somebody's."""
    for _, path in attempts(run_dir):
        try:
            if start_of(path) is not None:
                return True
        except InputError:
            return True
    return False


def run_id(start: Record) -> str:
    """Identity of a run, from its first attempt's start record: its id, or made of what only this run's record says."""
    if start.get("id"):
        return str(start["id"])
    said = [start.get(name) for name in ("time", "run", "process", "factors", "seeds")]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def read_run(run_dir: str | Path, *, kinds: Collection[str] | None = None, strict: bool = False) -> Run:
    """Read and merge the attempts of one run; with `kinds`, only records of those kinds (much faster than
    all).

    Raises `InputError` naming file and line for a file that is not a journal, of a newer format, or, when
    `strict`, damaged in the middle.
    """
    journals = attempts(run_dir)
    read = [read_attempt(path, kinds=kinds) for _, path in journals]
    begun = [attempt for attempt in read if attempt is not None]
    if not begun:
        raise not_begun(run_dir)
    damaged = missing_attempts(
        Path(run_dir), [number for number, _ in journals], [attempt.start for attempt in begun]
    )
    damaged += [line for attempt in begun for line in attempt.damaged]
    if strict and damaged:
        raise InputError(damaged[0])
    records = list(begun[-1].records)
    last_step = begun[-1].last_step
    starts = [begun[-1].start]
    limit: float = math.inf  # the earliest step from which any later attempt began again
    for earlier, later in zip(begun[-2::-1], begun[:0:-1], strict=True):
        resumed = later.start.get("resumed_from_step")
        limit = min(limit, -1 if resumed is None else resumed)
        records = _continue(earlier.records, records, limit)
        if limit > 0:
            starts.insert(0, earlier.start)
        last_step = max(last_step, min(earlier.last_step, int(limit)))
    last = begun[-1]
    return Run(
        Path(run_dir),
        last.start,
        records,
        len(begun),
        last_step,
        last.last_time,
        damaged,
        starts,
        run_id(begun[0].start),
        sum(attempt.more_damaged for attempt in begun),
    )


def missing_attempts(run_dir: Path, numbers: list[int], starts: list[Record]) -> list[str]:
    """What is not there and would have been read: attempts whose files are gone, up to where the next one went on."""
    told = []
    for number in sorted(set(range(1, max(numbers) + 1)) - set(numbers)):
        later = [start.get("resumed_from_step") for start in starts if start["attempt"] > number]
        steps = min((0 if step is None else step for step in later), default=0)
        if steps > 0:
            told.append(
                f"{run_dir}: journal-{number}.jsonl is missing, and with it records up to step {steps}, from which a "
                "later attempt went on"
            )
    return told


def _continue(earlier: list[Record], later: list[Record], step: float) -> list[Record]:
    """`earlier` up to `step`, then `later`; what `later` wrote again is taken from `later`."""
    again = {identity(record) for record in later if record["step"] <= step}
    kept = [r for r in earlier if r["step"] <= step and r["kind"] != "end" and identity(r) not in again]
    return kept + later


def read_attempt(path: Path, *, kinds: Collection[str] | None = None) -> Attempt | None:
    """Read one journal file; None when it holds no whole line yet (its writer has just begun, or died)."""
    read = _Reading(path, KINDS.keys() if kinds is None else kinds)
    try:
        with open_regular(path) as file:
            for line in lines_of(file):
                read.take(line)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return read.attempt()


class _Reading:
    """A journal on its way to an `Attempt`, line by line."""

    def __init__(self, path: Path, kinds: Collection[str]):
        self._path, self._kinds = path, kinds
        self._skip = tuple(b'{"kind":"%s"' % kind.encode() for kind in KINDS.keys() - set(kinds))
        self._start: Record | None = None
        self._lines, self._newer = 0, False
        self._records: list[Record] = []
        self._damaged: list[str] = []
        self._more = 0
        self._last: Record = {}
        self._passed: bytes | None = None  # the line before, where its kind was not asked for

    def take(self, line: bytes) -> None:
        self._lines += 1
        if self._start is None:
            self._start = _start_record(self._path, line)
            self._newer = (self._start.get("minor") or 0) > MINOR
            self._last = {"step": 0, "time": self._start.get("time")}
            return
        self._passed = line if self._skip and line.startswith(self._skip) else None
        if self._passed is None:
            self._read(line)

    def _read(self, line: bytes) -> None:
        assert self._start is not None
        try:
            record = parse_record(line, self._newer)
        except ValueError as problem:
            if len(self._damaged) < MOST_DAMAGED:
                self._damaged.append(f"{self._path}, line {self._lines}: {problem}")
            else:
                self._more += 1
            return
        if record is None:
            return
        self._last = record
        if record["kind"] in self._kinds:
            record["attempt"] = self._start["attempt"]
            self._records.append(record)

    def attempt(self) -> Attempt | None:
        if self._start is None:
            return None
        if self._passed is not None:  # the last line says how far the run is, whatever its kind
            self._read(self._passed)
        last = self._last
        when = last.get("time") or 0.0
        return Attempt(self._path, self._start, self._records, last["step"], when, self._damaged, self._more)


def parse_record(line: bytes, newer: bool) -> Record | None:
    """Decode one line after the first; None for a kind that only a newer version has. Raises `ValueError` in words
    when it is not a record.
    """
    try:
        record = from_json(line, cache_strings="keys")
    except ValueError:
        raise ValueError("not a JSON object; expected a record") from None
    name = record.get("kind") if isinstance(record, dict) else None
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        if newer and isinstance(name, str):
            return None
        raise ValueError(f"not a record; expected an object whose kind is one of {', '.join(KINDS)}")
    if kind is START:
        raise ValueError("a second start record; each attempt has its own file")
    if problem := kind.problem(record):
        raise ValueError(problem)
    return _shown(record) if _UNFIT.search(line) else record


def _start_record(path: Path, line: bytes) -> Record:
    try:
        start = from_json(line)
        if start["kind"] != "start" or type(start["attempt"]) is not int or type(start["format"]) is not int:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}, line 1: expected the start record of a fishlens journal") from None
    if start["format"] > FORMAT:
        raise InputError(
            f"{path} has journal format {start['format']}; expected at most {FORMAT}: upgrade fishlens"
        )
    if problem := START.problem(start):
        raise InputError(f"{path}, line 1: {problem}")
    return _shown(start) if _UNFIT.search(line) else start


def _shown(value: Any) -> Any:
    """A value with every name in it printable: no reader of journals ever meets a control sequence."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): _shown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return value
