"""What a run says while it goes on: records to its journal and its dashboards, notes to whoever is watching."""

import logging
from collections.abc import Sequence
from typing import Any

from fishlens.journal import JournalWriter
from fishlens.tracking.reporters import Reporter, reported

log = logging.getLogger(__name__)


class RunJournal:
    """The journal of a run that several processes may share: the first one writes it, and has a `writer`."""

    def __init__(self, writer: JournalWriter | None, reporters: Sequence[Reporter] = ()):
        self._writer, self._reporters = writer, reporters

    def record(self, kind: str, step: int, **fields: Any) -> None:
        if self._writer is not None:
            self._writer.write(kind, step=step, **fields)
        values = reported(kind, fields) if self._reporters else {}
        for reporter in self._reporters if values else ():
            reporter.report(step, values)

    def note(self, text: str, step: int, level: str = "warning") -> None:
        self.record("note", step, level=level, text=text)
        if self._writer is not None:
            log.log(logging.INFO if level == "info" else logging.WARNING, "%s", text)

    def check_place(self) -> None:
        """Raises `InputError` if the run's directory is no longer this run's."""
        if self._writer is not None:
            self._writer.check_place()

    def close(self, status: str, step: int, best_step: int | None, error: str | None = None) -> None:
        for reporter in self._reporters:
            reporter.close()
        if self._writer is not None:
            self._writer.close(status, step=step, error=error, best_step=best_step)
