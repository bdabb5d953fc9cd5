"""From a study to its runs: names, recipes, and what has been done already."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fishlens.errors import InputError
from fishlens.journal import attempts, first_start
from fishlens.journal.ends import last_record
from fishlens.journal.reader import start_of
from fishlens.names import colliding, shortened
from fishlens.sweep.study import Grid, StudyFile, Value

if TYPE_CHECKING:
    from fishlens.recipe.recipe import Recipe


class Status(str, Enum):
    """What a run directory says about its run."""

    NEW = "new"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    UNREADABLE = "unreadable"  # its run says why, and the others are not held up by it
    FINISHED = "finished"
    ELSEWHERE = "finished elsewhere"  # its folder is not here


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study: `recipe` is the resolved recipe as plain data, ready to be sent to another process."""

    name: str
    folder: Path
    recipe: dict[str, Any]
    status: Status
    seconds: float | None = None  # wall time that a finished run took
    trust: tuple[str, ...] = ()  # modules of one's own that the run may import
    values: dict[str, Value] = field(default_factory=dict)  # of the fields that vary in its grid

    @property
    def is_due(self) -> bool:
        return self.status not in (Status.FINISHED, Status.ELSEWHERE)


def plan(study: StudyFile, runs: Path, overrides: Sequence[str] = ()) -> list[PlannedRun]:
    """All runs of `study`, in the order in which they will be started; their folders lie in `runs`.

    `overrides`: recipe fields changed in every run (`a.b=c`), over what the study says.

    Raises:
        InputError: two combinations give the same name, a recipe is wrong, or a folder of that name holds a run
            that was made with another recipe.
    """
    from fishlens.recipe.loading import load_recipe

    planned = []
    for grid in study.grids:
        source = _recipe_source(grid, study.folder)
        fixed = {**study.set, **grid.set}
        base = load_recipe(source, overrides=[*_assignments(fixed), *overrides]).name
        for values in grid.combinations():
            name = run_name(base, values)
            recipe = load_recipe(
                source, overrides=[*_assignments({**fixed, **values, "name": name}), *overrides]
            )
            folder = runs / study.name / name
            status, seconds = state_of(folder)
            if status not in (Status.NEW, Status.UNREADABLE):
                _refuse_another_recipe(folder, recipe)
            _refuse_code_that_is_not_trusted(study, recipe)
            plain = recipe.model_dump(mode="json")
            planned.append(PlannedRun(name, folder, plain, status, seconds, tuple(study.trust), values))
    counts = Counter(run.name for run in planned)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise InputError(
            f"the study {study.name!r} plans {twice[0]!r} {counts[twice[0]]} times: vary a field that tells them apart"
        )
    if pair := colliding(run.name for run in planned):
        raise InputError(
            f"the study {study.name!r} plans {pair[0]!r} and {pair[1]!r}, one folder on some systems: rename one"
        )
    return planned


def _refuse_code_that_is_not_trusted(study: StudyFile, recipe: Recipe) -> None:
    for where, name in recipe.own_code.items():
        module = name.partition(":")[0]
        if module not in study.trust:
            raise InputError(
                f"{where} is {name!r}: that is code, and nothing of it was run; write `trust: [{module}]` into the "
                "study if you know where it comes from"
            )


def run_name(recipe: str, values: dict[str, Value]) -> str:
    """`pos-gu-seed0` from recipe `pos`, `schedule.name: gu` and `seed: 0`: readable, unique within a study."""
    words = [recipe]
    for path, value in values.items():
        last = path.rsplit(".", 1)[-1]
        text = re.sub(
            r"[^\w.+-]+", "_", json.dumps(value) if isinstance(value, (dict, list)) else str(value)
        ).strip("_")
        words.append(text if last == "name" else f"{last}{text}" if last == "seed" else f"{last}_{text}")
    return shortened("-".join(words))


def state_of(folder: Path) -> tuple[Status, float | None]:
    """The outcome of the last attempt in a run directory, read from both ends of its journals (not parsed whole).

    Returns:
        The status, and for a finished run the seconds from the first attempt's start to the end.
    """
    try:
        begun = [(path, start) for _, path in attempts(folder) if (start := start_of(path)) is not None]
    except InputError:
        return Status.UNREADABLE, None
    if not begun:
        return Status.NEW, None
    end = last_record(begun[-1][0]) or {}
    if end.get("kind") != "end":
        return Status.INTERRUPTED, None
    if end.get("status") == "finished":
        times = end.get("time"), begun[0][1].get("time")
        known = all(type(moment) in (int, float) for moment in times)
        seconds = times[0] - times[1] if known else -1.0  # type: ignore[operator]
        return Status.FINISHED, seconds if seconds >= 0 else None  # the clock was set back: nobody knows
    return (Status.FAILED if end.get("status") == "failed" else Status.INTERRUPTED), None


def _recipe_source(grid: Grid, folder: Path) -> str | Path:
    beside = folder / grid.recipe
    return beside if beside.suffix in {".yaml", ".yml"} and beside.exists() else grid.recipe


def _assignments(fields: dict[str, Value]) -> list[str]:
    return [f"{path}={json.dumps(value)}" for path, value in fields.items()]  # JSON is YAML


def _refuse_another_recipe(folder: Path, recipe: Recipe) -> None:
    """A finished run is skipped, so nobody else would notice that it answers another question."""
    from fishlens.recipe.content import changed
    from fishlens.recipe.loading import first_difference, load_recipe

    path = folder / "recipe.yaml"
    if not path.exists():
        return
    recorded = first_start(folder).get("fingerprints") or {}
    difference = first_difference(load_recipe(path), recipe, moved=bool(recorded))
    if difference := difference or changed(recipe, recorded):
        raise InputError(
            f"{folder} holds a run made with another recipe: {difference}; rename the study, or move that folder away"
        )
