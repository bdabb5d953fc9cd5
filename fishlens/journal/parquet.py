"""Runs as Parquet: the frames of `load_runs`, one file a table, that another machine reads back as they were.

A folder of exported runs stands wherever run directories may stand: journals of a study can be put away, and its report
and notebooks are rebuilt from a few small files. Nothing but columns is kept: no configuration, no weights.
"""

import json
import os
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from fishlens.errors import InputError
from fishlens.journal.runs import TABLES, Runs

_FILES = ("runs", *TABLES)
_NAMES = (
    b"fishlens.names"  # in a file's metadata: {column: its categories in order}; Parquet forgets the order
)


def is_export(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds exported runs."""
    return Path(folder, "runs.parquet").is_file()


def export_runs(runs: Runs, folder: str | os.PathLike[str]) -> dict[str, int]:
    """Write every frame of `runs` to `folder`, which is made. Returns the number of rows of each.

    All or nothing for each file. Columns of mixed kinds are written as text.
    Raises `InputError` where the file system refuses.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror}") from None
    return {name: _write(getattr(runs, name), folder / f"{name}.parquet") for name in _FILES}


def read_export(folder: str | os.PathLike[str], tables: Collection[str] = TABLES) -> Runs:
    """The runs that `export_runs` wrote; frames not among `tables` are empty.

    Raises `InputError` naming the file that is missing or is no Parquet file.
    """
    frames = {}
    for name in _FILES:
        frame = _read(Path(folder, f"{name}.parquet"))
        frames[name] = frame if name == "runs" or name in tables else frame.iloc[:0]
    return Runs(**frames)


def _write(frame: pd.DataFrame, path: Path) -> int:
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
    table = table.replace_schema_metadata(
        {**(table.schema.metadata or {}), _NAMES: json.dumps(names).encode()}
    )
    unfinished = path.with_name(f".{path.name}.writing")
    try:
        parquet.write_table(table, unfinished, compression="zstd")
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
    return len(frame)


def _read(path: Path) -> pd.DataFrame:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; `fishlens export` writes it beside runs.parquet") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} is no Parquet file that can be read: {error}") from None
    names = json.loads((table.schema.metadata or {}).get(_NAMES, b"{}"))
    frame = table.to_pandas()
    return frame.assign(
        **{name: pd.Categorical(frame[name], categories=known) for name, known in names.items()}
    )
