"""Rows with named columns, whatever kind of file they are in: TSV, CSV, JSON, JSON lines, Parquet."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fishlens.errors import InputError, first_line
from fishlens.training.data.fields import field
from fishlens.training.data.json_text import parse_json
from fishlens.training.data.jsonl import read_jsonl
from fishlens.training.data.lines import at, read_text
from fishlens.training.data.tsv import read_quoted, read_tsv, read_unquoted

Row = tuple[str, str, Mapping[str, Any]]
"""where it stands (for messages), a name for it, its columns"""

DELIMITERS = {".tsv": "\t", ".txt": "\t", ".csv": ","}
SUFFIXES = (*DELIMITERS, ".jsonl", ".ndjson", ".json", ".parquet")


def read_table(
    path: Path,
    columns: Sequence[str],
    *,
    header: Sequence[str] | None = None,
    quoting: bool = True,
    delimiter: str | None = None,
) -> Iterator[Row]:
    """The rows of a file, told by its ending; each has at least these columns.

    header: the columns of a TSV or CSV file that does not name them in its first line. quoting: does such a file quote
    as CSV does, or are quotation marks text? delimiter: between its columns; None: a comma in .csv, else a tab. JSON is
    a list of objects, or `{"data": [...]}`.

    Raises:
        InputError: another ending, a column that is not there, or whatever the readers of these formats refuse.
    """
    suffix = path.suffix.lower()
    if suffix in DELIMITERS:
        delimiter = delimiter or DELIMITERS[suffix]
        if header is not None and not quoting:
            rows = read_tsv(path, header, delimiter)
        elif quoting:
            rows = read_quoted(path, columns, delimiter, header)
        else:
            rows = read_unquoted(path, columns, delimiter)
        for number, row in rows:
            yield at(path, number), str(number), row
    elif suffix in (".jsonl", ".ndjson"):
        for number, value in read_jsonl(path):
            yield at(path, number), str(number), value
    elif suffix == ".json":
        yield from _json_rows(path)
    elif suffix == ".parquet":
        yield from _parquet_rows(path, columns)
    else:
        raise InputError(f"{path}: the ending {suffix!r} is not one of {', '.join(SUFFIXES)}")


def _json_rows(path: Path) -> Iterator[Row]:
    text = read_text(path)
    if _has_a_row_a_line(text):
        for number, value in read_jsonl(path):
            yield at(path, number), str(number), value
        return
    whole = parse_json(text, path)
    rows = whole if isinstance(whole, list) else field(str(path), whole, "data", list)
    for number, row in enumerate(rows):
        yield f"{path}: row {number}", str(number), row


def _has_a_row_a_line(text: str) -> bool:
    """JSON lines go by the ending .json too, in transformers' examples: the first line is a row by itself."""
    first, _, rest = text.lstrip().partition("\n")
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and (bool(rest.strip()) or "data" not in row)


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        there = file.schema_arrow.names
        for column in columns:
            if column not in there:
                raise InputError(f"{path}: no column {column!r}; it has {', '.join(map(repr, there))}")
        classes = _class_names(file.schema_arrow.metadata)
        number = 0
        for batch in file.iter_batches(columns=list(dict.fromkeys(columns))):
            for row in batch.to_pylist():
                named = {column: _named(value, classes.get(column)) for column, value in row.items()}
                yield f"{path}, row {number}", str(number), named
                number += 1
    except (OSError, pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a Parquet file that can be read: {first_line(error)}") from error


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """{column: names of its classes}, as the `datasets` library leaves them in its Parquet files."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        found = {}
        for column, feature in features.items():
            inner = feature.get("feature") if isinstance(feature, dict) else None
            names = (feature if not isinstance(inner, dict) else inner).get("names")
            if isinstance(names, list):
                found[column] = [str(name) for name in names]
        return found
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _named(value: Any, names: list[str] | None) -> Any:
    if names is None or value is None:
        return value
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None
