"""`evaluate_run`: a training that is over is tested again, on other files, languages or rules; nothing is trained.

It is for runs whose test could not be read, and for languages that nobody thought of then. The best step's weights are
taken from their checkpoint. The journal gets a new attempt, which replaces the scores of the languages tested again and
keeps all others; what earlier attempts wrote stays in their files, and their predictions where they are.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator

from fishlens.errors import InputError
from fishlens.journal import JournalWriter
from fishlens.recipe.recipe import Recipe
from fishlens.training.assembly import Assembly
from fishlens.training.checkpoint import read_weights
from fishlens.training.evaluation import Evaluation
from fishlens.training.finished import check_run, checkpoint_of, read_training, recipe_with, start_again
from fishlens.training.loop import TrainerState
from fishlens.training.model import assemble
from fishlens.training.place import with_disk_errors_in_words
from fishlens.training.preparation import make_accelerator, make_the_task
from fishlens.training.reading import check_places, read_tests, rehearse
from fishlens.training.results import RunResult, claim_folders, read_results, write_results
from fishlens.training.tasks import Split, Task
from fishlens.training.testing import save_predictions, score_language, score_records

log = logging.getLogger(__name__)

MAY_CHANGE = (
    "data.root", "data.targets", "data.test", "data.test_source", "language_adapters", "evaluate.batch_size",
    "evaluate.test_examples", "task",
)  # fmt: skip
"""Fields that a test may be told anew, and those below them; all others made the weights."""
TESTS_CHANGE = (
    "a test changes only data.targets, data.test, data.root, language_adapters, the task's rules and "
    "evaluate.*"
)


@with_disk_errors_in_words("run_dir")
def evaluate_run(run_dir: str | Path, overrides: Sequence[str] = ()) -> RunResult:
    """Test the best weights of a run whose training is over, by its recipe with these overrides.

    Raises `InputError`, before anything is written, if there is no such run, its training is not over, an override is
    of the training, or something cannot be read.
    """
    place = check_run(run_dir)
    claim_folders(place)
    recipe = recipe_with(place, overrides, MAY_CHANGE, TESTS_CHANGE)
    newest, state = read_training(place)
    task = make_the_task(recipe)
    check_places(recipe)
    tests = read_tests(recipe, task)
    if not tests:
        raise InputError("there is no language to test: set data.targets, or data.test_source=true")
    accelerator = make_accelerator(recipe)
    assembly = assemble(recipe, task)
    assembly.model.to(accelerator.device)
    rehearse(recipe, task, assembly, accelerator, tests)
    best = newest.step if state.best_step is None else state.best_step
    assembly.set_weights(read_weights(checkpoint_of(place, best)))
    found = {
        language: score_language(recipe, task, assembly, accelerator, split)
        for language, split in tests.items()
    }
    return _write(place, recipe, accelerator, assembly, task, tests, found, newest.step, state)


def _write(
    place: Path,
    recipe: Recipe,
    accelerator: Accelerator,
    assembly: Assembly,
    task: Task,
    tests: dict[str, Split],
    found: dict[str, Evaluation],
    last_step: int,
    state: TrainerState,
) -> RunResult:
    before = read_results(place)
    known = before.test if before is not None else {}
    best = last_step if state.best_step is None else state.best_step
    scores = {**known, **{language: one.scores for language, one in found.items()}}
    warnings = [
        *(before.warnings if before is not None else ()),
        *(n for s in tests.values() for n in s.notes),
    ]
    result = RunResult(
        run_dir=place,
        status="finished",
        step=last_step,
        steps=last_step,
        best_step=state.best_step,
        validation=state.validation,
        test=scores,
        warnings=tuple(dict.fromkeys(warnings)),
    )
    if not accelerator.is_main_process:
        return result
    with JournalWriter.open(place, start_again(place), resumed_from_step=last_step) as writer:
        try:
            _write_tests(writer, place, recipe, task, tests, found, known, best)
            if not (place / "adapter").exists() and not (place / "model").exists():
                assembly.save(place)
            write_results(result)
        except BaseException as error:  # the training is over whatever becomes of this test
            text = f"this test was not written whole: {type(error).__name__}: {error}"
            writer.write("note", best, level="error", text=text)
            raise
        finally:
            writer.close("finished", step=last_step, best_step=state.best_step)
    return result


def _write_tests(
    writer: JournalWriter,
    place: Path,
    recipe: Recipe,
    task: Task,
    tests: dict[str, Split],
    found: dict[str, Evaluation],
    known: dict[str, dict[str, float]],
    best: int,
) -> None:
    attempt = int(writer.path.stem.rpartition("-")[2])
    for language, split in tests.items():
        earlier = known.get(language, {}).get(task.headline)
        again = "" if earlier is None else f", where {task.headline} was {earlier:.1f} before"
        adapter = recipe.language_adapter(language)
        through = "" if adapter is None else f", through the language adapter {adapter}"
        text = f"tested again: {language!r} on {split.source}{through}{again}"
        writer.write("note", best, level="info", text=text)
        for note in split.notes:
            writer.write("note", best, level="warning", text=note)
            log.warning("%s", note)
        for fields in score_records(task, split, found[language].scores):
            writer.write("eval", best, **fields)
        save_predictions(place, split, found[language], _predictions_folder(place, language, attempt))


def _predictions_folder(place: Path, language: str, attempt: int) -> str:
    """Predictions of an earlier test stay where they are."""
    taken = (place / "predictions" / f"{language}.jsonl").exists()
    return f"predictions/attempt-{attempt}" if taken else "predictions"
