"""Where a tracker's records and sentences go: the run's journal, standard error and dashboards."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fishlens.journal import JournalWriter
from fishlens.tracking.explosion import Explosion
from fishlens.tracking.guard import say
from fishlens.tracking.late import LateJournal

if TYPE_CHECKING:
    from fishlens.tracking.reporters import Reporter


@dataclass
class Destinations:
    """Without a `writer` nothing is written; it may come later."""

    writer: JournalWriter | LateJournal | None = None
    reporters: list["Reporter"] = field(default_factory=list)
    explosion: Explosion = field(default_factory=Explosion)
    _said: set[str] = field(default_factory=set)

    def note(
        self, step: int, text: str, *, level: str = "warning", shown: str | None = None, aloud: bool = True
    ) -> None:
        """A sentence for the journal, once; one that is more than information is said on standard error too."""
        if text in self._said:
            return
        self._said.add(text)
        if aloud and level != "info":
            say(shown or text)
        if self.writer is not None:
            self.writer.write("note", step, level=level, text=shown or text)

    def say_lost(self, step: int, of: str, lost: str) -> None:
        """On standard error, once for a reason: the journal has every lost probe."""
        if lost + of not in self._said:
            self._said.add(lost + of)
            say(f"the probe at step {step}{of} is lost, training goes on: {lost}")

    def probe(self, step: int, fields: Mapping[str, Any]) -> None:
        """A probe's record, with what was found or lost."""
        if self.writer is not None:
            self.writer.write("fisher", step, **fields)
        if fields["purpose"] == "track":
            for reporter in self.reporters:
                reporter.report(step, dashboard_values(fields))
            if fields["trace"] and "language" not in fields:
                self._watch_for_explosion(step, fields["trace"])

    def _watch_for_explosion(self, step: int, trace: Mapping[str, float]) -> None:
        text = self.explosion.at(step, trace)
        if text is not None:
            self.note(step, text)
            for reporter in self.reporters:
                reporter.alert("tr(F) explodes", text)


def dashboard_values(fields: Mapping[str, Any]) -> dict[str, float]:
    """What dashboards are told of a probe's record: every block's trace and their sum, and what probing costs."""
    language, trace = fields.get("language"), fields["trace"]
    values = {
        f"fisher/{language}/{block}" if language else f"fisher/{block}": v for block, v in trace.items()
    }
    if trace:
        values[f"fisher_sum/{language}" if language else "fisher_sum"] = sum(trace.values())
    return values | {"fisher_overhead": fields["overhead"] or 0.0}
