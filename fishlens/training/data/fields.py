"""Taking a field out of a row, whatever kind of file the row came from."""

from collections.abc import Mapping
from typing import Any

from fishlens.errors import InputError

NAMES: dict[type, str] = {str: "text", int: "a whole number", list: "a list", dict: "an object"}


def field(where: str, row: Any, name: str, kind: type) -> Any:
    """The field, or InputError that begins with `where` and names what is missing or of another type."""
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: expected an object with {name!r}, got {type(row).__name__}")
    if name not in row:
        raise InputError(f"{where}: no {name!r}; there is {', '.join(map(repr, row)) or 'nothing'}")
    value = row[name]
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise InputError(f"{where}: {name!r} is {value!r:.60}; expected {NAMES.get(kind, kind.__name__)}")
    if isinstance(value, str):
        check_text(where, name, value)
    return value


def check_text(where: str, name: str, value: str) -> None:
    """Raise InputError if a text has half a surrogate pair, which JSON can write and UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: {name!r} has half a surrogate pair, U+{ord(value[error.start]):04X}, at character "
            f"{error.start + 1}; expected text that UTF-8 can write"
        ) from None
