"""`fishlens watch | export`: looking at runs."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fishlens.cli.output import name_left_out, say, screen

AsJson = Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")]
Where = Annotated[
    list[str] | None,
    typer.Argument(help="Run directories, directories of runs, or patterns.", show_default="runs"),
]


def watch(
    run: Annotated[Path, typer.Argument(help="The run's directory.")],
    every: Annotated[float, typer.Option(help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print how it stands and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Follow a run in the terminal; a finished one is shown as it ended."""
    from fishlens.journal import read_run

    if as_json:
        there = read_run(run)
        latest = {record["kind"]: record for record in there.records}
        print_json(
            {"run": there.path.name, "status": there.status, "step": there.last_step, "latest": latest}
        )
        return

    from fishlens.tracking import watch as view

    try:
        view.watch(run, screen(), every=every, once=once)
    except KeyboardInterrupt:
        raise typer.Exit from None


def export(
    where: Where = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory for the Parquet files.")] = Path(
        "data"
    ),
    as_json: AsJson = False,
) -> None:
    """Write many runs as Parquet: fisher (one row per run, step and block), runs, evaluation, training, …"""
    from fishlens.journal import export_runs, load_runs

    loaded = load_runs(where or ["runs"])
    name_left_out(loaded.left_out)
    written = export_runs(loaded, output)
    if as_json:
        print_json({"directory": str(output), "rows": written})
    else:
        for name, count in written.items():
            say(f"{output / name}.parquet: {count} rows")


def print_json(value: Any) -> None:
    from fishlens.journal.records import plain

    say(json.dumps(plain(value), allow_nan=False))


def is_terminal() -> bool:
    return sys.stdout.isatty()
