"""Numbered lines of a UTF-8 file, which every reader of text begins with."""

from collections.abc import Iterator
from pathlib import Path

from fishlens.errors import InputError
from fishlens.files import open_regular

BYTE_ORDER_MARK = "\ufeff"


def at(path: Path, line: int) -> str:
    """How every message names a place in a file."""
    return f"{path}, line {line}"


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Yield (line number from 1, line without its end).

    Lines end at ``\n`` alone, because ``str.splitlines`` also breaks at characters such as U+2028 that occur inside
    sentences. One ``\r`` before the ``\n`` goes with it. A byte-order mark is dropped at the start of the file only:
    further down U+FEFF is text, which gold offsets may count.

    Raises:
        InputError: the file is missing, is a folder, cannot be read, or a line is not UTF-8.
    """
    try:
        with open_regular(path) as file:
            for number, raw in enumerate(file, start=1):
                line = _decode(raw, path, number).removesuffix("\n").removesuffix("\r")
                yield number, line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _decode(raw: bytes, path: Path, number: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{at(path, number)}: byte 0x{raw[error.start]:02x} at position {error.start + 1} is not UTF-8;"
            " save the file as UTF-8"
        ) from error


def read_text(path: Path) -> str:
    """The whole file as text, with the same rules and the same errors as `numbered_lines`."""
    return "\n".join(line for _, line in numbered_lines(path))
