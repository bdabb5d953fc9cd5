"""What a run is, in words a journal can hold: command-line arguments and configurations as they come."""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from fishlens.journal.records import encode


def described(factors: Mapping[str, Any]) -> dict[str, Any]:
    """`factors` with every value as JSON has it; namespaces and dataclasses as their fields, anything else as text."""
    return {str(key): _plain(value) for key, value in factors.items()}


def _plain(value: Any) -> Any:
    try:
        encode({"value": value})
    except Exception:
        return _taken_apart(value)
    return value


def _taken_apart(value: Any) -> Any:
    if isinstance(value, Mapping):
        return described(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return described(asdict(value))
    if type(value).__module__ == "argparse":
        return described(vars(value))
    return f"{type(value).__module__}.{type(value).__qualname__}" if callable(value) else str(value)
