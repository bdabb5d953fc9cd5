"""What a recipe names, made ready: accelerator, task, schedule, splits. Bad input is said here, before a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState

from fishlens.errors import InputError
from fishlens.journal.recipe_fields import recipe_fields
from fishlens.recipe.recipe import Recipe
from fishlens.schedules import Schedule, make_schedule
from fishlens.schedules.registry import check_options
from fishlens.training.tasks import Split, Task, make_task, subset


def make_accelerator(recipe: Recipe) -> Accelerator:
    """Device, precision and processes, as `accelerate` finds them."""
    # accelerate keeps the precision of the first Accelerator for the whole process, and a sweep runs many recipes
    AcceleratorState._reset_state(reset_partial_state=False)
    precision = "no" if recipe.train.precision == "fp32" else recipe.train.precision
    try:
        accelerator = Accelerator(mixed_precision=precision)
    except ValueError as error:
        raise InputError(f"train.precision is {recipe.train.precision!r}: {error}") from error
    if precision == "fp16" and accelerator.device.type == "cpu":
        # it would run, without the loss scaling that keeps small gradients from vanishing
        raise InputError("train.precision is 'fp16', which needs a GPU: use bf16 or fp32")
    return accelerator


def make_the_task(recipe: Recipe) -> Task:
    """The recipe's task with the recipe's files, none of which is looked for yet."""
    data = recipe.data
    given = {"train": data.train, "validation": data.validation, "test": data.test}
    return make_task(
        recipe.task.name, {k: v for k, v in given.items() if v is not None}, **recipe.task.options
    )


def prepare_task(recipe: Recipe) -> Task:
    """The recipe's task; raises `InputError` now if a file that will be needed in the end is not there."""
    data, task = recipe.data, make_the_task(recipe)
    root = data.folder
    for split in ("train", "validation"):
        task.file(root, split, data.source)
    for language in languages_to_test(recipe):
        task.file(root, "test", language)
    return task


def data_files(recipe: Recipe, task: Task) -> list[Path]:
    """The files on this disk that the run reads its examples from."""
    wanted = [(split, recipe.data.source) for split in ("train", "validation")]
    wanted += [("test", language) for language in languages_to_test(recipe)]
    places = [task.file(recipe.data.folder, split, language) for split, language in wanted]
    return [place for place in places if isinstance(place, Path)]


def languages_to_test(recipe: Recipe) -> list[str]:
    """Those of the final test, the source first if it is among them."""
    source = [recipe.data.source] if recipe.data.test_source else []
    return list(dict.fromkeys([*source, *(t for t in recipe.data.targets)]))


def load_split(recipe: Recipe, task: Task, split: str, language: str) -> Split:
    """A split, or the seeded subset of it that the recipe asks for."""
    wanted = {
        "train": recipe.train.examples,
        "validation": recipe.evaluate.examples,
        "test": recipe.evaluate.test_examples,
    }[split]
    whole = task.load(recipe.data.folder, split, language)
    if wanted is None or (split != "train" and wanted >= len(whole)):
        return whole
    return subset(whole, wanted, recipe.seed)


def prepare_schedule(recipe: Recipe, blocks: Sequence[str]) -> Schedule:
    check_options(recipe.schedule.options)
    return make_schedule(
        recipe.schedule.name,
        every=recipe.schedule.every,
        blocks=blocks,
        seed=recipe.seed,
        **recipe.schedule.options,
    )


def factors(recipe: Recipe) -> dict[str, Any]:
    """What a run is: every field of its recipe, for an analysis to group runs by."""
    return recipe_fields(recipe.model_dump(mode="json"))
