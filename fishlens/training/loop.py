"""The training loop, top to bottom.

    between updates, at step i (= number of completed updates):
        validate on the source language        every n steps; the best is kept, chosen on the source alone
        score the target languages             if the recipe asks for it; chooses nothing
        measure the Fisher information         if the recipe tracks it
        unfreeze                               Algorithm 1: before the forward pass of update i
        write a checkpoint                     so that it holds everything up to and including the event at i
    update i:
        learning rate, forward, backward, clip, AdamW; then a check that unfrozen blocks changed

A resumed run starts where a checkpoint was written, right before update i, and repeats nothing.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator

from fishlens.errors import InputError
from fishlens.fisher.blocks import HEAD, Block
from fishlens.recipe.recipe import Recipe
from fishlens.tracking.unfreezing import Unfreezing, unfreeze_record
from fishlens.training.assembly import Assembly
from fishlens.training.batches import Order, parts, steps_per_epoch
from fishlens.training.distributed import sum_gradients, sum_over_processes
from fishlens.training.evaluation import Prepared, evaluate
from fishlens.training.fisher_penalty import cost_of_the_penalty, fisher_penalty, twice_differentiable
from fishlens.training.optimizer import learning_rate, set_learning_rate
from fishlens.training.probes import Probes
from fishlens.training.run_journal import RunJournal
from fishlens.training.target_scores import OVER_TRAINING
from fishlens.training.tasks import Task


@dataclass
class TrainerState:
    """What changes from step to step and is not a tensor; JSON values, all of it is in every checkpoint.

    validation: {metric: points} of the best step.
    """

    step: int = 0
    best_step: int | None = None
    best_value: float | None = None
    validation: dict[str, float] = field(default_factory=dict)
    losses: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Job:
    """Everything that one run's loop works with. What changes from step to step is inside of its members.

    targets: what the target languages are scored on over training. warnings, remarks: what a reader of the journal
    should know from the beginning. loss_sum: of the updates since the last `train` record; a tensor, so that no update
    waits for it.
    """

    recipe: Recipe
    task: Task
    assembly: Assembly
    accelerator: Accelerator
    optimizer: torch.optim.Optimizer
    unfreezing: Unfreezing
    probes: Probes
    train_rows: Sequence[Any]
    validation: Prepared
    targets: Mapping[str, Prepared]
    warnings: Sequence[str]
    remarks: Sequence[str]
    order: Order
    steps: int
    trainer_state: TrainerState
    source: str | None
    loss_sum: torch.Tensor

    @property
    def trainable(self) -> list[Block]:
        return [block for block in self.assembly.blocks if block.name in self.unfreezing.trainable]


def fit(
    job: Job,
    journal: RunJournal,
    *,
    fresh: bool,
    save: Callable[[], bool],
    stop: Callable[[], bool],
    show: Callable[[], None],
) -> bool:
    """Train until the last step. Returns False if it was interrupted (a checkpoint is written first).

    save writes a checkpoint and says whether that succeeded. stop says whether somebody asked to interrupt. show is
    called after every update.
    """
    trainer_state = job.trainer_state
    job.assembly.check(job.source, job.unfreezing.state.thawed)
    if fresh:
        between_updates(job, journal, save)
    while trainer_state.step < job.steps:
        if stop():
            save()
            return False
        began = time.perf_counter()
        gradient_norm = update(job)
        trainer_state.seconds += time.perf_counter() - began
        trainer_state.step += 1
        record_training(job, journal, gradient_norm)
        between_updates(job, journal, save)
        show()
    return True


def between_updates(job: Job, journal: RunJournal, save: Callable[[], bool]) -> None:
    trainer_state, recipe = job.trainer_state, job.recipe
    step, last = trainer_state.step, trainer_state.step == job.steps
    epoch = steps_per_epoch(len(job.train_rows), recipe.train.batch_size)
    validating = step > 0 and (last or step % (recipe.evaluate.every or epoch) == 0)
    previous_best = (trainer_state.best_step, trainer_state.best_value, trainer_state.validation)
    if validating:
        validate(job, journal)
        job.assembly.check(job.source, job.unfreezing.state.thawed)
    if recipe.evaluate.targets is not None and (last or step % recipe.evaluate.targets.every == 0):
        score_targets(job, journal)
    job.probes.track(step)
    if not last:
        unfreeze(job, journal)
    every = recipe.checkpoint.every
    due = last or (step % every == 0 if every else validating)
    best = trainer_state.best_step == step
    if step > 0 and (due or best) and not save() and best:
        # the weights of this step cannot be had again: the best checkpoint is still the one before
        trainer_state.best_step, trainer_state.best_value, trainer_state.validation = previous_best


def unfreeze(job: Job, journal: RunJournal) -> None:
    """Apply the schedule's event at this step, if there is one, and write it down."""
    step = job.trainer_state.step
    number = job.unfreezing.state.events
    event = job.unfreezing.at(step, lambda examples: job.probes.scores(step, examples))
    if event is not None:
        job.assembly.check(job.source, job.unfreezing.state.thawed)
        journal.record("unfreeze", step, **unfreeze_record(event, number, job.unfreezing.trainable))


def validate(job: Job, journal: RunJournal) -> None:
    """Score the source language's validation split; a strictly better headline metric makes this the best step."""
    trainer_state, source = job.trainer_state, job.recipe.data.source
    result = evaluate(
        job.assembly,
        job.task,
        job.validation,
        job.accelerator,
        language=source,
        batch_size=job.recipe.evaluate.batch_size,
    )
    if job.recipe.tracked_languages:
        job.probes.source_validated(trainer_state.step, result)
    value = result.scores[job.task.headline]
    best = trainer_state.best_value is None or value > trainer_state.best_value
    if best:
        trainer_state.best_step, trainer_state.best_value, trainer_state.validation = (
            trainer_state.step,
            value,
            result.scores,
        )
    for metric, points in result.scores.items():
        headline = metric == job.task.headline
        journal.record(
            "eval",
            trainer_state.step,
            split="validation",
            language=source,
            metric=metric,
            value=points,
            headline=headline,
            examples=len(job.validation.split),
            best=best,
        )


def score_targets(job: Job, journal: RunJournal) -> None:
    """Score every target language at the present weights: written down, and used for nothing."""
    for language, prepared in job.targets.items():
        result = evaluate(
            job.assembly,
            job.task,
            prepared,
            job.accelerator,
            language=language,
            batch_size=job.recipe.evaluate.batch_size,
        )
        for metric, points in result.scores.items():
            journal.record(
                "eval",
                job.trainer_state.step,
                split=OVER_TRAINING,
                language=language,
                metric=metric,
                value=points,
                headline=metric == job.task.headline,
                examples=len(prepared.split),
                best=False,
            )


def update(job: Job) -> torch.Tensor | float:
    """One optimizer update on one batch, which all processes and accumulation parts share; the gradient's norm."""
    step, settings, accelerator = job.trainer_state.step, job.recipe.train, job.accelerator
    rate = learning_rate(step, job.steps, settings)
    set_learning_rate(job.optimizer, rate, job.unfreezing.state.learning_rate_weights)
    job.unfreezing.before_update(step)
    mine = parts(
        job.order.batch(step), settings.accumulate, accelerator.num_processes, accelerator.process_index
    )
    batches = [job.task.collate([job.train_rows[i] for i in part], job.assembly.tokenizer) for part in mine]
    weights = [scored_items(batch) for batch in batches]
    all_items = sum_over_processes(sum(weights), accelerator.device)
    first = (step * accelerator.num_processes + accelerator.process_index) * settings.batch_size
    for batch, weight in zip(batches, weights, strict=True):
        inputs = on_device(batch, accelerator.device)
        with accelerator.autocast(), twice_differentiable() if settings.fisher_penalty else nullcontext():
            outputs = job.assembly.model(**inputs)
        # each part's loss is the mean over its items: weighted like this they sum to the mean over the batch
        loss = outputs.loss * (weight / all_items)
        job.loss_sum.add_(loss.detach())
        if settings.fisher_penalty:
            loss = loss + _penalty(job, outputs, inputs, first)
            first += len(inputs["input_ids"])
        accelerator.backward(loss)
    job.trainer_state.losses += 1
    parameters = [p for block in job.trainable for p in block.parameters.values()]
    sum_gradients(parameters)
    gradient_norm = accelerator.clip_grad_norm_(parameters, settings.max_gradient_norm or math.inf)
    job.optimizer.step()
    job.optimizer.zero_grad(set_to_none=True)
    if rate > 0 and not accelerator.optimizer_step_was_skipped:
        job.unfreezing.after_update(step + 1)
    return gradient_norm


def on_device(batch: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """The batch on a device; a GPU copies it from pinned memory while the host goes on."""
    if device.type != "cuda":
        return {key: value.to(device) for key, value in batch.items()}
    return {key: value.pin_memory().to(device, non_blocking=True) for key, value in batch.items()}


def _penalty(job: Job, outputs: Any, inputs: dict[str, torch.Tensor], first: int) -> torch.Tensor | float:
    """α · tr(F) of the thawed blocks on a part of the batch, at the part's share of the batch."""
    thawed = job.unfreezing.state.thawed
    parameters = [
        p for block in job.assembly.blocks if block.name in thawed for p in block.parameters.values()
    ]
    if not parameters:
        return 0.0
    trace = fisher_penalty(
        outputs, inputs, parameters, output=job.task.output, seed=job.recipe.seed, first=first
    )
    rows = len(job.order.batch(job.trainer_state.step))
    return job.recipe.train.fisher_penalty * trace * (len(inputs["input_ids"]) / rows)


def cost_of_training(job: Job) -> str | None:
    """What a Fisher penalty costs an update, measured on the first batch; None without one."""
    if not job.recipe.train.fisher_penalty:
        return None
    rows = [job.train_rows[i] for i in job.order.batch(0)]
    batch = job.task.collate(rows, job.assembly.tokenizer)
    plain, penalised = cost_of_the_penalty(
        job.assembly.model,
        {key: value.to(job.accelerator.device) for key, value in batch.items()},
        [p for block in job.assembly.blocks for p in block.parameters.values() if block.name != HEAD],
        output=job.task.output,
        seed=job.recipe.seed,
    )
    return (
        f"the Fisher penalty makes forward and backward pass {penalised / plain:.1f} times as long once all blocks are "
        f"thawed: {penalised:.3g} instead of {plain:.3g} s an update, on the first batch"
    )


def scored_items(batch: dict[str, torch.Tensor]) -> int:
    """How many terms the batch's mean loss averages over: scored tokens for token labels, else rows."""
    labels = batch.get("labels")
    if labels is None:
        labels = batch["start_positions"]
    return int((labels != -100).sum())


def record_training(job: Job, journal: RunJournal, gradient_norm: torch.Tensor | float) -> None:
    """Write a `train` record every few steps: the mean loss since the last one. Raises `InputError` if training has
    diverged: weights that are not numbers would be scored like any others."""
    trainer_state, recipe = job.trainer_state, job.recipe
    if trainer_state.step % recipe.train.log_every and trainer_state.step != job.steps:
        return
    loss = sum_over_processes(float(job.loss_sum), job.accelerator.device) / trainer_state.losses
    journal.record(
        "train",
        trainer_state.step,
        loss=loss,
        learning_rate=learning_rate(trainer_state.step - 1, job.steps, recipe.train),
        gradient_norm=float(gradient_norm),
        epoch=trainer_state.step / steps_per_epoch(len(job.train_rows), recipe.train.batch_size),
        seconds=trainer_state.seconds,
    )
    if not math.isfinite(loss):
        raise InputError(
            f"the training loss is {loss} at step {trainer_state.step}; expected a number: "
            f"lower train.learning_rate, which is {recipe.train.learning_rate:g}"
        )
    job.loss_sum.zero_()
    trainer_state.losses = 0
