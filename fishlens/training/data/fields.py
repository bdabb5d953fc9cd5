"""Taking a field out of a row, whatever kind of file the row came from."""

from collections.abc import Mapping
from typing import Any

from fishlens.errors import InputError


def field(where: str, row: Any, name: str, kind: type) -> Any:
    """The field, or InputError that begins with `where` and names what is missing or of another type."""
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: expected an object with {name!r}, got {type(row).__name__}")
    if name not in row:
        raise InputError(f"{where}: no {name!r}; there is {', '.join(map(repr, row)) or 'nothing'}")
    value = row[name]
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise InputError(f"{where}: {name!r} is {value!r:.60}, expected {kind.__name__}")
    return value
