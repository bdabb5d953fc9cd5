"""Tab-separated files of the two kinds that occur: without quoting (XNLI, MNLI) and with CSV quoting (SIB-200)."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from fishlens.errors import InputError
from fishlens.training.data.lines import at, numbered_lines

Row = tuple[int, dict[str, str]]


def read_tsv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
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
        fields = line.split("\t")
        if blank:
            raise InputError(f"{at(path, blank)}: blank line in the middle of the file")
        if len(fields) != len(columns):
            raise InputError(
                f"{at(path, number)}: {len(fields)} tab-separated columns instead of {len(columns)}"
                f" ({', '.join(columns)})"
            )
        yield number, dict(zip(columns, fields, strict=True))


def read_quoted_tsv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a file with a header and CSV quoting: (number of the row's first line, {column: text}).

    The header may have more columns than the ones wanted, in any order.

    Raises:
        InputError: a wanted column is not in the header, a row has another number of fields than the header, or the
            quoting is broken (a quote that is never closed, text after a closing quote).
    """
    rows = _csv_rows(path)
    try:
        _, header = next(rows)
    except StopIteration:
        raise InputError(
            f"{path} is empty: expected a header with the columns {', '.join(columns)}"
        ) from None
    missing = [column for column in columns if column not in header]
    if missing:
        raise InputError(
            f"{at(path, 1)}: the header has no column {missing[0]!r}; it has {', '.join(map(repr, header))}"
        )
    for number, fields in rows:
        if not fields:
            continue  # a blank line
        if len(fields) != len(header):
            raise InputError(f"{at(path, number)}: {len(fields)} fields, but the header has {len(header)}")
        row = dict(zip(header, fields, strict=True))
        yield number, {column: row[column] for column in columns}


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(
        (line + "\n" for _, line in numbered_lines(path)), delimiter="\t", doublequote=True, strict=True
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
