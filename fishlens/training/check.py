"""`check_recipe`: all that `train` does before its first update, and what it finds; nothing is trained or written.

It makes the very objects that a run is made of, so that it refuses what a run refuses, and prices what a run measures.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fishlens.recipe.recipe import Recipe
from fishlens.tracking.check import Check, check
from fishlens.training.batches import parts
from fishlens.training.preparation import make_accelerator
from fishlens.training.prepared_run import prepare_run
from fishlens.training.probes import ROWS
from fishlens.training.survey import SplitSurvey, survey


@dataclass(frozen=True)
class RecipeCheck:
    """splits: what will be read. check: how the blocks are measured, and at what price. warnings: what a run says."""

    splits: list[SplitSurvey]
    check: Check
    warnings: list[str]
    steps: int

    def to_json(self) -> dict[str, Any]:
        return {
            "splits": [asdict(row) for row in self.splits],
            **self.check.to_json(),
            "warnings": self.warnings,
            "steps": self.steps,
        }


def check_recipe(recipe: Recipe, apart: bool = False) -> RecipeCheck:
    """Prepare a run as `train` would, and examine it.

    `apart`: check every parameter for itself, on all examples of a batch. Raises `InputError` for whatever `train`
    would refuse.
    """
    run = prepare_run(recipe, Path("runs") / recipe.name, make_accelerator(recipe), resume=False)
    job, tokenizer = run.job, run.job.assembly.tokenizer
    tracker = job.probes.tracker
    length = recipe.train.max_length
    first = job.order.batch(0)
    part = parts(first, recipe.train.accumulate, 1, 0)[0]
    update = job.task.collate([job.train_rows[i] for i in part], tokenizer)
    few = job.task.collate(job.train_rows[:ROWS], tokenizer)
    for block in job.assembly.blocks:  # all are measured, whatever trains at the first step
        for parameter in block.parameters.values():
            parameter.requires_grad_(True)
    with torch.random.fork_rng():
        found = check(
            job.assembly.model,
            few,
            update,
            job.assembly.blocks if tracker is None else tracker.blocks,  # those of tracking.blocks
            output=job.task.output,
            labels=tracker.identity["labels"] if tracker is not None else "auto",
            probe=None if tracker is None else tracker.rehearse,
            probe_examples=0 if tracker is None else tracker.examples_per_probe,
            parts=len(first) / len(part),
            priced=tracker is not None,
            apart=apart,
        )
    splits = [run.data.train, run.data.validation, *run.data.tests.values()]
    rows = [survey(job.task, split, tokenizer, length, recipe.seed) for split in splits]
    return RecipeCheck(rows, found, [*job.warnings, *job.remarks], job.steps)
