"""The model of a recipe, put together by the library that its adapter is of."""

from fishlens.recipe.recipe import PEFT, Recipe
from fishlens.training.assembly import Assembly, needs
from fishlens.training.tasks import Task
from fishlens.training.tasks.likelihood import Likelihood


def check_library(recipe: Recipe) -> None:
    """Raises `InputError` with the command that installs it where the library of the recipe's adapter is not there."""
    if recipe.adapter is not None and recipe.adapter.startswith(PEFT):
        needs("peft", f"adapter={recipe.adapter!r}", "peft")
    else:
        needs("adapters", f"recipe {recipe.name!r}", "madx")


def assemble(recipe: Recipe, task: Task) -> Assembly:
    """The model of a recipe, put together by the library that its adapter is of.

    Raises `InputError` where that library is not installed, and for what cannot be loaded or does not fit.
    """
    if recipe.adapter is not None and recipe.adapter.startswith(PEFT):
        check_library(recipe)
        from fishlens.training.peft_adapter import assemble_peft

        return assemble_peft(recipe, task)
    if isinstance(task, Likelihood):
        task.add_head(None)  # refuses: heads are those of encoders
    check_library(recipe)
    from fishlens.training.madx import assemble_madx

    return assemble_madx(recipe, task)
