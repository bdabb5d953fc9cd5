"""All that a run will read is read before its first update: what cannot be read is refused before training.

`read_data` parses every split in every language. `rehearse` sends a few examples of each through the model and its
scores, with the adapters of their language: what would fail after training fails now.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import Accelerator

from fishlens.errors import InputError, first_line
from fishlens.recipe.paths import SCHEME, resolve_path
from fishlens.recipe.recipe import Recipe
from fishlens.training.assembly import Assembly, check_languages
from fishlens.training.evaluation import Prepared, evaluate
from fishlens.training.preparation import languages_to_test, load_split
from fishlens.training.tasks import Split, Task

REHEARSED = 8  # examples of each split


@dataclass(frozen=True)
class Data:
    """The splits of a run, as much of each as its recipe asks for. tests: {language: split}."""

    train: Split
    validation: Split
    tests: Mapping[str, Split]


def read_data(recipe: Recipe, task: Task) -> Data:
    """Every split in every language, parsed, labels checked. Raises `InputError` naming file and line."""
    source = recipe.data.source
    return Data(
        load_split(recipe, task, "train", source),
        load_split(recipe, task, "validation", source),
        read_tests(recipe, task),
    )


def read_tests(recipe: Recipe, task: Task) -> dict[str, Split]:
    """{language: its test split}, the source first if it is among them."""
    return {language: load_split(recipe, task, "test", language) for language in languages_to_test(recipe)}


def check_places(recipe: Recipe) -> None:
    """Raises `InputError` for a model or language adapter that is a path and not there, before anything is loaded."""
    _check_place("model", recipe.model, "config.json")
    if recipe.language_adapters is None:
        return
    check_languages(recipe)
    for language in recipe.languages:
        place = recipe.language_adapter(language)
        assert place is not None
        _check_place(f"the language adapter for {language!r}", place, "adapter_config.json")


def _check_place(what: str, named: str, file: str) -> None:
    place = Path(resolve_path(named))
    if place.is_dir():
        if not (place / file).is_file():
            raise InputError(f"{what} {named!r} is a folder without {file}")
        for one in place.iterdir():
            if one.exists() and not one.is_file() and not one.is_dir():
                raise InputError(
                    f"{what} {named!r} has {one.name}, which is not a regular file; expected files to read"
                )
    elif place.exists():
        raise InputError(f"{what} {named!r} is a file; expected a folder with {file}")
    elif _is_path(named):
        raise InputError(
            f"{what} {named!r} does not exist; expected a folder with {file}, or a hub id like owner/name"
        )


def _is_path(named: str) -> bool:
    """Can this be no hub id: does it begin, end or go on as only paths do?"""
    return (
        named.startswith(("/", ".", "~", SCHEME))
        or named.endswith("/")
        or named.count("/") > 1
        or "\\" in named
    )


def rehearse(
    recipe: Recipe,
    task: Task,
    assembly: Assembly,
    accelerator: Accelerator,
    tests: Mapping[str, Split],
    validation: Split | None = None,
) -> None:
    """Score a few examples of every test and of the validation split: nothing is kept, weights and modes stay.

    Raises `InputError` naming split and language, with what went wrong there.
    """
    for split in [*([validation] if validation is not None else []), *tests.values()]:
        language = split.language
        few = replace(split, examples=split.examples[:REHEARSED])
        try:
            rows = task.encode(few, assembly.tokenizer, max_length=recipe.train.max_length, train=False)
            scores = evaluate(
                assembly,
                task,
                Prepared(few, rows),
                accelerator,
                language=language,
                batch_size=recipe.evaluate.batch_size,
            ).scores
        except InputError as error:
            raise InputError(f"{split.name} in {language!r} cannot be scored: {error}") from error
        except Exception as error:  # a task or a metric of the user's own may raise whatever it likes
            raise InputError(
                f"{split.name} in {language!r} cannot be scored: {type(error).__name__}: {first_line(error)}"
            ) from error
        if task.headline not in scores:
            raise InputError(
                f"task {task.name!r} is judged by {task.headline!r}, but its scores are {', '.join(scores) or 'none'}"
            )
