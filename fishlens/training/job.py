"""From a recipe and an assembled model to a `Job`: everything that the loop works with, at its first step or where a
checkpoint was written; and back to what a checkpoint holds."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from accelerate import Accelerator
from pydantic import TypeAdapter

from fishlens.errors import InputError, first_line
from fishlens.recipe.recipe import Recipe
from fishlens.schedules import Schedule, State, budget_warning
from fishlens.schedules.base import TARGETS
from fishlens.tracking.texts import UNKNOWN_NOTED
from fishlens.tracking.unfreezing import Unfreezing
from fishlens.training.assembly import Assembly
from fishlens.training.batches import Order, total_steps
from fishlens.training.checkpoint import Snapshot
from fishlens.training.evaluation import Prepared
from fishlens.training.loop import Job, TrainerState
from fishlens.training.optimizer import make_optimizer, optimizer_tensors, restore_optimizer
from fishlens.training.preparation import prepare_schedule
from fishlens.training.probes import Probes
from fishlens.training.randomness import restore_random_state
from fishlens.training.reading import Data
from fishlens.training.target_scores import prepare_target, remarks_on_scores, scored_targets
from fishlens.training.targets import ids_of_rows, share_of_unknown_tokens, target_inputs
from fishlens.training.tasks import Task

LOOKED_AT = 100  # training rows, for the share of tokens that the tokenizer does not know
_TRAINER_STATE = TypeAdapter(TrainerState)
_SCHEDULE_STATE = TypeAdapter(State)
_PROBES_STATE = TypeAdapter(dict[str, dict[str, list[Any]]])  # what `Tracker.memory` gives


def read_trainer_state(state: Mapping[str, Any]) -> TrainerState:
    """The loop's state out of a checkpoint's; fields that a newer version added are ignored.

    Raises `InputError` for what no checkpoint of ours says.
    """
    try:
        stored = state.get("trainer_state") or state["standing"]  # "standing": before 0.2
        if not isinstance(state["loss_sum"], int | float):
            raise ValueError(f"loss_sum is {state['loss_sum']!r}; expected a number")
        State.from_json(_plain_mapping(state["schedule"]))
        _SCHEDULE_STATE.validate_python(state["schedule"])
        _PROBES_STATE.validate_python(state.get("probes", {}))
        return _TRAINER_STATE.validate_python(stored)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"the checkpoint's state.json is damaged: {first_line(error)}") from None


def _plain_mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"schedule is {value!r}; expected an object")
    return value


def _refuse_idle_start(schedule: Schedule, assembly: Assembly) -> None:
    """Raises `InputError` if nothing would train at the first step: no head, and no block."""
    if len(assembly.thawable) < len(assembly.blocks) or schedule.needs_scores(0, State()):
        return
    if not (schedule.is_event(0) and schedule.select(0, State()).chosen):
        raise InputError(
            f"the schedule {schedule.name!r} thaws no block at step 0 and this model has no head that trains; "
            "expected one that thaws a block, as gu does"
        )


def make_job(
    recipe: Recipe,
    task: Task,
    assembly: Assembly,
    accelerator: Accelerator,
    data: Data,
    start: Snapshot | None,
) -> Job:
    """The job, at the checkpoint `start` if there is one.

    The order is what makes a resumed run equal an uninterrupted one: optimizer over all blocks, then freezing, then
    the generators, last of all.
    """
    validation, length = data.validation, recipe.train.max_length
    train_rows = task.encode(data.train, assembly.tokenizer, max_length=length, train=True)
    prepared = Prepared(
        validation, task.encode(validation, assembly.tokenizer, max_length=length, train=False)
    )
    warnings = [*data.train.notes, *validation.notes]
    tracked = [
        target_inputs(recipe, task, assembly.tokenizer, language, recipe.tracking.examples)
        for language in recipe.tracked_languages
    ]
    targets = {
        language: prepare_target(recipe, task, assembly, language) for language in scored_targets(recipe)
    }
    steps = total_steps(len(train_rows), recipe.train.batch_size, recipe.train.steps, recipe.train.epochs)
    schedule = prepare_schedule(recipe, assembly.thawable)
    _refuse_idle_start(schedule, assembly)
    if schedule.scored_on == TARGETS and not tracked:
        raise InputError(
            f"schedule.scores is {TARGETS!r}, but tracking.languages names no language: set it, to 'targets' for all "
            "of data.targets"
        )
    too_long = budget_warning(schedule, steps)
    warnings += [too_long] if too_long else []
    unknown = share_of_unknown_tokens(task, train_rows[:LOOKED_AT], assembly.tokenizer)
    if unknown > UNKNOWN_NOTED:
        warnings.append(
            f"the tokenizer does not know {unknown:.0%} of the tokens of {data.train.source} "
            f"({assembly.tokenizer.unk_token}): the model cannot tell such texts apart"
        )
    optimizer = make_optimizer(assembly.blocks, recipe.train)
    if start is not None:
        read_trainer_state(start.state)  # what is damaged is said before anything is restored
    # every block is in the optimizer: from here on freezing is safe
    state = State.from_json(start.state["schedule"]) if start else None
    unfreezing = Unfreezing(schedule, assembly.blocks, state)
    torch.manual_seed(recipe.seed + 1000 * accelerator.process_index)
    window = torch.zeros((), device=accelerator.device)
    trainer_state = TrainerState()
    if start is not None:
        trainer_state = read_trainer_state(start.state)
        window.fill_(start.state["loss_sum"])
        assembly.set_weights(start.weights)
        restore_optimizer(optimizer, assembly.blocks, start.optimizer)
    assembly.model.train()
    source = recipe.data.source if recipe.data.train_language_adapter else None
    assembly.activate_language(source)
    probe_split, probe_rows = data.train, train_rows
    if recipe.tracking.split == "validation":
        probe_split = validation
        probe_rows = task.encode(validation, assembly.tokenizer, max_length=length, train=True)
    probes = Probes(
        recipe,
        schedule,
        task,
        assembly,
        probe_rows,
        lambda: trainer_state.seconds,
        tracked,
        optimizer,
        ids_of_rows(probe_split, probe_rows),
    )
    if start is not None:
        probes.remember(start.state.get("probes", {}))  # absent before 0.2
    job = Job(
        recipe=recipe,
        task=task,
        assembly=assembly,
        accelerator=accelerator,
        optimizer=accelerator.prepare(optimizer),
        unfreezing=unfreezing,
        probes=probes,
        train_rows=train_rows,
        validation=prepared,
        targets=targets,
        warnings=warnings,
        remarks=[*(note for inputs in tracked for note in inputs.notes), *remarks_on_scores(recipe, targets)],
        order=Order(
            len(train_rows),
            recipe.train.batch_size,
            recipe.seed,
            [task.tokens(row) for row in train_rows] if recipe.train.group_by_length else None,
        ),
        steps=steps,
        trainer_state=trainer_state,
        source=source,
        loss_sum=window,
    )
    if start is not None:
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(start.state["scaler"])
        restore_random_state(start.random)
    return job


def snapshot_of(job: Job) -> Snapshot:
    """What a checkpoint holds of this moment; the random state, which each process writes itself, is empty."""
    scaler = job.accelerator.scaler
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
