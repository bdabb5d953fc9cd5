"""The reader: the journals of one run directory, merged into the one series the run would have written
undisturbed.

- A torn last line (a crash, or a writer that is at it) is no record yet and is ignored.
- A later attempt supersedes: of every earlier attempt the records after its `resumed_from_step` are
  dropped, and of those exactly at that step the ones it wrote again.
- A damaged line that is not the last (a bad disk, an editor) costs that line alone: it is reported in
  `Run.damaged` with file and line, or raises `InputError` with `strict=True`. A journal whose *first* line
  is damaged always raises: without a start record nobody knows what it supersedes.
"""

import glob
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import from_json  # four times as fast as json on numbers, and here with pydantic anyway

from fishlens.errors import InputError
from fishlens.journal.kinds import FORMAT, KINDS, MINOR, START, identity
from fishlens.journal.records import is_alive

Record = dict[str, Any]
_NAME = re.compile(r"journal-([1-9]\d*)\.jsonl")


@dataclass(frozen=True)
class Attempt:
    """One journal file as it stands: its start record and the records after it, in the order written."""

    path: Path
    start: Record
    records: list[Record]
    last_step: int
    last_time: float
    damaged: list[str]


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

    @property
    def blocks(self) -> list[str]:
        """Block names, bottom to top."""
        return list(self.start.get("blocks") or {})

    @property
    def end(self) -> Record | None:
        """The end record of the last attempt, if it came to one."""
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
    """The journals of one run directory, `(attempt, file)` in order; empty when there is none."""
    try:
        names = [path.name for path in Path(run_dir).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    matches = [match for match in map(_NAME.fullmatch, names) if match]
    return sorted((int(match[1]), Path(run_dir, match[0])) for match in matches)


def find_runs(where: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Run directories under a directory, matching a glob, or of a list of either; sorted, each once.

    Raises `InputError` when something named does not exist or holds no run.
    """
    if isinstance(where, str | os.PathLike):
        found = list(_runs_below(os.fspath(where)))
        if not found:
            raise InputError(f"{where} holds no run: expected a journal-1.jsonl in or below it")
    else:
        found = [run for one in where for run in find_runs(one)]
        if not found:
            raise InputError("no run was named: expected at least one directory or pattern")
    return sorted(set(found))


def _runs_below(where: str) -> Iterator[Path]:
    if not os.path.isdir(where):  # noqa: PTH112
        matches = [match for match in glob.glob(where, recursive=True) if Path(match).is_dir()]  # noqa: PTH207
        if not matches:
            raise InputError(f"{where} is not a directory, and as a pattern matches none")
        for match in matches:
            yield from _runs_below(match)
        return
    for folder, subfolders, files in os.walk(where):
        if any(map(_NAME.fullmatch, files)):
            subfolders.clear()  # nothing of a run lies deeper than its journal
            yield Path(folder)


def read_run(run_dir: str | Path, *, kinds: Collection[str] | None = None, strict: bool = False) -> Run:
    """Read and merge the attempts of one run; with `kinds`, only records of those kinds (much faster than
    all).

    Raises `InputError` naming file and line for a journal that is no journal, of a newer format, or, when
    `strict`, damaged in the middle.
    """
    read = [read_attempt(path, kinds=kinds) for _, path in attempts(run_dir)]
    begun = [attempt for attempt in read if attempt is not None]
    if not begun:
        raise InputError(f"{run_dir} holds no run that has begun: expected a journal with a start record")
    damaged = [line for attempt in begun for line in attempt.damaged]
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
    return Run(Path(run_dir), last.start, records, len(begun), last_step, last.last_time, damaged, starts)


def _continue(earlier: list[Record], later: list[Record], step: float) -> list[Record]:
    """`earlier` up to `step`, then `later`; what `later` wrote again is taken from `later`."""
    again = {identity(record) for record in later if record["step"] <= step}
    kept = [r for r in earlier if r["step"] <= step and r["kind"] != "end" and identity(r) not in again]
    return kept + later


def read_attempt(path: Path, *, kinds: Collection[str] | None = None) -> Attempt | None:
    """Read one journal file; None when it holds no whole line yet (its writer has just begun, or died)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    lines = data.split(b"\n")
    torn = lines.pop()  # empty when the last record is whole
    if torn and _is_whole(torn):
        lines.append(torn)
    if not lines:
        return None
    start = _start_record(path, lines[0])
    skip = tuple(b'{"kind":"%s"' % kind.encode() for kind in KINDS.keys() - set(kinds)) if kinds else ()
    records: list[Record] = []
    damaged: list[str] = []
    attempt = start["attempt"]
    newer = (start.get("minor") or 0) > MINOR
    last: Record = {"step": 0, "time": start.get("time")}
    for position, line in enumerate(lines[1:], start=2):
        if skip and line.startswith(skip) and position < len(lines):
            continue
        try:
            record = _record(line, newer)
        except ValueError as problem:
            damaged.append(f"{path}, line {position}: {problem}")
            continue
        if record is None:
            continue
        last = record
        if kinds is None or record["kind"] in kinds:
            record["attempt"] = attempt
            records.append(record)
    return Attempt(path, start, records, last["step"], last.get("time") or 0.0, damaged)


def _is_whole(line: bytes) -> bool:
    """Does only the newline miss? A record is an object, so its closing brace is proof."""
    try:
        return isinstance(from_json(line), dict)
    except ValueError:
        return False


def _record(line: bytes, newer: bool) -> Record | None:
    """Decode one line after the first; None for a kind that only a newer version has. Raises `ValueError` in words
    when it is not a record.
    """
    try:
        record = from_json(line, cache_strings="keys")
    except ValueError:
        raise ValueError("not a JSON object, expected a record") from None
    name = record.get("kind") if isinstance(record, dict) else None
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        if newer and isinstance(name, str):
            return None
        raise ValueError(f"not a record: expected an object whose kind is one of {', '.join(KINDS)}")
    if kind is START:
        raise ValueError("a second start record; each attempt has its own file")
    if problem := kind.problem(record):
        raise ValueError(problem)
    return record


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
    return start
