"""Both ends of a journal, read without what lies between: enough to know whose it is and whether it has ended."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import from_json

from fishlens.files import open_regular

Record = dict[str, Any]
LONGEST = 64 * 2**20  # bytes of a line: a record that names a hundred thousand examples has two million
NO_RECORD = b"\0"  # stands for a line that is longer
_CHUNK = 64 * 1024


def first_line(path: Path) -> bytes | None:
    """The first line, or None where it is not whole yet. Raises `OSError`, also for what is not a regular file."""
    with open_regular(path) as file:
        return next(lines_of(file), None)


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines that are whole, one after the other; of the last one at most its line break misses."""
    while line := file.readline(LONGEST):
        if line.endswith(b"\n"):
            yield line[:-1]
        elif len(line) == LONGEST:
            while line and not line.endswith(b"\n"):
                line = file.readline(LONGEST)
            yield NO_RECORD
        elif _object(line) is not None:  # its closing brace is proof
            yield line


def last_record(path: Path) -> Record | None:
    """The last whole record, or None where there is none. Reads back from the end only as far as it has to."""
    with open_regular(path) as file:
        size, window = file.seek(0, os.SEEK_END), _CHUNK
        while True:
            begin = max(0, size - window)
            file.seek(begin)
            lines = file.read(size - begin).split(b"\n")
            for line in reversed(lines[1:] if begin else lines):  # else the first of them may begin earlier
                if (record := _object(line)) is not None:
                    return record
            if not begin or window >= LONGEST:
                return None
            window *= 4


def _object(line: bytes) -> Record | None:
    if not line.startswith(b"{"):
        return None
    try:
        record = from_json(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
