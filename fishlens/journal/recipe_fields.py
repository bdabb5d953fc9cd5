"""The fields of a recipe as factors of its run: what `factors` in a journal's start record holds.

Every field is a factor under its dotted name, `train.learning_rate`; the few that runs have always been grouped by have
short names. Journals written before 0.2 hold only those few: the rest is read from the `recipe.yaml` beside them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from fishlens.files import open_regular

SHORT = {
    "name": "recipe",  # names the data set where it is a bundled one's
    "task.name": "task",
    "schedule.name": "schedule",
    "schedule.every": "every",
    "data.source": "source",
    "data.targets": "targets",
    "train.examples": "examples",
}
ALWAYS = "train.learning_rate"  # in every journal that holds every field
LARGEST = 1_000_000  # bytes of a recipe; one is a page of text
MOST = 2_000  # fields


def recipe_fields(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Factor → value, from a recipe's sections; options of a schedule as `schedule_<option>`."""
    found: dict[str, Any] = {}
    for name, value in _flat(recipe, ""):
        if len(found) >= MOST:
            break
        found[factor_name(name)] = value
    return found


def factor_name(field: str) -> str:
    """The factor that a field of a recipe is: `schedule.every` and `every` are one."""
    option = field.removeprefix("schedule.")
    return SHORT.get(field) or (f"schedule_{option}" if option != field else field)


def fields_beside(run: Path, factors: Mapping[str, Any]) -> dict[str, Any]:
    """What the recipe of a run says and its journal's `factors` do not; nothing where there is no recipe to read."""
    file = run / "recipe.yaml"
    if ALWAYS in factors:
        return {}
    try:
        with open_regular(file) as opened:
            text = opened.read(LARGEST + 1)
        if len(text) > LARGEST:
            return {}
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_LOADER)):
            return {}  # a recipe of ours has none, and a stranger's may stand for more than there is memory
        read = yaml.load(text, Loader=_LOADER)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    if not isinstance(read, dict):
        return {}
    return {name: value for name, value in recipe_fields(read).items() if name not in factors}


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, list):
            yield name, [item for item in value if not isinstance(item, list | Mapping)]
        else:
            yield name, value
