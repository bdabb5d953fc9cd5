"""Runs as Parquet: the frames of `load_runs`, one file a table, that another machine reads back as they were.

A folder of exported runs stands wherever run directories may stand: journals of a study can be put away, and its report
and notebooks are rebuilt from a few small files. Nothing but columns is kept: no configuration, no weights.

Every file carries the version of the format and the id of the export it is part of, so that files of two exports in one
folder are told apart, and a reader knows which columns it may expect.
"""

import json
import os
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fishlens.errors import InputError, first_line
from fishlens.files import open_regular, writing_all
from fishlens.journal.declarations import Column
from fishlens.journal.find import EXPORT
from fishlens.journal.kinds import FORMAT, MINOR, problem_of_frame
from fishlens.journal.runs import COLUMNS, KIND_OF, RUN_COLUMNS, TABLES, LeftOut, Runs
from fishlens.names import one_line, printable

_FILES = ("runs", *TABLES)
# tables that older exports do not have: the minor version that added them
_SINCE = {name: kind.since for name, kind in KIND_OF.items()} | {"fisher_series": 1, "probes": 1}
# what every table has before its own columns
_WHEN = (Column("run", "", "category"), Column("step", "", "int64"), Column("time", "", "float64"))
# in a file's metadata
_CELLS = 50_000_000  # of a table that may be packed as tightly as it likes
_UNPACKED = 2**30  # bytes, likewise
_NAMES = b"fishlens.names"  # {column: its categories in order}; Parquet forgets the order
_ABOUT = b"fishlens.export"  # {"format": …, "minor": …, "id": …, "left_out": [[path, reason], …]}


def export_runs(runs: Runs, folder: str | os.PathLike[str]) -> dict[str, int]:
    """Write every frame of `runs` to `folder`, which is made. Returns the number of rows of each.

    All or nothing: every file is written beside its place first, and then all are put in their places. Columns of mixed
    kinds are written as text. Raises `InputError` where the file system refuses, and where a file would be overwritten
    that is not an export.
    """
    folder = Path(folder)
    for name in TABLES:
        if problem := problem_of_frame(getattr(runs, name), COLUMNS[name], KIND_OF[name]):
            raise InputError(f"{name} cannot be exported: {problem}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror}") from None
    about = {
        "format": FORMAT,
        "minor": MINOR,
        "id": uuid.uuid4().hex,
        "left_out": [[str(one.path), one.reason] for one in runs.left_out],
    }
    places = {name: folder / f"{name}.parquet" for name in _FILES}
    for place in places.values():
        _refuse_foreign(place)
    try:
        with writing_all(list(places.values())) as beside:
            for name, place in places.items():
                _write(getattr(runs, name), beside[place], place, about)
    except OSError as error:
        raise InputError(f"{place} cannot be written: {error.strerror or error}") from None
    return {name: len(getattr(runs, name)) for name in _FILES}


def _refuse_foreign(place: Path) -> None:
    """Raises `InputError` where a file that is not an export of ours would be overwritten."""
    import pyarrow
    from pyarrow import parquet

    if not place.is_file():
        return
    try:
        known = (parquet.read_schema(place).metadata or {}).keys()
    except (OSError, pyarrow.ArrowException):
        known = set()
    if not known & {_ABOUT, _NAMES}:
        raise InputError(f"{place} is not an export of fishlens; it is left as it is: give another folder")


def read_export(folder: str | os.PathLike[str], tables: Collection[str] = TABLES) -> Runs:
    """The runs that `export_runs` wrote; frames not among `tables` are empty.

    Raises `InputError` naming the file that is missing, is no Parquet file, lacks a column, has one of another type, or
    belongs to another export than its neighbours.
    """
    runs, about = _read(Path(folder, EXPORT), RUN_COLUMNS)
    if about["format"] > FORMAT:
        raise InputError(
            f"{folder} has export format {about['format']}; expected at most {FORMAT}: upgrade fishlens"
        )
    if (twice := runs["run"].duplicated()).any():
        raise InputError(
            f"{Path(folder, 'runs.parquet')} has two runs called {runs['run'][twice].iloc[0]!r}; expected each once"
        )
    frames = {"runs": runs}
    for name in TABLES:
        if _SINCE.get(name, 0) > about["minor"]:
            continue
        path = Path(folder, f"{name}.parquet")
        frame, its = _read(path, [*_WHEN, *COLUMNS[name]])
        if its["id"] != about["id"]:
            raise InputError(
                f"{path} is part of another export than runs.parquet beside it: export the runs again"
            )
        if problem := problem_of_frame(frame, COLUMNS[name], KIND_OF[name]):
            raise InputError(f"{path}, {problem}")
        frames[name] = frame if name in tables else frame.iloc[:0]
    left_out = tuple(LeftOut(Path(path), reason) for path, reason in about["left_out"])
    return Runs.of(frames, left_out)


def _write(frame: pd.DataFrame, unfinished: Path, place: Path, about: dict[str, Any]) -> None:
    import pyarrow
    from pyarrow import parquet

    mixed = {
        name: frame[name].map(lambda value: None if pd.isna(value) else str(value))
        for name in frame.columns
        if frame[name].dtype == object
    }
    table = pyarrow.Table.from_pandas(frame.assign(**mixed), preserve_index=False)
    names = {
        name: list(frame[name].cat.categories)
        for name in frame.columns
        if isinstance(frame[name].dtype, pd.CategoricalDtype)
    }
    notes = {_NAMES: json.dumps(names).encode(), _ABOUT: json.dumps(about).encode()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **notes})
    try:
        parquet.write_table(table, unfinished, compression="zstd")
    except OSError as error:
        raise InputError(f"{place} cannot be written: {error.strerror or error}") from None


def _read(path: Path, expected: Collection[Column]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A file's frame, its columns checked, and what it says about the export."""
    import pyarrow
    from pyarrow import parquet

    try:
        open_regular(path).close()
        file = parquet.ParquetFile(path)
        _refuse_to_swell(path, file.metadata)
        texts = [one.name for one in file.schema_arrow if str(one.type) in ("string", "large_string")]
        file.close()
        table = parquet.read_table(path, read_dictionary=texts)  # a text that stands there often is kept once
    except FileNotFoundError:
        raise InputError(f"{path} is missing; `fishlens export` writes it beside runs.parquet") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} is no Parquet file that can be read: {first_line(error)}") from None
    metadata = table.schema.metadata or {}
    about: dict[str, Any] = {"format": FORMAT, "minor": 0, "id": None, "left_out": []}
    try:
        about |= json.loads(metadata.get(_ABOUT, b"{}"))
        names = {name: pd.Index(known) for name, known in json.loads(metadata.get(_NAMES, b"{}")).items()}
        about["left_out"] = [(str(path), str(reason)) for path, reason in about["left_out"]]
        frame = table.to_pandas()
        if not isinstance(about["format"], int) or not isinstance(about["minor"], int):
            raise ValueError("a version that is not a number")
        for name, known in names.items():
            if name not in frame:
                raise InputError(f"{path} has no column {name!r}; expected an export of fishlens")
            values = frame[name].astype(object)
            if len(strange := values[values.notna() & ~values.isin(known)]):
                raise InputError(
                    f"{path}: {name!r} is {strange.iloc[0]!r:.60}; expected one of the export's {len(known)} names"
                )
            frame[name] = pd.Categorical(values, categories=known)
        texts = [one_line(name) for name in texts if name not in names]
        frame = _shown(frame)
        for name in texts:  # after they were looked at, each once
            frame[name] = _as_text(path, frame[name])
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} is not an export that can be read: {first_line(error)}") from None
    for one in expected:
        if one.since > about["minor"]:
            frame[one.name] = _nothing(one, len(frame)) if one.name not in frame else frame[one.name]
            continue
        if one.name not in frame:
            raise InputError(f"{path} has no column {one.name!r}; expected an export of fishlens")
        try:
            frame[one.name] = _as(frame[one.name], one.dtype)
        except (ValueError, TypeError):
            raise InputError(
                f"{path}: column {one.name!r} is of type {frame[one.name].dtype}; expected {one.dtype}"
            ) from None
    return frame, about


def _nothing(column: Column, rows: int) -> Any:
    """A column that came with a later version."""
    return pd.Categorical([None] * rows) if column.dtype == "category" else None


def _refuse_to_swell(path: Path, about: Any) -> None:
    """Raises `InputError` for a small file that says it is a huge table: a stranger's could take all memory."""
    size = path.stat().st_size
    cells = about.num_rows * max(1, about.num_columns)
    unpacked = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
    if cells > _CELLS + 50 * size or unpacked > _UNPACKED + 200 * size:
        raise InputError(
            f"{path} has {size} bytes and says that it is {about.num_rows} rows of {about.num_columns} columns; "
            "expected an export of fishlens"
        )


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with every name and text in it printable, as journals are read."""
    if not all(map(_is_fit, frame.columns)):
        frame = frame.rename(columns=one_line)
    for name in frame.columns:
        column = frame[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            if not all(map(_is_fit, column.cat.categories)):
                known = dict.fromkeys(map(one_line, column.cat.categories))
                frame[name] = pd.Categorical(column.astype(object).map(one_line, "ignore"), list(known))
        elif column.dtype == object or isinstance(column.dtype, pd.StringDtype):
            texts = column.astype(object)
            frame[name] = texts.map(lambda value: printable(value) if isinstance(value, str) else value)
    return frame


def _as_text(path: Path, column: Any) -> Any:
    """A column of texts that is a dictionary, as pandas makes it of a list. Raises `InputError` for a few texts in so
    many rows that they would take all memory."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        lengths = column.cat.categories.astype(object).map(len).to_numpy(dtype=np.int64)
        codes = column.cat.codes.to_numpy()
        size = int(lengths[codes[codes >= 0]].sum())
        if size > _UNPACKED:
            raise InputError(
                f"{path}: the texts of column {column.name!r} take {size} bytes; expected {_UNPACKED} at most"
            )
    return pd.Series(list(column.astype(object)), index=column.index)


def _is_fit(text: Any) -> bool:
    return not isinstance(text, str) or one_line(text) == text


def _as(column: Any, dtype: str) -> Any:
    """A column as `dtype`. Raises `ValueError` for one that is something else."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        if dtype != "category" or not all(isinstance(name, str) for name in column.cat.categories):
            raise ValueError
        return column
    if dtype == "category":
        if len(column) and not column.isna().all():
            raise ValueError
        return pd.Series(pd.Categorical([None] * len(column)), index=column.index)
    if dtype == "object":
        if not all(value is None or isinstance(value, str) or pd.isna(value) for value in column):
            raise ValueError
        return column
    if not len(column) or (dtype == "float64" and column.isna().all()):
        return column.astype(dtype)
    wrong = {
        "bool": column.dtype != bool,
        "int64": column.dtype.kind not in "iu",
        "float64": column.dtype.kind not in "iuf",
    }
    if wrong[dtype]:
        raise ValueError
    return column.astype(dtype)
