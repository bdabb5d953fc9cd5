"""A run's directory before the run begins: what is there already, and may this run write here?"""

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from safetensors import SafetensorError

from fishlens.errors import InputError, first_line
from fishlens.files import is_own
from fishlens.journal import JournalWriter, begun, first_start, read_run
from fishlens.journal.provenance import otherwise
from fishlens.recipe.content import changed, code_fingerprints
from fishlens.recipe.loading import first_difference, load_recipe, recipe_text
from fishlens.recipe.recipe import Recipe
from fishlens.training.results import FOLDERS, RESULTS, RunResult, read_results

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

# files that a run writes in its directory, besides its journals
FILES = ("recipe.yaml", RESULTS, "report.html")


@contextmanager
def disk_errors_in_words(place: Path) -> Iterator[None]:
    """What the file system refuses, and no part of the run can go on without, as one sentence."""
    try:
        yield
    except SafetensorError as error:
        if "os error" not in str(error):
            raise
        raise _stopped(place, first_line(error)) from error
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError):
            raise
        which = f" ({error.filename})" if isinstance(error.filename, str) else ""
        raise _stopped(place, f"{error.strerror}{which}") from error


def with_disk_errors_in_words(folder: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """`disk_errors_in_words` around a function; `folder` is the name of its argument that is the run's folder."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        called = inspect.signature(function)

        @wraps(function)
        def told(*arguments: P.args, **named: P.kwargs) -> T:
            with disk_errors_in_words(Path(called.bind(*arguments, **named).arguments[folder])):
                return function(*arguments, **named)

        return told

    return decorate


def _stopped(place: Path, why: str) -> InputError:
    return InputError(
        f"the run in {place} stopped: {why}; what was written is whole, and the same command goes on"
    )


def look_around(recipe: Recipe, place: Path, resume: str) -> RunResult | None:
    """What is in the run's directory? Returns the results if the run has finished.

    Raises `InputError` if it holds a run that must not be resumed, or one of another recipe.
    """
    if not begun(place):
        return None
    if resume == "never":
        raise InputError(f"{place} already holds a run: choose another directory, or let it be resumed")
    if not (place / "recipe.yaml").is_file():
        raise InputError(f"{place} holds a run without recipe.yaml: it cannot be resumed by a recipe")
    there = load_recipe(place / "recipe.yaml")
    recorded = first_start(place).get("fingerprints")
    difference = first_difference(there, recipe, moved=bool(recorded)) or changed(recipe, recorded or {})
    if difference is not None:
        raise InputError(f"{place} holds a run of another recipe: {difference}; choose another directory")
    results = read_results(place)
    if results is not None:
        run = read_run(place, kinds=("end",))
        if run.end is None:
            _write_end(place, run.start, results)
        for text in otherwise(first_start(place), code_fingerprints(recipe)):
            log.warning("%s; its results are as they were", text)
    return results


def refuse_to_overwrite(recipe: Recipe, place: Path) -> None:
    """Raises `InputError` if a run that begins here, or goes on, would write over what is not its own."""
    new = not begun(place)
    for name in (*FOLDERS, *FILES):
        there = place / name
        if name == "recipe.yaml" and there.is_file() and not there.is_symlink():
            with contextlib.suppress(OSError, UnicodeDecodeError):
                if there.read_text(encoding="utf-8") == recipe_text(recipe):
                    continue  # of this very run, which stopped before its journal
        if there.is_symlink() or (new and there.exists() and not is_own(there)):
            what = "a link" if there.is_symlink() else "something of the name"
            raise InputError(
                f"{place} holds {what} {name}, where a run writes: it is left as it is, choose another directory"
            )


def _write_end(place: Path, start: Mapping[str, Any], results: RunResult) -> None:
    """The last process was killed between its results and its journal's last line: the run has finished."""
    kept = ("run", "factors", "seeds", "device", "blocks", "estimator")
    same: dict[str, Any] = {key: value for key, value in start.items() if key in kept}
    writer = JournalWriter.open(place, same, resumed_from_step=results.step)
    writer.close("finished", step=results.step, best_step=results.best_step)
