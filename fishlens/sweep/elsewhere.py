"""Runs of a study that were finished on another machine, known by a few small files: exported runs, or their folders.

A run is told by its name and its recipe. An export holds every field of a recipe but no content of files, so that the
places (data, adapters) are not compared; of the model the last part of its name is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from fishlens.errors import InputError
from fishlens.journal import load_runs
from fishlens.journal.recipe_fields import factor_name, recipe_fields
from fishlens.sweep.plan import PlannedRun, Status

NAME = factor_name("name")


@dataclass(frozen=True)
class Elsewhere:
    """`planned`: the plan, in which runs that are finished elsewhere are so. `others`: one sentence for each run of a
    planned name that was made with another recipe, and so does not count."""

    planned: list[PlannedRun]
    others: list[str]


def with_finished_elsewhere(planned: Sequence[PlannedRun], folders: Sequence[Path]) -> Elsewhere:
    """The plan with the finished runs in `folders`, each an export or a folder of runs.

    Raises `InputError` where a folder holds no run that can be read.
    """
    finished: dict[str, list[tuple[Path, Mapping[str, Any]]]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"--have {folder}: no such folder; expected exported runs, or a folder of runs")
        table = load_runs(folder, tables=()).runs
        for row in table.to_dict("records"):
            if row["status"] == "finished":
                finished.setdefault(str(row.get(NAME)), []).append((folder, row))
    others: list[str] = []
    found = [_if_finished(run, finished.get(run.name, []), others) for run in planned]
    return Elsewhere(found, others)


def _if_finished(
    run: PlannedRun, candidates: Sequence[tuple[Path, Mapping[str, Any]]], others: list[str]
) -> PlannedRun:
    if not run.is_due:
        return run
    told: list[str] = []
    for folder, row in candidates:
        if (difference := _difference(run.recipe, row)) is None:
            seconds = float(row["last"]) - float(row["began"])
            return replace(run, status=Status.ELSEWHERE, seconds=seconds if seconds >= 0 else None)
        told.append(f"{run.name} in {folder} does not count, its recipe is another: {difference}")
    others += told
    return run


def _difference(recipe: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
    """The first field of the planned recipe in which the run that is there was another.

    A field that no run there knows is younger than they are, and had its default.
    """
    from fishlens.recipe.content import is_place
    from fishlens.recipe.loading import describe_fields

    defaults = {factor_name(path): default for path, _, default, _ in describe_fields()}
    wanted = recipe_fields(recipe)
    options = [name for name in row if name.startswith(("schedule_", "task.", *defaults))]
    for name in dict.fromkeys([*wanted, *options]):
        value, there = _plain(wanted.get(name)), _plain(row.get(name))
        if name == "model":
            value, there = _last_part(value), _last_part(there)
        elif is_place(name) or (
            name not in row and defaults.get(name) == f"default {json.dumps(wanted[name])}"
        ):
            continue
        if there != value:
            return f"{name} is {there!r} instead of {value!r}"
    return None


def _plain(value: Any) -> Any:
    """As a column of an export has it: no value is None, a list one text."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    if hasattr(value, "item"):  # numpy's numbers
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def _last_part(place: Any) -> Any:
    return PurePosixPath(place.replace("\\", "/")).name if isinstance(place, str) else place
