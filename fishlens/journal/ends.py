"""Both ends of a journal, read without what lies between: enough to know whose it is and how it stands."""

import errno
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import from_json

Record = dict[str, Any]
_CHUNK = 64 * 1024


def first_line(path: Path) -> bytes | None:
    """The first line, or None where it is not whole yet. Raises `OSError`, also for what is not a regular file."""
    line = b""
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK):
            head, newline, _ = chunk.partition(b"\n")
            line += head
            if newline:
                return line
    return line if line and _is_object(line) else None


def last_record(path: Path) -> Record | None:
    """The last whole record, or None where there is none. Reads back from the end only as far as it has to."""
    with open_regular(path) as file:
        position = file.seek(0, os.SEEK_END)
        tail = b""
        while position > 0:
            step = min(_CHUNK, position)
            position -= step
            file.seek(position)
            tail = file.read(step) + tail
            lines = tail.split(b"\n")
            if position > 0:
                tail, lines = lines[0], lines[1:]  # the first of them may begin earlier
            for line in reversed(lines):
                if (record := _object(line)) is not None:
                    return record
    return None


def open_regular(path: Path) -> BinaryIO:
    """A file opened for reading. Raises `OSError` for a pipe, a device or a folder, which could wait for ever."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def _object(line: bytes) -> Record | None:
    if not line.startswith(b"{"):
        return None
    try:
        record = from_json(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _is_object(line: bytes) -> bool:
    return _object(line) is not None
