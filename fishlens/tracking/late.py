"""A journal that may be opened later than its first record: what cannot be measured leaves no run behind."""

from pathlib import Path
from typing import Any

from fishlens.journal import JournalWriter


class LateJournal:
    """Takes records from the beginning, and writes them once there is a writer. Without one they are forgotten."""

    def __init__(self) -> None:
        self.writer: JournalWriter | None = None
        self._waiting: list[tuple[str, int, dict[str, Any]]] = []

    @property
    def path(self) -> Path | None:
        return None if self.writer is None else self.writer.path

    @property
    def run(self) -> Path | None:
        """The run's directory, once there is one."""
        return None if self.writer is None else self.writer.path.parent

    def open(self, writer: JournalWriter) -> None:
        self.writer = writer
        waiting, self._waiting = self._waiting, []
        for kind, step, fields in waiting:
            writer.write(kind, step, **fields)

    def write(self, kind: str, step: int, **fields: Any) -> None:
        if self.writer is None:
            self._waiting.append((kind, step, fields))
        else:
            self.writer.write(kind, step, **fields)
