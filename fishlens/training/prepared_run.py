"""All that a run does before its first update: it reads everything that it will need, and writes nothing."""

from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from fishlens.journal import Standing, begun, first_start
from fishlens.journal.provenance import otherwise
from fishlens.recipe.content import code_fingerprints
from fishlens.recipe.recipe import Recipe
from fishlens.tracking.reporters import check_reporters
from fishlens.training.checkpoint import CHECKPOINTS, newest_checkpoint, read_checkpoint
from fishlens.training.distributed import same_everywhere
from fishlens.training.job import make_job
from fishlens.training.loop import Job
from fishlens.training.model import assemble, check_library
from fishlens.training.preparation import prepare_task
from fishlens.training.reading import Data, check_places, read_data, rehearse


@dataclass(frozen=True)
class PreparedRun:
    """A run that is about to begin, or to go on.

    seen: how the run stood before anything was read. fresh: nothing is to be resumed.
    changed: what is not as it was when the run began, one sentence each.
    """

    place: Path
    job: Job
    data: Data
    seen: Standing | None
    fresh: bool
    changed: tuple[str, ...]


def prepare_run(
    recipe: Recipe,
    place: Path,
    accelerator: Accelerator,
    *,
    resume: bool = True,
    seen: Standing | None = None,
) -> PreparedRun:
    """Raises `InputError` for whatever the run must refuse."""
    again = begun(place) and resume
    changed = otherwise(first_start(place), code_fingerprints(recipe)) if again else ()
    check_reporters(recipe.report_to)
    check_library(recipe)
    task = prepare_task(recipe)
    check_places(recipe)
    data = read_data(recipe, task)
    assembly = assemble(recipe, task)
    assembly.model.to(accelerator.device)
    same_everywhere(list(assembly.parameters().values()))
    rehearse(recipe, task, assembly, accelerator, data.tests, data.validation)
    newest = newest_checkpoint(place / CHECKPOINTS) if resume else None
    start = None if newest is None else read_checkpoint(newest, accelerator.process_index)
    job = make_job(recipe, task, assembly, accelerator, data, start)
    return PreparedRun(place, job, data, seen, start is None, tuple(changed))
