"""The checkpoints of a run while it goes on: written by all its processes together, or by none of them."""

from pathlib import Path

from fishlens.errors import InputError
from fishlens.training.checkpoint import (
    Tensors,
    begin_checkpoint,
    finish_checkpoint,
    list_checkpoints,
    place_for,
    read_weights,
    remove_old_checkpoints,
    write_random_state,
)
from fishlens.training.distributed import sum_over_processes
from fishlens.training.job import snapshot_of
from fishlens.training.loop import Job
from fishlens.training.randomness import random_state
from fishlens.training.run_journal import RunJournal


class Checkpoints:
    """saved_at: the step of the newest one. refused: what was said of those that the disk did not take."""

    def __init__(self, folder: Path, job: Job, journal: RunJournal, saved_at: int | None):
        self._folder, self._job, self._journal = folder, job, journal
        self._saved_at = saved_at
        self.refused: list[str] = []

    def save(self) -> bool:
        """Write a checkpoint of this moment, unless there is one. False, and a note, if the disk refuses."""
        step = self._job.trainer_state.step
        if self._saved_at == step:
            return True
        self._journal.check_place()
        failure: OSError | None = None
        for stage in (self._begin, self._write_random_state, self._finish):
            try:
                stage()
            except OSError as error:
                failure = error
            # all processes go on to the next stage, or none
            if sum_over_processes(float(failure is not None), self._job.accelerator.device):
                text = f"the checkpoint of step {step} could not be written ({failure}); earlier ones are as they were"
                self.refused.append(text)
                self._journal.note(text, step, level="error")
                return False
        self._saved_at = step
        return True

    def _begin(self) -> None:
        if self._job.accelerator.is_main_process:
            begin_checkpoint(self._folder, self._job.trainer_state.step)

    def _write_random_state(self) -> None:
        place = place_for(self._folder, self._job.trainer_state.step)
        write_random_state(place, self._job.accelerator.process_index, random_state())

    def _finish(self) -> None:
        job = self._job
        self._journal.check_place()  # again: writing may have taken long
        if job.accelerator.is_main_process:
            finish_checkpoint(place_for(self._folder, job.trainer_state.step), snapshot_of(job))
            remove_old_checkpoints(self._folder, job.recipe.checkpoint.keep, job.trainer_state.best_step)

    def weights_of(self, best: int) -> Tensors:
        """Raises `InputError` if the best checkpoint is gone."""
        there = list_checkpoints(self._folder)
        if best not in there:
            raise InputError(
                f"{self._folder} has no step-{best}, the best checkpoint, which is to be tested: put it back, "
                "or begin the run anew in another directory"
            )
        return read_weights(there[best])
