"""`fishlens runs`: what runs there are, which of them, how they differ, and what one of them was made of."""

import glob
import math
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fishlens.cli.output import name_left_out, say, screen
from fishlens.cli.runs import AsJson, Where, is_terminal, print_json
from fishlens.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Conditions = Annotated[
    list[str] | None,
    typer.Option(
        "--where", help="Only runs whose field is so: train.learning_rate=0.002, 'test>=60', schedule!=gu."
    ),
]
COLUMNS = (
    "date",
    "run",
    "status",
    "steps",
    "task",
    "model",
    "adapter",
    "schedule",
    "seed",
    "validation",
    "test",
    "path",
)
_RIGHT = ("steps", "seed", "validation", "test")


def runs(
    where: Where = None,
    conditions: Conditions = None,
    sort: Annotated[
        list[str] | None,
        typer.Option("--sort", help="By a field; -FIELD from large to small. May be repeated."),
    ] = None,
    diff: Annotated[
        bool, typer.Option("--diff", help="What differs between the runs named: fishlens runs --diff A B.")
    ] = False,
    show: Annotated[
        str | None, typer.Option(help="One run: its recipe, versions, data, seeds and files.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List runs: when, what they are, how well they do. test: the mean over target languages, without the source."""
    from fishlens.analysis.listing import chosen, differences, in_order

    if show is not None:
        _show(_place_of(show, where), as_json)
        return
    table = in_order(chosen(_listed(where or ["runs"], copies=diff), conditions or []), sort or [])
    if diff:
        if len(table) < 2:
            raise InputError(f"--diff compares runs, and here are {len(table)}; expected two or more")
        _print_differences(differences(table), table["run"].astype(str).tolist(), as_json)
    elif as_json:
        print_json(table.to_dict("records"))
    else:
        rows = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
        _print_table([{**row, **_words(row)} for row in rows])


def _listed(where: Sequence[str], copies: bool = False) -> "pd.DataFrame":
    """The runs of these places; what is not a place is the name of a run in one of the places, by default in `runs`."""
    from fishlens.analysis.listing import listed
    from fishlens.journal import load_runs

    places = [one for one in where if os.path.exists(one) or glob.glob(one)]  # noqa: PTH110, PTH207
    names = [one for one in where if one not in places]
    if names and not places and not Path("runs").is_dir():
        places = names  # the reader says what is wrong with them
        names = []
    alone = [one for one in places if Path(one, "journal-1.jsonl").exists()] if names else []
    loaded = load_runs(places or ["runs"], tables=["evaluation"], copies=copies)
    name_left_out(loaded.left_out)
    for run, path, count in loaded.runs.loc[
        loaded.runs["damaged"] > 0, ["run", "path", "damaged"]
    ].to_numpy():
        say(
            f"{run}: {count} damaged lines or missing journals, which `fishlens watch {path}` names", err=True
        )
    table = listed(loaded)
    table["date"] = [_date(value) for value in table["began"]]
    if not names:
        return table
    known = table["run"].astype(str)
    for name in names:
        if name not in set(known):
            raise InputError(
                f"{name} is neither a place nor the name of a run in {', '.join(places or ['runs'])}"
            )
    also = [Path(one).resolve().name for one in alone]
    return table[known.isin([*names, *also]).to_numpy()]


def _place_of(name: str, where: Sequence[str] | None) -> Path:
    """The directory of the run that is meant: a path, or a name in one of the places."""
    from fishlens.journal.reader import attempts

    for place in (Path(name), *(Path(one, name) for one in where or ["runs"])):
        if attempts(place):
            return place
    raise InputError(f"{name} holds no run, and there is none of this name in {', '.join(where or ['runs'])}")


def _date(began: Any) -> str | None:
    if began is None or began != began:
        return None
    try:
        return datetime.fromtimestamp(float(began)).astimezone().strftime("%Y-%m-%d %H:%M")
    except (OverflowError, OSError, ValueError):  # an export says what it likes
        return None


def _words(row: dict[str, Any]) -> dict[str, Any]:
    """What the table shows otherwise than it is: a model's folder by its name, a path from here."""
    from fishlens.analysis.selection import shown

    model, path = row.get("model"), str(row["path"])
    near = os.path.relpath(path) if Path(path).is_absolute() else path
    return {"model": None if _is_nothing(model) else shown(model), "path": min(near, path, key=len)}


def _print_table(rows: list[dict[str, Any]], columns: Sequence[str] = COLUMNS) -> None:
    from rich.table import Table
    from rich.text import Text

    from fishlens.tracking.watch import STYLES, plain

    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(
            name, justify="right" if name in _RIGHT else "left", overflow="fold", no_wrap=name in _RIGHT
        )
    for row in rows:
        style = {"status": STYLES.get(str(row.get("status")), "yellow")}
        cells = [(name, _cell(row.get(name), str(row.get("field") or name))) for name in columns]
        table.add_row(*(Text(plain(text), style=style.get(name, "")) for name, text in cells))
    screen(width=None if is_terminal() else 400, soft_wrap=not is_terminal()).print(table)


def _print_differences(rows: list[dict[str, Any]], names: list[str], as_json: bool) -> None:
    if as_json:
        print_json(rows)
    elif not rows:
        say(f"{', '.join(names)}: no field differs")
    else:
        _print_table(rows, ["field", *names])


def _show(place: Path, as_json: bool) -> None:
    """Everything that a run says of itself, in the order in which one asks."""
    from fishlens.journal import read_run

    run = read_run(place, kinds={"start", "end", "fisher"})
    start = run.start
    recipe = place / "recipe.yaml"
    files = sorted(path for path in place.rglob("*") if path.is_file())
    found: dict[str, Any] = {
        "run": {
            "name": start.get("run") or place.resolve().name,
            "path": str(place.resolve()),
            "status": run.status,
            "steps": run.last_step,
            "attempts": run.attempts,
            "began": _date(start.get("time")),
            "device": start.get("device"),
            "error": (run.end or {}).get("error"),
        },
        "commands": {f"attempt {one['attempt']}": one.get("command") for one in run.starts},
        **{key: start.get(key) for key in start if key not in _NOT_SHOWN},
        "data": _data(place, start),
        "examples of the probes": _examples(run.records, start),
        "recipe": recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else None,
        "files": {str(path.relative_to(place)): path.stat().st_size for path in files},
    }
    if as_json:
        print_json(found)
        return
    for title, value in found.items():
        if value not in (None, {}, []):
            say(f"{title}\n" + "\n".join(f"  {line}" for line in _lines(value)))


def _data(place: Path, start: dict[str, Any]) -> dict[str, Any]:
    """Which data the run was trained and tested on, as far as it says."""
    from fishlens.journal.recipe_fields import fields_beside

    factors = start.get("factors") or {}
    said = {**factors, **fields_beside(place, factors), **(start.get("data") or {})}
    return {key: value for key, value in said.items() if key in _DATA or key.startswith(("data.", "task."))}


def _examples(records: Sequence[Mapping[str, Any]], start: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What the file calls the examples that were measured, of each language and series; of several probes the most."""
    found: dict[str, list[Any]] = {}
    for record in records:
        ids = record.get("examples_ids") or []
        language = record.get("language") or (start.get("factors") or {}).get("source") or "source"
        name = f"{language}, series {record['series']}" if record.get("series") else str(language)
        if len(ids) > len(found.get(name, ())):
            found[name] = ids
    return found


_DATA = ("task", "source", "targets", "examples")
_NOT_SHOWN = (
    "kind",
    "time",
    "step",
    "run",
    "format",
    "attempt",
    "device",
    "process",
    "recipe",
    "files",
    "data",
    "factors",
    "command",
)


def _lines(value: Any) -> list[str]:
    from fishlens.tracking.watch import plain

    if isinstance(value, str):
        return [plain(line) for line in value.splitlines()]
    if isinstance(value, dict):
        width = max((len(plain(str(key))) for key in value), default=0)
        return [
            f"{plain(str(key)).ljust(width)}  {plain(_cell(one))}"
            for key, one in value.items()
            if not _is_nothing(one)
        ]
    return [plain(str(value))]


def _cell(value: Any, field: str = "") -> str:
    if _is_nothing(value):
        return ""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if not isinstance(value, float):
        return str(value)
    if field in ("validation", "test"):
        return f"{value:.1f}"
    return f"{value:.0f}" if value.is_integer() else f"{value:.1f}" if abs(value) >= 1 else f"{value:.4g}"


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
