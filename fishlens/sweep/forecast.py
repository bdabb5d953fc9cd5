"""What a plan will cost, judged by the study's own finished runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING

from fishlens.sweep.plan import PlannedRun, Status

if TYPE_CHECKING:
    from rich.console import Console


def describe(planned: Sequence[PlannedRun], console: Console, *, every_run: bool) -> None:
    """Prints how many runs there are in which state and, if asked, each run's name and state."""
    counts = Counter(run.status for run in planned)
    states = ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])
    console.print(f"{len(planned)} runs: {states}", highlight=False)
    if every_run:
        for run in planned:
            console.print(f"  {run.status.value:<12}{run.name}", markup=False, highlight=False)


def forecast(planned: Sequence[PlannedRun], jobs: int | None) -> str:
    """One sentence: how long the runs that are due will take with `jobs` at a time (None: unknown, on a cluster).

    A run is expected to take the median of the study's finished runs of the same recipe, or of all of them where its
    recipe has none yet. An interrupted run counts as a whole one.
    """
    due = [run for run in planned if run.is_due]
    if not due:
        return "nothing is left to run"
    took: dict[str, list[float]] = {}
    for run in planned:
        if run.seconds is not None:
            took.setdefault(run.recipe["task"]["name"], []).append(run.seconds)
    if not took:
        return f"{len(due)} runs are due; how long they take can be told when the first one has finished"
    of_all = median(second for seconds in took.values() for second in seconds)
    total = sum(median(took.get(run.recipe["task"]["name"], [of_all])) for run in due)
    if jobs is None:
        return f"{len(due)} runs are due: about {timedelta(seconds=round(total))} of computing in all"
    wall = timedelta(seconds=round(total / min(jobs, len(due))))
    end = (datetime.now().astimezone() + wall).strftime("%a %H:%M")
    return f"{len(due)} runs are due, {jobs} at a time: about {wall}, until {end}"
