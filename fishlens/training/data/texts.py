"""Texts without their labels, out of any file that holds some: lines of raw text, or columns of a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fishlens.errors import InputError
from fishlens.training.data.fields import field
from fishlens.training.data.lines import numbered_lines
from fishlens.training.data.table import read_table


def read_texts(path: Path, columns: Sequence[str] = ("text",), **options: Any) -> list[tuple[str, list[str]]]:
    """(name, the texts of these columns) of every row of a table, or of every line of a `.txt` file that is not empty.

    options: as `read_table` takes them. Raises `InputError` for a file without a text.
    """
    if path.suffix == ".txt":
        if len(columns) > 1:
            raise InputError(
                f"{path} is raw text, which has no columns; expected a table with {', '.join(columns)}"
            )
        found = [(str(number), [line.strip()]) for number, line in numbered_lines(path) if line.strip()]
    else:
        found = []
        for where, name, row in read_table(path, tuple(columns), **options):
            found.append((name, [_text(where, row, column) for column in columns]))
    if not found:
        raise InputError(f"{path} is empty; expected at least one text")
    return found


def _text(where: str, row: Any, column: str) -> str:
    """A text, or a list of words with spaces between them."""
    words = row.get(column) if isinstance(row, dict) else None
    if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
        row = {**row, column: " ".join(words)}
    return str(field(where, row, column, str))
