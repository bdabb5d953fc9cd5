"""The run journal: what a run leaves behind, written as it happens and read as tidy data frames.

One append-only file per attempt, `journal-<attempt>.jsonl`, with one writer and any number of readers. No
lock, no rename, nothing rewritten: it works on network file systems and survives `kill -9`. The format is
in docs/journal.md.
"""

from importlib import import_module
from typing import Any

from fishlens.journal.find import LeftOut, find_runs
from fishlens.journal.kinds import FORMAT, KINDS
from fishlens.journal.lease import RunHeld
from fishlens.journal.reader import Run, Standing, attempts, begun, first_start, read_run, standing
from fishlens.journal.records import installed_versions
from fishlens.journal.writer import JournalWriter

# these need pandas, which a process that only writes should not wait for
_WITH_PANDAS = {"Runs": "runs", "load_runs": "load", "export_runs": "parquet"}

__all__ = [
    "FORMAT",
    "KINDS",
    "JournalWriter",
    "LeftOut",
    "Run",
    "RunHeld",
    "Runs",
    "Standing",
    "attempts",
    "begun",
    "export_runs",
    "find_runs",
    "first_start",
    "installed_versions",
    "load_runs",
    "read_run",
    "standing",
]


def __getattr__(name: str) -> Any:
    if name in _WITH_PANDAS:
        return getattr(import_module(f"fishlens.journal.{_WITH_PANDAS[name]}"), name)
    raise AttributeError(f"module 'fishlens.journal' has no attribute {name!r}")
