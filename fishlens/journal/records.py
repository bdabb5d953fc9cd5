"""Records: one JSON object a line, its kind first, strict JSON, nothing but plain values."""

import json
import math
import os
import platform
import re
import socket
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from fishlens.errors import InputError
from fishlens.journal.declarations import NOT_FINITE, STATUSES

REPORTED_VERSIONS = (
    "torch",
    "transformers",
    "adapters",
    "peft",
    "backpack-for-pytorch",
    "accelerate",
    "numpy",
)


def check_status(status: Any) -> None:
    """Raises `InputError` for what no run ends as."""
    if status not in STATUSES:
        raise InputError(f"status is {status!r}; expected one of {', '.join(STATUSES)}")


_SURROGATE = re.compile("[\ud800-\udfff]")


def encode(record: dict[str, Any]) -> bytes:
    """One line, newline included. Raises `TypeError` for a value that JSON cannot hold."""
    text = json.dumps(plain(record), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        return text.encode("utf-8") + b"\n"
    except UnicodeEncodeError:  # a folder's name in another encoding: its bytes are kept in printable form
        return _SURROGATE.sub(lambda found: f"\\\\u{ord(found[0]):x}", text).encode("utf-8") + b"\n"


def plain(value: Any) -> Any:
    """`value` in strict JSON's types: numpy and torch scalars as numbers, non-finite floats as their
    names."""
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return str.__str__(value)  # of an enum the value, not its name
    if isinstance(value, int):
        return int(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy and torch: scalars and arrays
        return plain(value.tolist())
    raise TypeError(f"a journal record cannot hold {value!r} of type {type(value).__name__}")


def number(value: Any) -> float:
    """The float that a record's value stands for: numbers, the names of the non-finite ones, NaN for null."""
    if value is None:
        return math.nan
    return NOT_FINITE[value] if isinstance(value, str) else float(value)


def installed_versions() -> dict[str, str]:
    """Versions of fishlens, Python and the libraries that numbers depend on, without importing them."""
    found = {"python": platform.python_version()}
    for name in ("fishlens", *REPORTED_VERSIONS):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def this_process() -> dict[str, Any]:
    """Which process writes: host, pid, and when it began (kernel ticks), so that a reused pid is told
    apart."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "began": process_began(os.getpid()),
        "system": running_system(),
    }


@lru_cache(maxsize=1)
def running_system() -> str | None:
    """Which start of which system process ids are of (Linux): two containers may share a host's name and not these."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except (OSError, ValueError):
        return None


def process_began(pid: int) -> str | None:
    """When process `pid` began, in kernel ticks since boot (Linux), or None where that is unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


def is_alive(process: dict[str, Any] | None) -> bool | None:
    """Is the process that wrote a start record still there? None when this machine cannot know."""
    if not process or process.get("host") != socket.gethostname():
        return None
    if process.get("system") is not None and process["system"] != running_system():
        return None
    pid = process.get("pid")
    if type(pid) is not int or not 0 < pid < 2**31:
        return None
    began = process_began(pid)
    if began is not None and process.get("began") is not None:
        return began == process["began"]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # there, but somebody else's
    return True
