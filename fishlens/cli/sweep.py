"""`fishlens sweep`: the runs of a study, on this machine or on a Ray cluster."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager, nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fishlens.cli.output import say, screen
from fishlens.cli.runs import AsJson, print_json
from fishlens.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from fishlens.sweep.execute import Outcome
    from fishlens.sweep.forecast import Forecast
    from fishlens.sweep.plan import PlannedRun
    from fishlens.sweep.requeue import Requeue
    from fishlens.sweep.selection import Shard


class Engine(str, Enum):
    """Where runs are executed."""

    LOCAL = "local"
    RAY = "ray"


def sweep(
    study: Annotated[
        str, typer.Argument(help="A study file, or the name of a bundled study (quickstart-study).")
    ],
    runs: Annotated[
        Path, typer.Option(help="Folder of run directories; the study gets one of its own in it.")
    ] = Path("runs"),
    jobs: Annotated[
        int,
        typer.Option(
            min=0,
            help="Runs at a time on this machine; 0: one per two cores; with GPUs, what their memory takes.",
        ),
    ] = 0,
    engine: Annotated[
        Engine, typer.Option(help="Processes on this machine, or tasks on a Ray cluster.")
    ] = Engine.LOCAL,
    address: Annotated[
        str | None, typer.Option(help="Ray: the cluster's address (`auto`, `ray://host:10001`).")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Ray: CPUs of a run.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="Ray: GPUs of a run; 0.5 lets two share one.")] = 0.0,
    store: Annotated[
        str | None,
        typer.Option(help="Ray: fsspec URL for run directories where the nodes do not share a file system."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="Change a recipe field in every run: data.root=DIR (repeatable)."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only the runs of this name or pattern: 'pos-gu-*' (repeatable)."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="I/N: only part I of N, counted from 1, as for the jobs of a SLURM array."),
    ] = None,
    requeue: Annotated[
        bool,
        typer.Option(
            "--requeue",
            help="In a SLURM job: on SIGUSR1 stop with checkpoints and put the job back in the queue.",
        ),
    ] = False,
    have: Annotated[
        list[Path] | None,
        typer.Option(
            help="Exported runs, or a folder of runs, of another machine: finished ones count (repeatable)."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its forecast cost; run nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run what is missing of a study: finished runs are skipped, interrupted ones resumed."""
    from fishlens.sweep.elsewhere import with_finished_elsewhere
    from fishlens.sweep.forecast import describe, forecast
    from fishlens.sweep.gpus import default_jobs, usable_gpus
    from fishlens.sweep.local import run_locally, usable_cores
    from fishlens.sweep.plan import plan
    from fishlens.sweep.requeue import Requeue
    from fishlens.sweep.selection import Shard
    from fishlens.sweep.selection import only as chosen
    from fishlens.sweep.study import find_study
    from fishlens.tracking.reporters import check_reporters

    if as_json and not dry_run:
        raise InputError("--json prints a plan; expected --dry-run with it")
    part = None if shard is None else Shard.parse(shard)
    if requeue and not dry_run:
        Requeue.of(os.environ)  # refuses it outside a job

    console = screen()
    if engine is Engine.LOCAL:
        given = {"--address": address, "--store": store, "--gpus": gpus}
        if ignored := [option for option, value in given.items() if value]:
            raise InputError(f"{ignored[0]} is for --engine ray, and the engine is local")
        if jobs > usable_cores() and not as_json:
            console.print(
                f"{jobs} jobs on {usable_cores()} cores: each run will be slower than alone", style="yellow"
            )
        gpus_here = usable_gpus()
        jobs = jobs or default_jobs(usable_cores(), gpus_here)
    found = find_study(study)
    there = with_finished_elsewhere(plan(found, runs, set_ or ()), have or ())
    whole = there.planned
    for other in there.others:
        say(f"note: {other}", err=True)
    planned = chosen(whole, only or ())
    if part is not None:
        planned = part.of(planned)
    if found.trust and not dry_run:
        say(f"the study trusts code of {', '.join(found.trust)}: its runs import it", err=True)
    expected = forecast(planned, jobs if engine is Engine.LOCAL else None, of=whole)
    if as_json:
        print_json(
            _plan_as_json(
                found.name,
                planned,
                expected,
                part,
                [study, "--runs", str(runs), *_repeated("--set", set_), *_repeated("--have", have)],
            )
        )
        return
    if not planned:
        say(f"shard {part} has none of the {len(whole)} runs")
        return
    due = [run for run in planned if run.is_due]
    describe(planned, console, every_run=dry_run)
    if dry_run:
        console.print(str(expected))
        return
    if not due:
        return
    if engine is Engine.RAY:
        from fishlens.sweep.on_ray import run_on_ray

        outcomes = run_on_ray(due, address=address, threads=threads, gpus=gpus, store=store)
    else:
        check_reporters({name for run in due for name in run.recipe["report_to"]})
        outcomes = run_locally(due, jobs, gpus_here)
    folders = [run.folder for run in due] if store is None else []
    again = Requeue.of(os.environ, folders) if requeue else None
    with _sigterm_interrupts(), nullcontext() if again is None else again.on_signal():
        try:
            failed = _follow(outcomes, due, console)
        except KeyboardInterrupt:
            console.print(_said_of_interruption(again), style="yellow", markup=False)
            raise typer.Exit(130) from None
    for one in failed:
        console.print(f"failed: {one.name}: {one.error}", style="red", markup=False, highlight=False)
    if failed:
        raise typer.Exit(1)


def _plan_as_json(
    study: str, planned: Sequence[PlannedRun], expected: Forecast, shard: Shard | None, words: Sequence[str]
) -> dict[str, Any]:
    """What `--dry-run --json` prints; docs/sweeps.md says what each field means. `words`: of the command to repeat."""
    from fishlens.sweep.plan import Status

    states = [run.status for run in planned]
    return {
        "study": study,
        "shard": None if shard is None else str(shard),
        "counts": {status.value: states.count(status) for status in Status},
        "forecast": {
            "due": expected.due,
            "jobs": expected.jobs,
            "seconds": expected.seconds,
            "wall_seconds": expected.wall_seconds,
        },
        "runs": [
            {
                "name": run.name,
                "folder": str(run.folder),
                "status": run.status.value,
                "due": run.is_due,
                "seconds": run.seconds,
                "values": run.values,
                "command": ["fishlens", "sweep", *words, "--jobs", "1", "--only", run.name],
            }
            for run in planned
        ],
    }


def _repeated(option: str, values: Sequence[object] | None) -> list[str]:
    return [word for value in values or () for word in (option, str(value))]


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM, which a cluster sends before it ends a job, stops a sweep as Ctrl-C does: its runs stay resumable."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _follow(outcomes: Iterator[Outcome], due: Sequence[PlannedRun], console: Console) -> list[Outcome]:
    """Shows each outcome as it comes, with the expected end; returns the failed ones."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    failed = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        # a run is the unit of progress, so look back over all of them, not over the last half minute
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, speed_estimate_period=1e9) as progress:
        bar = progress.add_task("runs", total=len(due))
        try:
            for one in outcomes:
                word = (
                    "held by another process:" if one.held else "finished" if one.error is None else "FAILED"
                )
                progress.console.print(
                    f"{word} {one.name} in {one.seconds:.0f} s", markup=False, highlight=False
                )
                if one.error is not None:
                    failed.append(one)
                progress.advance(bar)
        except KeyboardInterrupt:
            progress.stop()
            raise
    return failed


def _said_of_interruption(again: Requeue | None) -> str:
    """What becomes of the rest, after SLURM was asked to start the job again if that is wanted."""
    if again is None or not again.asked:
        return "interrupted: the same command goes on where it stopped"
    problem = again.back()
    if problem is None:
        return f"interrupted: job {again.job} is back in the queue, and goes on where it stopped"
    return f"interrupted, and job {again.job} is not back in the queue: {problem}; submit it again to go on"
