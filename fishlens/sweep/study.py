"""A study: which runs an experiment consists of.

    name: transfer
    set: {tracking.examples: 64}            # for every run
    grids:
      - recipe: pos                         # a bundled recipe, or a file beside the study
        set: {train.steps: 400}             # for the runs of this grid
        vary:                               # every combination is a run
          schedule.name: [standard, gu, fun]
          seed: [0, 1, 2, 3]

A study of a single grid may put `recipe`, `set` and `vary` at the top level.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fishlens.errors import InputError
from fishlens.recipe.recipe import FolderName
from fishlens.recipe.yaml_text import read_yaml

Value = str | int | float | bool | None | list[Any] | dict[str, Any]


class Grid(BaseModel):
    """One recipe and the fields that vary: every combination of values is a run."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    recipe: str = Field(
        description="Name of a bundled recipe, or path of a recipe file (relative to the study)."
    )
    set: dict[str, Value] = Field(default_factory=dict, description="Recipe fields changed in every run.")
    vary: dict[str, list[Value]] = Field(
        default_factory=dict, description="Recipe fields and the values each takes, in nested order."
    )

    @model_validator(mode="after")
    def _no_field_twice_and_none_empty(self) -> Grid:
        for field, values in self.vary.items():
            if not values:
                raise ValueError(f"`vary.{field}` has no values: give at least one")
        return self

    def combinations(self) -> list[dict[str, Value]]:
        """The varied fields' values, one dictionary a run; the last field varies fastest."""
        return [dict(zip(self.vary, values, strict=True)) for values in product(*self.vary.values())]


class StudyFile(BaseModel):
    """A named collection of grids, see the module's documentation."""

    model_config = ConfigDict(extra="forbid")

    name: FolderName = Field(description="Name of the study; its runs are kept in a folder of this name.")
    set: dict[str, Value] = Field(default_factory=dict, description="Recipe fields changed in every run.")
    grids: list[Grid] = Field(min_length=1, description="What is run.")
    trust: list[str] = Field(
        default_factory=list, description="Modules of one's own whose classes the recipes name, to be run."
    )
    folder: Path = Field(default=Path(), exclude=True, description="Where the study's file lies.")

    @model_validator(mode="before")
    @classmethod
    def _single_grid(cls, data: Any) -> Any:
        if isinstance(data, dict) and "recipe" in data:
            if "grids" in data:
                raise ValueError(
                    "`recipe` at the top level is short for one grid: use it or `grids`, not both"
                )
            data = dict(data)
            data["grids"] = [{key: data.pop(key) for key in ("recipe", "vary") if key in data}]
        return data


def load_study(path: str | Path) -> StudyFile:
    """Reads and validates a study file.

    Raises:
        InputError: the file is missing, is not YAML, or a field is unknown or wrong (named with its path).
    """
    path = Path(path)
    data = read_yaml(path, "study")
    try:
        return StudyFile.model_validate({**data, "folder": path.parent})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the study"
        raise InputError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from None


def find_study(name_or_path: str) -> StudyFile:
    """A bundled study by its name, or a study file by its path.

    Raises:
        InputError: there is neither; the sentence lists the bundled ones.
    """
    bundled = files("fishlens.sweep") / "studies"
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or path.exists():
        return load_study(path)
    with as_file(bundled / f"{name_or_path}.yaml") as there:
        if there.exists():
            return load_study(there)
    known = sorted(
        entry.name.removesuffix(".yaml") for entry in bundled.iterdir() if entry.name.endswith(".yaml")
    )
    raise InputError(f"no study {name_or_path!r}: give a YAML file, or one of {', '.join(known)}")
