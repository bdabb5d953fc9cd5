"""`train`: from a recipe to a run directory."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator

from fishlens.errors import InputError
from fishlens.files import write_file
from fishlens.journal import JournalWriter, begun, first_start, last_attempt
from fishlens.journal.provenance import otherwise
from fishlens.recipe.content import code_fingerprints, fingerprints
from fishlens.recipe.loading import load_recipe, recipe_text
from fishlens.recipe.recipe import Recipe
from fishlens.tracking.reporters import Reporter, check_reporters, make_reporters, reported
from fishlens.training.checkpoint import (
    Snapshot,
    begin_checkpoint,
    finish_checkpoint,
    list_checkpoints,
    place_for,
    read_checkpoint,
    read_weights,
    remove_old_checkpoints,
    write_random_state,
)
from fishlens.training.distributed import same_everywhere, sum_over_processes
from fishlens.training.interrupt import watch_for_interruption
from fishlens.training.job import make_job
from fishlens.training.loop import cost_of_training, fit
from fishlens.training.model import assemble
from fishlens.training.optimizer import optimizer_tensors
from fishlens.training.place import disk_errors_in_words, look_around, refuse_to_overwrite
from fishlens.training.preparation import data_files, factors, make_accelerator, prepare_task
from fishlens.training.progress import progress_bar
from fishlens.training.randomness import random_state
from fishlens.training.reading import check_places, read_data, rehearse
from fishlens.training.results import RunResult, claim_folders, write_results
from fishlens.training.testing import save_predictions, score_language, score_records

log = logging.getLogger(__name__)


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
        return _train(recipe, place, resume, progress, on_step)


def _train(
    recipe: Recipe,
    place: Path,
    resume: str,
    progress: bool,
    on_step: Callable[[int], None] | None,
) -> RunResult:
    accelerator = make_accelerator(recipe)
    finished = look_around(recipe, place, resume)
    if finished is not None:
        return finished
    refuse_to_overwrite(recipe, place)
    if begun(place):
        claim_folders(place)
    run = PreparedRun(recipe, place, accelerator)
    with watch_for_interruption() as interruption, run.journal():
        title = f"{recipe.name} ({recipe.schedule.name})"
        wanted = progress and accelerator.is_main_process
        with progress_bar(title, run.job.steps, wanted) as show:
            run.job.stop = lambda: interruption.everywhere(accelerator.device)

            def after_update() -> None:
                show(run.job.trainer_state.step, run.state_text())
                if on_step is not None:
                    on_step(run.job.trainer_state.step)

            run.job.show = after_update
            complete = fit(run.job, fresh=run.fresh) and run.test()
        return run.finish() if complete else run.interrupted()


class PreparedRun:
    """One run from its first moment to its last: the loop's surroundings.

    Made, it has read all that it will read, and has refused what it must; nothing is written before `journal`.
    """

    def __init__(self, recipe: Recipe, place: Path, accelerator: Accelerator, *, resume: bool = True):
        self.recipe, self.place, self.accelerator = recipe, place, accelerator
        self.checkpoints = place / "checkpoints"
        self.seen = last_attempt(place)  # before the checkpoint is read: whoever goes on meanwhile goes first
        again = begun(place) and resume
        # what is not as it was when the run began
        self.otherwise = otherwise(first_start(place), code_fingerprints(recipe)) if again else []
        self.results: dict[str, dict[str, float]] = {}
        self.writer: JournalWriter | None = None
        self.reporters: list[Reporter] = []
        check_reporters(recipe.report_to)
        self.saved_at: int | None = None
        self.task = prepare_task(recipe)
        check_places(recipe)
        self.data = read_data(recipe, self.task)
        assembly = assemble(recipe, self.task)
        assembly.model.to(accelerator.device)
        same_everywhere(list(assembly.parameters().values()))
        rehearse(recipe, self.task, assembly, accelerator, self.data.tests, self.data.validation)
        start = self._newest() if resume else None
        self.fresh = start is None
        self.job, self.warnings = make_job(
            recipe, self.task, assembly, accelerator, self.data, start, record=self.record, save=self.save
        )

    def _newest(self) -> Snapshot | None:
        there = list_checkpoints(self.checkpoints)
        if not there:
            return None
        self.saved_at = max(there)
        return read_checkpoint(there[max(there)], self.accelerator.process_index)

    # -- the journal ------------------------------------------------------------------------------------------

    @contextmanager
    def journal(self) -> Iterator[None]:
        """Open the run's directory and journal; write how it ended if it ends by an exception."""
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self.writer = self._open()
            config = {name: str(value) for name, value in factors(self.recipe).items()}
            self.reporters = make_reporters(self.recipe.report_to, self.place, config)
            self.job.probes.write_to(self.writer, self.reporters)
        if self.fresh:
            for text in self.warnings:
                self._note(text)
            for text in self.job.remarks:
                self._note(text, level="info")
            cost = cost_of_training(self.job)
            if cost is not None:
                self._note(cost, level="info")
                if self.accelerator.is_main_process:
                    sys.stderr.write(f"fishlens: {cost}\n")
        for text in self.otherwise:
            self._note(text)
        try:
            yield
        except KeyboardInterrupt:
            self._close("interrupted")
            raise
        except BaseException as error:
            self._close("failed", error=f"{type(error).__name__}: {error}")
            raise

    def _open(self) -> JournalWriter:
        again = begun(self.place)
        if not again:
            self._write_recipe()
        return JournalWriter.open(
            self.place,
            start={
                "run": self.recipe.name,
                "fingerprints": fingerprints(self.recipe, data_files(self.recipe, self.task)),
                "factors": factors(self.recipe),
                "seeds": {"run": self.recipe.seed},
                "device": str(self.accelerator.device),
                **self.job.probes.start_record(),
            },
            resumed_from_step=self.job.trainer_state.step if again else None,
            after=self.seen,
        )

    def _write_recipe(self) -> None:
        """Before the journal: a run that has begun has its recipe beside it."""
        refuse_to_overwrite(self.recipe, self.place)
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            write_file(self.place / "recipe.yaml", recipe_text(self.recipe))
        except OSError as error:
            raise InputError(f"cannot write {self.place / 'recipe.yaml'}: {error.strerror}") from None

    def record(self, kind: str, *, step: int | None = None, **fields: Any) -> None:
        at = self.job.trainer_state.step if step is None else step
        if self.writer is not None:
            self.writer.write(kind, step=at, **fields)
        values = reported(kind, fields) if self.reporters else {}
        for reporter in self.reporters if values else ():
            reporter.report(at, values)

    def _note(self, text: str, level: str = "warning") -> None:
        """To the journal, and to whoever is watching."""
        self.record("note", level=level, text=text)
        if self.accelerator.is_main_process:
            log.log(logging.INFO if level == "info" else logging.WARNING, "%s", text)

    def _close(self, status: str, error: str | None = None) -> None:
        for reporter in self.reporters:
            reporter.close()
        if self.writer is not None:
            trainer_state = self.job.trainer_state
            self.writer.close(status, step=trainer_state.step, error=error, best_step=trainer_state.best_step)

    # -- checkpoints ------------------------------------------------------------------------------------------

    def save(self) -> bool:
        """Write a checkpoint of this moment, unless there is one. False, and a note, if the disk refuses."""
        step = self.job.trainer_state.step
        if self.saved_at == step:
            return True
        if self.writer is not None:
            self.writer.check_place()
        failure: OSError | None = None
        for stage in (self._begin_checkpoint, self._write_random_state, self._finish_checkpoint):
            try:
                stage()
            except OSError as error:
                failure = error
            # all processes go on to the next stage, or none
            if sum_over_processes(float(failure is not None), self.accelerator.device):
                text = f"the checkpoint of step {step} could not be written ({failure}); earlier ones are as they were"
                self.warnings.append(text)
                self._note(text, level="error")
                return False
        self.saved_at = step
        return True

    def _begin_checkpoint(self) -> None:
        if self.accelerator.is_main_process:
            begin_checkpoint(self.checkpoints, self.job.trainer_state.step)

    def _write_random_state(self) -> None:
        place = place_for(self.checkpoints, self.job.trainer_state.step)
        write_random_state(place, self.accelerator.process_index, random_state())

    def _finish_checkpoint(self) -> None:
        if self.accelerator.is_main_process:
            finish_checkpoint(place_for(self.checkpoints, self.job.trainer_state.step), self._snapshot())
            best = self.job.trainer_state.best_step
            remove_old_checkpoints(self.checkpoints, self.recipe.checkpoint.keep, best)

    def _snapshot(self) -> Snapshot:
        job = self.job
        scaler = self.accelerator.scaler
        return Snapshot(
            step=job.trainer_state.step,
            weights={name: p.detach() for name, p in job.assembly.parameters().items()},
            optimizer=optimizer_tensors(job.optimizer, job.assembly.blocks),
            random={},
            state={
                "steps": job.steps,
                "trainer_state": asdict(job.trainer_state),
                "loss_sum": float(job.loss_sum),
                "schedule": job.unfreezing.state.to_json(),
                "scaler": scaler.state_dict() if scaler is not None else None,
                "probes": job.probes.memory(),
            },
        )

    # -- the end ----------------------------------------------------------------------------------------------

    def test(self) -> bool:
        """Evaluate the best weights on every test language; False if it was interrupted in between."""
        job, recipe = self.job, self.recipe
        best = job.trainer_state.best_step
        if best is not None and best != job.trainer_state.step:
            job.assembly.set_weights(read_weights(self._checkpoint_of(best)))
        step = job.trainer_state.step if best is None else best
        for split in self.data.tests.values():
            if job.stop():
                return False
            if self.writer is not None:
                self.writer.check_place()
            result = score_language(recipe, self.task, job.assembly, self.accelerator, split)
            for text in split.notes:
                self.warnings.append(text)
                self._note(text)
            self.results[split.language] = result.scores
            # an attempt that was killed here writes them again; readers keep the later ones
            for fields in score_records(self.task, split, result.scores):
                self.record("eval", step=step, **fields)
            if self.accelerator.is_main_process:
                save_predictions(self.place, split, result)
        self._export()
        return True

    def _checkpoint_of(self, best: int) -> Path:
        there = list_checkpoints(self.checkpoints)
        if best not in there:
            raise InputError(
                f"{self.checkpoints} has no step-{best}, the best checkpoint, which is to be tested: put it back, "
                "or begin the run anew in another directory"
            )
        return there[best]

    def _export(self) -> None:
        """The best weights in the libraries' own formats."""
        if self.accelerator.is_main_process:
            self.job.assembly.save(self.place)

    def finish(self) -> RunResult:
        result = self._result("finished")
        if self.writer is not None:
            self.writer.check_place()
        if self.accelerator.is_main_process:
            write_results(result)
        self._close("finished")
        return result

    def interrupted(self) -> RunResult:
        self._close("interrupted")
        return self._result("interrupted")

    def _result(self, status: Literal["finished", "interrupted"]) -> RunResult:
        trainer_state = self.job.trainer_state
        return RunResult(
            run_dir=self.place,
            status=status,
            step=trainer_state.step,
            steps=self.job.steps,
            best_step=trainer_state.best_step,
            validation=trainer_state.validation,
            test=self.results,
            warnings=tuple(self.warnings),
        )

    def state_text(self) -> str:
        job = self.job
        thawed = f"{len(job.unfreezing.state.thawed)}/{len(job.assembly.thawable)} thawed"
        best = "" if job.trainer_state.best_value is None else f"  best {job.trainer_state.best_value:.1f}"
        return thawed + best
