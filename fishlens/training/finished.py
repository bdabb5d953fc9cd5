"""A training that is over, read again: for a test or a measurement that nobody thought of before it ended."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fishlens.errors import InputError
from fishlens.journal import attempts, read_run
from fishlens.recipe.loading import differences, load_recipe
from fishlens.recipe.recipe import Recipe
from fishlens.training.checkpoint import (
    CHECKPOINTS,
    Snapshot,
    list_checkpoints,
    newest_checkpoint,
    read_checkpoint,
)
from fishlens.training.job import read_trainer_state
from fishlens.training.loop import TrainerState
from fishlens.training.results import read_results

MADE_THE_HEAD = ("task.name", "task.labels", "task.types")
_KEPT = ("run", "id", "factors", "seeds", "blocks", "estimator", "device", "fingerprints")


def check_run(run_dir: str | Path) -> Path:
    """The run's directory. Raises `InputError` unless it holds a run by a recipe."""
    place = Path(run_dir)
    if not attempts(place) or not (place / "recipe.yaml").is_file():
        raise InputError(
            f"{place} holds no run by a recipe; expected a directory with recipe.yaml and a journal"
        )
    return place


def recipe_with(place: Path, overrides: Sequence[str], may_change: Sequence[str], rule: str) -> Recipe:
    """The run's recipe with overrides of these fields and those below them; all others made the weights.

    Raises `InputError` for another field, with `rule`, which says what may change.
    """
    before = load_recipe(place / "recipe.yaml")
    after = load_recipe(place / "recipe.yaml", overrides=overrides)
    for path, old, new in differences(before, after):
        below = any(path == field or path.startswith(f"{field}.") for field in may_change)
        if not below or path.startswith(MADE_THE_HEAD):
            raise InputError(
                f"{path} is {new!r}, and {place} was trained with {old!r}: {rule}; train another run"
            )
    return after


def read_training(place: Path) -> tuple[Snapshot, TrainerState]:
    """The newest checkpoint, which is of the last step. Raises `InputError` if the training is not over."""
    there = newest_checkpoint(place / CHECKPOINTS)
    if there is None:
        raise InputError(f"{place} has no checkpoint: there are no weights to test or measure")
    newest = read_checkpoint(there)
    steps = newest.state.get("steps")
    results = read_results(place)
    over = (
        results is not None or (steps is not None and newest.step >= steps) or _was_tested(place, newest.step)
    )
    if not over:
        of = f" of {steps}" if steps is not None else ""
        raise InputError(
            f"{place} is trained until step {newest.step}{of}: `fishlens track {place}` goes on, then tests it"
        )
    return newest, read_trainer_state(newest.state)


def _was_tested(place: Path, step: int) -> bool:
    """Checkpoints before 0.2 do not say how many steps there are; a test comes only after the last one."""
    records = read_run(place, kinds=("eval",)).records
    return any(record.get("split") == "test" and record["step"] <= step for record in records)


def checkpoint_of(place: Path, step: int) -> Path:
    """The checkpoint of this step. Raises `InputError` with those that there are."""
    there = list_checkpoints(place / CHECKPOINTS)
    if step not in there:
        have = ", ".join(map(str, there)) or "none"
        raise InputError(
            f"{place / CHECKPOINTS} has no step-{step}: its weights are not there (there are: {have}); "
            "checkpoint.every and checkpoint.keep say which a run keeps"
        )
    return there[step]


def start_again(place: Path) -> dict[str, Any]:
    """What the start record of a new attempt of a finished run says as the one before did."""
    start = read_run(place, kinds=("start",)).start
    return {key: value for key, value in start.items() if key in _KEPT}
