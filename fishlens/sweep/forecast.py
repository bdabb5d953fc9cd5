"""What a plan will cost, judged by the study's own finished runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING

from fishlens.names import counted
from fishlens.sweep.plan import PlannedRun, Status

if TYPE_CHECKING:
    from rich.console import Console


def describe(planned: Sequence[PlannedRun], console: Console, *, every_run: bool) -> None:
    """Prints how many runs there are in which state and, if asked, each run's name and state."""
    counts = Counter(run.status for run in planned)
    states = ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])
    console.print(f"{counted(len(planned), 'runs')}: {states}", highlight=False)
    if every_run:
        for run in planned:
            console.print(f"  {run.status.value:<11} {run.name}", markup=False, highlight=False)


@dataclass(frozen=True)
class Forecast:
    """`due`: how many runs are left. `seconds`: of computing, one run after the other; None where no run of the study
    has finished. `jobs`: runs at a time; None: unknown, on a cluster."""

    due: int
    jobs: int | None
    seconds: float | None

    @property
    def wall_seconds(self) -> float | None:
        if self.seconds is None or self.jobs is None:
            return None
        return self.seconds / max(1, min(self.jobs, self.due))

    def __str__(self) -> str:
        if not self.due:
            return "nothing is left to run"
        due = f"{counted(self.due, 'runs')} {'is' if self.due == 1 else 'are'} due"
        if self.seconds is None:
            return f"{due}; how long they take can be told when the first one has finished"
        if self.wall_seconds is None:
            return f"{due}: about {timedelta(seconds=round(self.seconds))} of computing in all"
        wall = timedelta(seconds=round(self.wall_seconds))
        end = (datetime.now().astimezone() + wall).strftime("%a %H:%M")
        return f"{due}, {self.jobs} at a time: about {wall}, until {end}"


def forecast(
    planned: Sequence[PlannedRun], jobs: int | None, of: Sequence[PlannedRun] | None = None
) -> Forecast:
    """How long the runs that are due will take with `jobs` at a time.

    A run is expected to take the median of the study's (`of`: all its runs, [planned]) finished runs of the same task,
    or of all of them where its task has none yet. An interrupted run counts as a whole one.
    """
    due = [run for run in planned if run.is_due]
    took: dict[str, list[float]] = {}
    for run in planned if of is None else of:
        if run.seconds is not None:
            took.setdefault(run.recipe["task"]["name"], []).append(run.seconds)
    if not due or not took:
        return Forecast(len(due), jobs, None if due else 0.0)
    of_all = median(second for seconds in took.values() for second in seconds)
    total = sum(median(took.get(run.recipe["task"]["name"], [of_all])) for run in due)
    return Forecast(len(due), jobs, total)
