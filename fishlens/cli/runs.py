"""`fishlens watch | check | export`: looking at runs, before, during and after."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fishlens.cli.output import Trust, allow_code, name_left_out, say, screen

AsJson = Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")]
Where = Annotated[
    list[str] | None, typer.Argument(help="Run directories, directories of runs, or patterns [runs].")
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


def check(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe or a recipe file.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="Override a field, e.g. -s seed=3.")
    ] = None,
    trust: Annotated[bool, Trust] = False,
    as_json: AsJson = False,
) -> None:
    """Before a run: is every parameter measured, is the measurement right, what will it cost? Trains nothing."""
    from fishlens.recipe.loading import load_recipe
    from fishlens.tracking.check import check as examine
    from fishlens.training.assembly import assemble
    from fishlens.training.preparation import load_split, prepare_task

    settings = load_recipe(recipe, overrides=set_ or [])
    allow_code(settings.own_code, trust)
    task = prepare_task(settings)
    assembly = assemble(settings, task)
    split = load_split(settings, task, "train", settings.data.source)
    rows = task.encode(split, assembly.tokenizer, max_length=settings.train.max_length, train=True)

    def batches(count: int, size: int) -> list[Any]:
        chosen = rows[: min(count, len(rows))]
        return [task.collate(chosen[i : i + size], assembly.tokenizer) for i in range(0, len(chosen), size)]

    found = examine(
        assembly.model,
        batches(settings.tracking.examples, 16),
        batches(settings.train.batch_size, settings.train.batch_size)[0],
        assembly.blocks,
        output=task.output,
        labels=settings.tracking.labels,
    )
    if as_json:
        print_json(found.to_json())
    else:
        _print_check(found, settings.tracking.every)
    if not found.passed:
        raise typer.Exit(1)


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


def _print_check(found: Any, every: int | None) -> None:
    rules: dict[str, list[str]] = {}
    for row in found.coverage:
        rules.setdefault(row.block, []).append(row.rule)
    checked = {one.block: one for one in found.self_checks}
    for block, used in rules.items():
        one = checked.get(block)
        if one is None:
            typer.echo(
                f"{block}: {len(used)} parameters that train are not measured: {_first_names(found, block)}"
            )
            continue
        verdict = "agrees with" if one.passed else "DIFFERS FROM"
        named = "; ".join(f"{used.count(rule)} by {rule}" for rule in dict.fromkeys(used))
        say(f"{block}: {len(used)} parameters ({named}); {verdict} plain autograd to {one.error:.1e}")
    cost = found.forecast
    say(
        f"a probe of {cost.examples} examples takes {cost.probe_seconds:.3g} s and {cost.memory / 2**20:.3g} MiB; "
        f"an update of {cost.update_examples} examples {cost.update_seconds:.3g} s"
    )
    if every is not None:
        say(
            f"with a probe every {every} steps, tracking costs about {100 * cost.overhead(every):.1f}% of training"
        )


def _first_names(found: Any, block: str, most: int = 3) -> str:
    names = [row.parameter for row in found.coverage if row.block == block]
    return ", ".join([*names[:most], *(["…"] if len(names) > most else [])])


def print_json(value: Any) -> None:
    from fishlens.journal.records import plain

    say(json.dumps(plain(value), allow_nan=False))


def is_terminal() -> bool:
    return sys.stdout.isatty()
