"""`fishlens measure`: the Fisher information of a finished run's weights, or of a model that no run of ours made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fishlens.cli.output import Trust, allow_code, say, screen
from fishlens.cli.runs import AsJson, print_json
from fishlens.errors import InputError


def measure(
    what: Annotated[
        str, typer.Argument(metavar="RUN|MODEL", help="A run's directory, or a model: folder or hub id.")
    ],
    step: Annotated[
        int | None, typer.Option(help="One whose checkpoint was kept.", show_default="the best")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A directory step-N that lies elsewhere, instead of --step.")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="auto, exact, mc, empirical, mode.")] = None,
    examples: Annotated[int | None, typer.Option(help="How many examples of each language.")] = None,
    split: Annotated[str | None, typer.Option(help="train or validation, of the source.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A file instead of this split's, or a pattern with {language}. Of a model: what it reads."
        ),
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option(help="A target language, measured beside the source without labels. May be repeated."),
    ] = None,
    blocks: Annotated[
        list[str] | None,
        typer.Option(help="A block of your own: attention='*.attention.*'. May be repeated."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            help="Any other field, e.g. -s tracking.samples=8; of a model -s 'task.columns={text: t}'.",
        ),
    ] = None,
    series: Annotated[
        str | None,
        typer.Option(
            help="Name of the new series, or of one that gets another step.", show_default="measured-N"
        ),
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Print it and write nothing.")] = False,
    trust: Annotated[bool, Trust] = False,
    as_json: AsJson = False,
) -> None:
    """Measure a finished run again, or any model with a head on a file: nothing is trained.

    RUN: another estimator, language, data set, step, blocks. What is not said is as the run tracked it, down to the
    examples: with its own settings the numbers are the same bits. They are written as a new series into the run's
    journal and never become part of a curve.

    MODEL: a checkpoint of transformers, with --data: a table with a column `text` (.tsv, .csv, .jsonl, .json,
    .parquet), or raw text (.txt). The numbers are printed.
    """
    import json

    told = {
        "tracking.labels": labels,
        "tracking.examples": examples,
        "tracking.split": split,
        "tracking.languages": language or None,
        "tracking.blocks": _own_blocks(blocks) if blocks else None,
    }
    overrides = [f"{field}={json.dumps(value)}" for field, value in told.items() if value is not None]
    if not _is_run(Path(what)):
        of_a_run = {
            "--step": step,
            "--checkpoint": checkpoint,
            "--series": series,
            "--split": split,
            "--language": language,
        }
        _measure_model(what, data, [*overrides, *(set_ or [])], of_a_run, as_json)
        return
    from fishlens.recipe.loading import load_recipe
    from fishlens.training.measure_run import measure_run

    run = Path(what)
    if (run / "recipe.yaml").is_file():
        recipe = load_recipe(run / "recipe.yaml", overrides=set_ or [])
        if data is not None:
            overrides.append(f"data.{split or recipe.tracking.split}={json.dumps(data)}")
        allow_code(recipe.own_code, trust)
    found = measure_run(
        run, [*overrides, *(set_ or [])], step=step, checkpoint=checkpoint, series=series, write=not table
    )
    if as_json:
        print_json({"run": str(run), "series": found.series, "step": found.step, "probes": found.records})
        return
    for text in found.notes:
        say(text)
    for record in found.records:
        _print_table(record)
    if found.series is not None:
        say(f"written to {run} as series {found.series}: load_runs(…).fisher_series, or fishlens export")


def _is_run(place: Path) -> bool:
    from fishlens.journal import attempts

    return (place / "recipe.yaml").is_file() or (place.is_dir() and bool(attempts(place)))


def _measure_model(
    model: str, data: str | None, overrides: Sequence[str], of_a_run: Mapping[str, Any], as_json: bool
) -> None:
    from fishlens.training.measure_model import measure_model

    for option, value in of_a_run.items():
        if value:
            raise InputError(
                f"{model} is not a run, and {option} is for runs; expected --data, --labels, --examples or --blocks"
            )
    if data is None:
        raise InputError(
            f"{model} is not a run; expected --data with it, a file of texts that the model reads"
        )
    found = measure_model(model, data, overrides)
    if as_json:
        print_json({"model": model, "data": data, "probes": found.records})
        return
    for text in found.notes:
        say(text)
    for record in found.records:
        estimator = record["estimator"]
        say(
            ", ".join(
                f"{name}={estimator[name]}"
                for name in ("labels", "granularity", "dtype", "blocks")
                if estimator[name]
            )
        )
        _print_table(record)


def _own_blocks(given: Sequence[str]) -> dict[str, list[str]]:
    """{name: patterns}; a name given twice has both patterns."""
    found: dict[str, list[str]] = {}
    for one in given:
        name, equals, pattern = one.partition("=")
        if not (name and equals and pattern):
            raise InputError(f"--blocks is {one!r}; expected NAME=PATTERN, as attention='*.attention.*'")
        found.setdefault(name, []).append(pattern)
    return found


def _print_table(record: Mapping[str, Any]) -> None:
    from rich.table import Table

    columns = [
        name
        for name in (
            "trace",
            "stderr",
            "effective_dimension",
            "noise_scale",
            "overlap",
            "rank_overlap",
            "cka",
        )
        if record.get(name)
    ]
    table = Table(box=None, pad_edge=False)
    table.add_column("block" if record.get("language") is None else f"block ({record['language']})")
    for name in columns:
        table.add_column(name, justify="right")
    for block in record["trace"]:
        values = [record[name].get(block) for name in columns]
        table.add_row(block, *("" if value is None else f"{value:.4g}" for value in values))
    screen().print(table)
