"""Separated values: without quoting (XNLI, MNLI, GLUE) and with CSV's quoting (SIB-200)."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from fishlens.errors import InputError
from fishlens.training.data.lines import at, numbered_lines

Row = tuple[int, dict[str, str]]
SEPARATED = {"\t": "tab-separated", ",": "comma-separated"}
COMMON = "\t;,|"


def read_tsv(path: Path, columns: Sequence[str], delimiter: str = "\t") -> Iterator[Row]:
    """Rows of a file without header and without quoting: (line number, {column: text}).

    Quotation marks are text; every line has to have exactly these columns. Blank lines at the end are ignored.

    Raises:
        InputError: a line has another number of columns.
    """
    blank = None
    for number, line in numbered_lines(path):
        if not line.strip(" "):
            blank = blank or number
            continue
        fields = line.split(delimiter)
        if blank:
            raise InputError(f"{at(path, blank)}: blank line in the middle of the file")
        if len(fields) != len(columns):
            cut = SEPARATED.get(delimiter, f"{delimiter}-separated")
            raise InputError(
                f"{at(path, number)}: {len(fields)} {cut} columns instead of {len(columns)}"
                f" ({', '.join(columns)})"
            )
        yield number, dict(zip(columns, fields, strict=True))


def read_unquoted(path: Path, columns: Sequence[str], delimiter: str = "\t") -> Iterator[Row]:
    """Rows of a file with a header and without quoting; the header may have more columns, in any order.

    Raises:
        InputError: a wanted column is not in the header, or a line has another number of columns.
    """
    header: list[str] | None = None
    for number, line in numbered_lines(path):
        fields = line.split(delimiter)
        if header is None:
            header = fields
            _check_header(path, header, columns)
        elif line.strip(" "):
            yield number, _row(path, number, header, fields, columns)
    if header is None:
        raise _empty(path, columns)


def read_quoted(
    path: Path, columns: Sequence[str], delimiter: str = "\t", header: Sequence[str] | None = None
) -> Iterator[Row]:
    """Rows of a file with CSV quoting: (number of the row's first line, {column: text}).

    header: its columns where its first line does not name them. It may have more columns than the ones wanted, in any
    order.

    Raises:
        InputError: a wanted column is not in the header, a row has another number of fields than the header, or the
            quoting is broken (a quote that is never closed, text after a closing quote).
    """
    rows = _csv_rows(path, delimiter)
    if header is None:
        try:
            _, header = next(rows)
        except StopIteration:
            raise _empty(path, columns) from None
    _check_header(path, header, columns)
    for number, fields in rows:
        if fields:  # else a blank line
            yield number, _row(path, number, header, fields, columns)


def _empty(path: Path, columns: Sequence[str]) -> InputError:
    return InputError(f"{path} is empty; expected a header with the columns {', '.join(columns)}")


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    for column in columns:
        if column not in header:
            raise InputError(
                f"{at(path, 1)}: the header has no column {column!r}; it has {', '.join(map(repr, header))}"
                f"{_other_delimiter(header, column)}"
            )
    for column in columns:
        if list(header).count(column) > 1:
            raise InputError(f"{at(path, 1)}: the header has the column {column!r} twice; expected it once")


def _other_delimiter(header: Sequence[str], column: str) -> str:
    """A hint where the column would be there if the file were cut at another character."""
    other = next((c for c in COMMON if len(header) == 1 and column in header[0].split(c)), None)
    return (
        "" if other is None else f": the file is cut at another character; set delimiter: {json.dumps(other)}"
    )


def _row(
    path: Path, number: int, header: Sequence[str], fields: Sequence[str], columns: Sequence[str]
) -> dict[str, str]:
    if len(fields) != len(header):
        raise InputError(f"{at(path, number)}: {len(fields)} fields, but the header has {len(header)}")
    row = dict(zip(header, fields, strict=True))
    return {column: row[column] for column in columns}


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(
        (line + "\n" for _, line in numbered_lines(path)), delimiter=delimiter, doublequote=True, strict=True
    )
    while True:
        first = reader.line_num + 1
        try:
            yield first, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{at(path, first)}: broken quoting in the row that begins here ({error})"
            ) from error
