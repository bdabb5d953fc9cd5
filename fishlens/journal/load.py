"""Columns: the records of many runs as tidy data frames, one row per observation.

Built run by run as numpy columns and joined column by column, so that 13 million rows of `fisher` need
little more memory than the frame itself. Names (run, block, language, …) are categoricals; numbers are
float64, NaN where a record had none.
"""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fishlens.errors import InputError
from fishlens.journal.declarations import BLOCK, Column, Kind
from fishlens.journal.ends import last_record
from fishlens.journal.find import Found, LeftOut, look_for_runs, no_runs
from fishlens.journal.joining import Source, joined_runs
from fishlens.journal.kinds import FISHER, NOTE
from fishlens.journal.parquet import read_export
from fishlens.journal.reader import Record, Run, attempts, first_start, read_run, run_id
from fishlens.journal.recipe_fields import fields_beside
from fishlens.journal.records import number
from fishlens.journal.runs import COLUMNS, KIND_OF, TABLES, Runs
from fishlens.names import one_line

_READS = {table: {kind.name} for table, kind in KIND_OF.items()}
_READS["notes"] |= {"fisher"}  # a lost probe is a note too

# factors that are names, whatever a script gave: 1, 1.5 and true are schedules' names too
_NAMED = {"task", "model", "adapter", "schedule", "source"}


def load_runs(
    where: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    tables: Collection[str] = TABLES,
    strict: bool = False,
    copies: bool = False,
) -> Runs:
    """Load every run in or below a directory, matching a glob, or of a list of either: run directories, and folders of
    exported runs (`fishlens export`).

    `tables` names the frames wanted besides `runs`; the others stay empty, and leaving out `fisher` (and
    `notes`) is much faster. A run is called by its directory's name, or by its path where two share a name.
    Lines that cannot be read are noted in `notes` and counted in `runs.damaged`; with `strict=True` they
    raise.

    Each run is read by itself: what cannot be read, and what is a copy of another run here, is in `Runs.left_out` with
    its reason; with `strict=True` it raises (a copy does not). `copies=True` loads copies too.

    Raises `InputError` when there is no run that can be read.
    """
    tables = [tables] if isinstance(tables, str) else tables
    unknown = set(tables) - set(TABLES)
    if unknown:
        raise InputError(
            f"load_runs has no table {sorted(unknown)[0]!r}; expected some of {', '.join(TABLES)}"
        )
    where = [where] if isinstance(where, str | os.PathLike) else list(where)
    found = look_for_runs(where)
    if not found.runs and not found.exports:
        raise no_runs(", ".join(map(str, where)), found)
    if strict and found.left_out:
        raise InputError(f"{found.left_out[0].path}: {found.left_out[0].reason}")
    if not found.runs and len(found.exports) == 1:
        exported = read_export(found.exports[0], tables)
        return replace(exported, left_out=(*found.left_out, *exported.left_out))
    if not found.exports:
        return _from_journals(found, tables, strict, copies)
    return _from_several(found, tables, strict, copies)


def _from_several(found: Found, tables: Collection[str], strict: bool, copies: bool) -> Runs:
    """Exports, and journals beside them."""
    sources: list[Source] = []
    left_out = list(found.left_out)
    if found.runs:
        sources.append(Source(None, _from_journals(replace(found, left_out=[]), tables, strict, copies)))
    for folder in found.exports:
        try:
            sources.append(Source(folder, read_export(folder, tables)))
        except InputError as error:
            if strict:
                raise
            left_out.append(LeftOut(folder, str(error)))
    if not sources:
        raise InputError(f"none of {len(left_out)} exports can be read: {left_out[0].reason}")
    joined = joined_runs(sources, copies)
    return replace(joined, left_out=(*left_out, *joined.left_out))


def _from_journals(found: Found, tables: Collection[str], strict: bool, copies: bool) -> Runs:
    paths, left_out = (found.runs, list(found.left_out)) if copies else _each_once(found, strict)
    kinds = {"start", "end"}.union(*(_READS[table] for table in tables))
    rows: list[dict[str, Any]] = []
    parts = {table: _Parts(table) for table in TABLES}
    read: list[Path] = []
    for path in paths:
        try:
            run = read_run(path, kinds=kinds, strict=strict)
        except InputError as error:
            if strict:
                raise
            left_out.append(LeftOut(path, str(error)))
            continue
        rows.append(_run_row(run))
        for table in tables:
            parts[table].add(_chunk(table, run), len(read))
        read.append(path)
    if not read:
        raise InputError(
            f"the run cannot be read: {left_out[0].reason}"
            if len(left_out) == 1
            else f"none of {len(left_out)} runs can be read; the first: {left_out[0].reason}"
        )
    names = _distinct_names(read)
    frames = {table: parts.pop(table).frame(names) for table in TABLES}
    rows = [{"run": name, **row} for name, row in zip(names, rows, strict=True)]
    return Runs.of({"runs": _runs_frame(rows), **frames}, tuple(left_out))


def _each_once(found: Found, strict: bool) -> tuple[list[Path], list[LeftOut]]:
    """The run directories without copies of one run, told by the run's id; the one that got furthest is kept."""
    left_out = list(found.left_out)
    by_id: dict[str, list[tuple[int, Path]]] = {}
    for path in found.runs:
        try:
            name, progress = run_id(first_start(path)), _progress(path)
        except InputError as error:
            if strict:
                raise
            left_out.append(LeftOut(path, str(error)))
            continue
        by_id.setdefault(name, []).append((progress, path))
    kept = set()
    for copies in by_id.values():
        _, best = max(copies, key=lambda copy: copy[0])
        kept.add(best)
        left_out += [
            LeftOut(path, f"the same run as {best}, counted once") for _, path in copies if path != best
        ]
    return [path for path in found.runs if path in kept], left_out


def _progress(path: Path) -> int:
    """The step of the last record of a run's last attempt."""
    try:
        record = last_record(attempts(path)[-1][1]) or {}
    except OSError:
        return 0
    step = record.get("step")
    return step if type(step) is int else 0


# a run's rows of one table: column -> numpy array, or one value for all rows; names as Python lists
_Chunk = dict[str, Any]


def _chunk(table: str, run: Run) -> _Chunk:
    """A run's rows of one table, made as `kinds` declares its columns."""
    kind = KIND_OF[table]
    if kind is NOTE:
        return _notes_chunk(run)
    records = [r for r in run.records if r["kind"] == kind.name]
    if kind is FISHER:
        wanted = {"fisher": (True,), "fisher_series": (False,), "probes": (True, False)}[table]
        records = [r for r in records if r.get("trace") and _is_tracked(r) in wanted]
    if kind.each is None or table == "probes":
        return _when(records) | {one.name: _column(one, records, kind, run) for one in COLUMNS[table]}
    keys = [list(record.get(kind.each) or ()) for record in records]
    counts = np.array([len(names) for names in keys], dtype=np.int64)
    chunk: _Chunk = {name: np.repeat(column, counts) for name, column in _when(records).items()}
    for one in COLUMNS[table]:
        if one.name == "block" and not one.field:
            chunk["block"] = _codes(chain.from_iterable(keys), run.blocks)
        elif one.name == "position" and not one.field:
            chunk["position"] = np.array([i for names in keys for i in range(len(names))], dtype=np.int64)
        elif kind.fields[one.field].type.by_block:
            values: list[Any] = []
            for record, names in zip(records, keys, strict=True):
                values.extend(_in_order(record.get(one.field), names))
            chunk[one.name] = np.array(values, dtype=one.dtype)
        else:
            chunk[one.name] = _repeat(_column(one, records, kind, run), counts)
    return chunk


def _is_tracked(record: Record) -> bool:
    """Is a probe of the tracked series on the source language?"""
    return record.get("series") is None and record.get("language") is None


def _column(one: Column, records: list[Record], kind: Kind, run: Run) -> Any:
    """One value a record, as a numpy array or, for names, as `_Names`."""
    values = [record.get(one.field) for record in records]
    if one.dtype == "category":
        return _codes(values, run.blocks if kind.fields[one.field].type is BLOCK else ())
    if one.dtype == "int64":
        values = [one.missing if value is None else value for value in values]
    return np.array(values, dtype=one.dtype)


def _repeat(column: Any, counts: np.ndarray) -> Any:
    if isinstance(column, _Names):
        return _Names(column.names, np.repeat(column.codes, counts))
    return np.repeat(column, counts)


def _in_order(values: dict[str, Any] | None, names: list[str]) -> Iterable[Any]:
    """A record's per-block values in the order of `names`, None where it has none."""
    if not values:
        return [None] * len(names)
    if list(values) == names:
        return values.values()
    return [values.get(name) for name in names]


def _notes_chunk(run: Run) -> _Chunk:
    notes: list[Record] = []
    for record in run.records:
        if record["kind"] == "note":
            notes.append(record)
        elif record["kind"] == "fisher" and record.get("lost"):
            of = f" in {record['language']}" if record.get("language") else ""
            notes.append({**record, "level": "warning", "text": f"probe lost{of}: {record['lost']}"})
    more = [f"{run.more_damaged} more lines cannot be read"] if run.more_damaged else []
    notes += [
        {"step": run.last_step, "time": run.last_time, "level": "error", "text": text}
        for text in (*run.damaged, *more)
    ]
    levels, texts = [note.get("level") for note in notes], [str(note.get("text")) for note in notes]
    return _when(notes) | {"level": _codes(levels), "text": np.array(texts, dtype=object)}


def _when(records: list[Record]) -> _Chunk:
    return {
        "step": np.array([r["step"] for r in records], dtype=np.int64),
        "time": _floats([r.get("time") for r in records]),
    }


def _floats(values: list[Any]) -> np.ndarray:
    """Numbers, "NaN", "Infinity" and null as float64: numpy reads the names of the non-finite ones itself."""
    return np.array(values, dtype=np.float64)


@dataclass(frozen=True)
class _Names:
    """A column of names as small integers: `codes[i]` indexes `names`, -1 for none."""

    names: list[str]
    codes: np.ndarray


def _codes(values: Iterable[str | None], known: Iterable[str] = ()) -> _Names:
    index: dict[Any, int] = {name: code for code, name in enumerate(known)}
    codes = [-1 if value is None else index.setdefault(value, len(index)) for value in values]
    return _Names(list(index), np.array(codes, dtype=np.int32))


class _Parts:
    """The runs' chunks of one table on their way to one frame.

    Small chunks are joined into parts of about `ROWS` rows as they come: large arrays go back to the system
    when the last join releases them one by one, thousands of small ones would not.
    """

    ROWS = 500_000

    def __init__(self, table: str):
        self._columns = ("run", "step", "time", *(column.name for column in COLUMNS[table]))
        self._parts: list[_Chunk] = []
        self._chunks: list[_Chunk] = []
        self._rows = 0

    def add(self, chunk: _Chunk, run: int) -> None:
        rows = len(chunk["step"])
        self._chunks.append({"run": np.full(rows, run, dtype=np.int32), **chunk})
        self._rows += rows
        if self._rows >= self.ROWS:
            self._join_chunks()

    def frame(self, run_names: list[str]) -> pd.DataFrame:
        self._join_chunks()
        joined: _Chunk = {}
        for name in self._columns:
            column = _concatenate([part.pop(name) for part in self._parts])
            if isinstance(column, _Names):
                column = pd.Categorical.from_codes(column.codes, categories=pd.Index(column.names))
            elif name == "run":
                column = pd.Categorical.from_codes(column, categories=pd.Index(run_names))
            joined[name] = column
        return pd.DataFrame(joined, copy=False)

    def _join_chunks(self) -> None:
        if self._chunks:
            self._parts.append(
                {name: _concatenate([chunk.pop(name) for chunk in self._chunks]) for name in self._columns}
            )
        self._chunks, self._rows = [], 0


def _concatenate(columns: list[Any]) -> Any:
    if not columns:
        return np.empty(0, dtype=np.int32)
    if not isinstance(columns[0], _Names):
        return np.concatenate(columns)
    index: dict[str, int] = {}
    codes = []
    for column in columns:
        place = [index.setdefault(name, len(index)) for name in column.names]
        codes.append(np.array([*place, -1], dtype=np.int32)[column.codes])
    return _Names(list(index), np.concatenate(codes))


def _run_row(run: Run) -> dict[str, Any]:
    end = run.end or {}
    row = {
        "path": str(run.path).encode("utf-8", "backslashreplace").decode(),
        "status": run.status,
        "attempts": run.attempts,
        "steps": run.last_step,
        "began": number(run.start.get("time")),
        "last": run.last_time,
        "blocks": len(run.blocks),
        "best_step": end.get("best_step"),
        "error": end.get("error"),
        "damaged": len(run.damaged) + run.more_damaged,
        "id": run.id,
    }
    factors = _over_attempts(run, "factors")
    factors |= {name: str(factors[name]) for name in _NAMED & factors.keys() if factors[name] is not None}
    for factor, value in (factors | _flat(fields_beside(run.path, factors))).items():
        row[factor if factor not in row and factor != "run" else f"factor_{factor}"] = value
    identity = _over_attempts(run, "estimator")
    return row | {f"estimator_{key}": value for key, value in identity.items()}


def _over_attempts(run: Run, name: str) -> dict[str, Any]:
    """A part of the start record, flat; what was changed when the run was resumed says both: `exact, then mc`."""
    latest = _flat(run.start.get(name) or {})
    for start in run.starts[-2::-1]:
        before = _flat(start.get(name) or {})
        for key in before.keys() & latest.keys():
            if str(before[key]) != str(latest[key]).split(", then ")[0]:
                latest[key] = f"{before[key]}, then {latest[key]}"
    return latest


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `outer.inner`; a list becomes one comma-separated name."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = ",".join(map(str, value)) if isinstance(value, list) else value
    return flat


def _runs_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    for name in ("run", "status"):
        frame[name] = frame[name].astype("category")
    return frame


def _distinct_names(paths: list[Path]) -> list[str]:
    """Directory names, or where two are the same, paths below what all have in common."""
    names = [one_line(path.resolve().name) for path in paths]
    if len(set(names)) == len(names):
        return names
    common = os.path.commonpath([path.resolve() for path in paths])
    return [one_line(path.resolve().relative_to(common).as_posix()) for path in paths]
