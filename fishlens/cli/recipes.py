"""`fishlens recipes`: what is bundled, one of them fully resolved, or the reference of all fields."""

from pathlib import Path
from typing import Annotated

import typer

from fishlens.cli.output import say


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="A bundled recipe or a file: print it fully resolved.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="Override a field, e.g. -s schedule.name=fun.")
    ] = None,
    fields: Annotated[
        bool, typer.Option("--fields", help="Print every field with its type and meaning.")
    ] = False,
) -> None:
    """List the bundled recipes, or print one with every field."""
    from fishlens.recipe.loading import bundled_recipes, describe_fields, load_recipe, recipe_text

    if fields:
        for field, kind, default, description in describe_fields():
            say(f"{field} ({kind}; {default}): {description}")
    elif name is not None:
        say(recipe_text(load_recipe(name, overrides=set_ or [])), end="")
    else:
        found = bundled_recipes()
        width = max(map(len, found), default=0)
        for recipe, path in found.items():
            say(f"{recipe:<{width}}  {_purpose(path)}")


def _purpose(path: Path) -> str:
    """The comment in the first line of a recipe."""
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
