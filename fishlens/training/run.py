"""`train`: from a recipe to a run directory."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fishlens.errors import InputError
from fishlens.files import write_file
from fishlens.journal import JournalWriter, begun, standing
from fishlens.recipe.content import fingerprints
from fishlens.recipe.loading import load_recipe, recipe_text
from fishlens.recipe.recipe import Recipe
from fishlens.tracking.reporters import make_reporters
from fishlens.training.checkpoint import CHECKPOINTS
from fishlens.training.checkpointing import Checkpoints
from fishlens.training.interrupt import watch_for_interruption
from fishlens.training.loop import Job, cost_of_training, fit
from fishlens.training.place import disk_errors_in_words, look_around, refuse_to_overwrite
from fishlens.training.preparation import data_files, factors, make_accelerator
from fishlens.training.prepared_run import PreparedRun, prepare_run
from fishlens.training.progress import progress_bar
from fishlens.training.results import RunResult, claim_folders, write_results
from fishlens.training.run_journal import RunJournal
from fishlens.training.testing import save_predictions, score_language, score_records


def train(
    recipe: Recipe | str | Path | Mapping[str, Any],
    run_dir: str | Path | None = None,
    resume: Literal["auto", "never"] = "auto",
    *,
    progress: bool = True,
    on_step: Callable[[int], None] | None = None,
) -> RunResult:
    """Run a recipe in `run_dir` (default: runs/<name>).

    resume="auto" goes on from the newest checkpoint there, to the same bits as an uninterrupted run, and returns the
    results of a run that has finished; "never" refuses a directory that holds a run. Ctrl-C or SIGTERM ends the run at
    the next step boundary with a checkpoint. `progress` shows a bar on a terminal; `on_step` is called after every
    update with the number of completed ones.

    Raises `InputError` for bad input before anything is written, `BlockDidNotMove` if an unfrozen block does not
    train.
    """
    recipe = load_recipe(recipe)
    place = Path(run_dir) if run_dir is not None else Path("runs") / recipe.name
    with disk_errors_in_words(place):
        accelerator = make_accelerator(recipe)
        seen = standing(place)  # before anything is read: whoever goes on, or finishes, meanwhile goes first
        finished = look_around(recipe, place, resume)
        if finished is not None:
            return finished
        refuse_to_overwrite(recipe, place)
        if begun(place):
            claim_folders(place)
        run = prepare_run(recipe, place, accelerator, seen=seen)
        return _finish(run, progress, on_step)


def _finish(run: PreparedRun, progress: bool, on_step: Callable[[int], None] | None) -> RunResult:
    """Train until the last step and test, or until somebody interrupts."""
    job, place = run.job, run.place
    with watch_for_interruption() as interruption, _open_journal(run) as journal:
        checkpoints = Checkpoints(
            place / CHECKPOINTS, job, journal, None if run.fresh else job.trainer_state.step
        )
        title = f"{job.recipe.name} ({job.recipe.schedule.name})"
        wanted = progress and job.accelerator.is_main_process

        def stop() -> bool:
            return interruption.everywhere(job.accelerator.device)

        with progress_bar(title, job.steps, wanted) as bar:

            def show() -> None:
                bar(job.trainer_state.step, _state_text(job))
                if on_step is not None:
                    on_step(job.trainer_state.step)

            trained = fit(job, journal, fresh=run.fresh, save=checkpoints.save, stop=stop, show=show)
            tested = final_test(run, journal, checkpoints, stop) if trained else Tested(False)
        state = job.trainer_state
        result = RunResult(
            run_dir=place,
            status="finished" if tested.complete else "interrupted",
            step=state.step,
            steps=job.steps,
            best_step=state.best_step,
            validation=state.validation,
            test=tested.scores,
            warnings=(*job.warnings, *checkpoints.refused, *tested.notes),
        )
        if tested.complete:
            journal.check_place()
            if job.accelerator.is_main_process:
                write_results(result)
        journal.close(result.status, state.step, state.best_step)
        return result


@contextmanager
def _open_journal(run: PreparedRun) -> Iterator[RunJournal]:
    """Make the run's directory, open its journal and write what is known; write how it ended if by an exception."""
    job, state = run.job, run.job.trainer_state
    job.accelerator.wait_for_everyone()
    journal = RunJournal(None)
    if job.accelerator.is_main_process:
        writer = _open(run)
        config = {name: str(value) for name, value in factors(job.recipe).items()}
        reporters = make_reporters(job.recipe.report_to, run.place, config)
        job.probes.write_to(writer, reporters)
        journal = RunJournal(writer, reporters)
    if run.fresh:
        for text in job.warnings:
            journal.note(text, state.step)
        for text in job.remarks:
            journal.note(text, state.step, level="info")
        cost = cost_of_training(job)
        if cost is not None:
            journal.note(cost, state.step, level="info")
            if job.accelerator.is_main_process:
                sys.stderr.write(f"fishlens: {cost}\n")
    for text in run.changed:
        journal.note(text, state.step)
    try:
        yield journal
    except KeyboardInterrupt:
        journal.close("interrupted", state.step, state.best_step)
        raise
    except BaseException as error:
        journal.close("failed", state.step, state.best_step, error=f"{type(error).__name__}: {error}")
        raise


def _open(run: PreparedRun) -> JournalWriter:
    job, recipe = run.job, run.job.recipe
    again = begun(run.place)
    if not again:
        _write_recipe(recipe, run.place)
    return JournalWriter.open(
        run.place,
        start={
            "run": recipe.name,
            "fingerprints": fingerprints(recipe, data_files(recipe, job.task)),
            "factors": factors(recipe),
            "seeds": {"run": recipe.seed},
            "device": str(job.accelerator.device),
            **job.probes.start_record(),
        },
        resumed_from_step=job.trainer_state.step if again else None,
        after=run.seen,
    )


def _write_recipe(recipe: Recipe, place: Path) -> None:
    """Before the journal: a run that has begun has its recipe beside it."""
    refuse_to_overwrite(recipe, place)
    try:
        place.mkdir(parents=True, exist_ok=True)
        write_file(place / "recipe.yaml", recipe_text(recipe))
    except OSError as error:
        raise InputError(f"cannot write {place / 'recipe.yaml'}: {error.strerror}") from None


@dataclass(frozen=True)
class Tested:
    """scores: {language: {metric: points}}. complete: every language was tested."""

    complete: bool
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def final_test(
    run: PreparedRun, journal: RunJournal, checkpoints: Checkpoints, stop: Callable[[], bool]
) -> Tested:
    """Evaluate the best weights on every test language, unless somebody interrupts; save them for their library."""
    job = run.job
    scores: dict[str, dict[str, float]] = {}
    notes: list[str] = []
    best = job.trainer_state.best_step
    if best is not None and best != job.trainer_state.step:
        job.assembly.set_weights(checkpoints.weights_of(best))
    step = job.trainer_state.step if best is None else best
    for split in run.data.tests.values():
        if stop():
            return Tested(False, scores, tuple(notes))
        journal.check_place()
        result = score_language(job.recipe, job.task, job.assembly, job.accelerator, split)
        for text in split.notes:
            notes.append(text)
            journal.note(text, job.trainer_state.step)
        scores[split.language] = result.scores
        # an attempt that was killed here writes them again; readers keep the later ones
        for fields in score_records(job.task, split, result.scores):
            journal.record("eval", step, **fields)
        if job.accelerator.is_main_process:
            save_predictions(run.place, split, result)
    if job.accelerator.is_main_process:
        job.assembly.save(run.place)
    return Tested(True, scores, tuple(notes))


def _state_text(job: Job) -> str:
    thawed = f"{len(job.unfreezing.state.thawed)}/{len(job.assembly.thawable)} thawed"
    best = "" if job.trainer_state.best_value is None else f"  best {job.trainer_state.best_value:.1f}"
    return thawed + best
