"""UnfreezeCallback: Algorithm 1 inside transformers' Trainer and adapters' AdapterTrainer.

The Trainer builds its optimizer from what requires a gradient at that moment, so everything that is ever to train
must be trainable until then; this callback freezes when training begins, after that, and checks that the optimizer
holds every block.
"""

import weakref
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from fishlens.errors import InputError
from fishlens.fisher import Block, find_blocks
from fishlens.fisher.anatomy import unwrapped
from fishlens.fisher.blocks import HEAD, unmeasured
from fishlens.schedules import (
    RELATIVE_GRADIENT,
    Schedule,
    Scores,
    State,
    budget_warning,
    make_schedule,
    schedule_class,
)
from fishlens.schedules.base import TARGETS
from fishlens.tracking import callback as tracking
from fishlens.tracking.calls import at_first_call
from fishlens.tracking.clock import Never
from fishlens.tracking.processes import from_first, several_processes
from fishlens.tracking.reporters import reported
from fishlens.tracking.resumption import damaged, read_state, write_state
from fishlens.tracking.unfreezing import Unfreezing, unfreeze_record

STATE_FILE = "fishlens-unfreezing.json"

# the callback that unfreezes a model, and the control object of its Trainer (a later Trainer may have another)
_unfreezing: "weakref.WeakKeyDictionary[nn.Module, tuple[weakref.ref[UnfreezeCallback], Any]]" = (
    weakref.WeakKeyDictionary()
)


class UnfreezeCallback(TrainerCallback):
    """Unfreezes blocks by a schedule while a Trainer trains; the head always trains.

        Trainer(..., callbacks=[FisherCallback(every=50), UnfreezeCallback("fun", every=50)])

    schedule, every, seed and what is left: as `fishlens.make_schedule` takes them; `seed` is the Trainer's by default.
    blocks: from `find_blocks`, by default those of the model. Measurements and the journal are those of the
    `FisherCallback` before it in the list; without one it measures only when the schedule asks.

    Raises `InputError` at the beginning of training when something trains that is in no block, a block is not in the
    optimizer, or a resumed checkpoint has
    no schedule state, and `BlockDidNotMove` when a thawed block does not train.
    """

    def __init__(
        self,
        schedule: str = "fun",
        every: int = 50,
        *,
        blocks: Sequence[Block] | None = None,
        seed: int | None = None,
        **schedule_options: Any,
    ):
        _check_schedule(schedule)
        self.schedule, self.every, self.blocks, self.seed = schedule, every, blocks, seed
        self.options = schedule_options
        self.unfreezing: Unfreezing | None = None
        self._fisher: tracking.FisherCallback | None = None
        self._own: tracking.FisherCallback | None = None
        self._nothing_fed = True
        self._device = torch.device("cpu")

    def on_init_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self._claim(model, control)

    def on_train_begin(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        self._claim(model, control)
        blocks = list(self.blocks or find_blocks(model))
        _check_blocks(blocks, model, optimizer)
        _check_optimizer(blocks, optimizer)
        _check_processes(args, model)
        self._device = next(iter(blocks[0].parameters.values())).device
        schedule = make_schedule(
            self.schedule,
            every=self.every,
            blocks=[block.name for block in blocks if block.name != HEAD],
            seed=args.seed if self.seed is None else self.seed,
            **self.options,
        )
        self._fisher = self._measuring(args, state, control, model, blocks, schedule)
        tracker = self._fisher.tracker
        if schedule.scored_on == TARGETS and tracker is not None and not tracker.targets:
            raise InputError(
                f"schedule.scores is {TARGETS!r}, but no language is measured: give FisherCallback(languages={{…}}) "
                "its examples, and put it before UnfreezeCallback"
            )
        self.unfreezing = Unfreezing(schedule, blocks, self._stored_state(args, state))
        if not any(p.requires_grad for p in model.parameters()):
            raise InputError(
                "nothing trains before the first block is thawed: the model has no trainable head"
            )
        warning = budget_warning(schedule, state.max_steps)
        if warning:
            self._write("note", state.global_step, level="warning", text=warning)

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        assert self.unfreezing is not None
        self._pass_on("on_step_begin", (args, state, control), {})
        step, schedule = state.global_step, self.unfreezing.schedule
        needed = self.unfreezing.is_due(step) and schedule.needs_scores(step, self.unfreezing.state)
        if self._nothing_fed and needed and not from_first(self._ready, self._device):
            # there is nothing to measure yet: the event waits for the first batch, which is before its forward pass
            at_first_call(unwrapped(model), lambda: self._event(step))
        else:
            self._event(step)

    def _ready(self) -> bool:
        return self._fisher is not None and self._fisher.tracker is not None and self._fisher.tracker.ready

    def _event(self, step: int) -> None:
        assert self.unfreezing is not None
        number = self.unfreezing.state.events
        event = self.unfreezing.at(step, lambda examples: self._scores(step, examples))
        if event is not None:
            self._write("unfreeze", step, **unfreeze_record(event, number, self.unfreezing.trainable))
            self.unfreezing.before_update(step)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._pass_on("on_pre_optimizer_step", (args, state, control), {})

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """After the update and before its gradients are dropped: what was thawed must have moved, if it could."""
        assert self.unfreezing is not None
        could_move = any(group["lr"] > 0 for group in optimizer.param_groups)
        if could_move and not getattr(optimizer, "step_was_skipped", False):
            self.unfreezing.after_update(state.global_step + 1)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.unfreezing is not None
        content = {"schedule": self.schedule, "every": self.every, "state": self.unfreezing.state.to_json()}
        write_state(args, state, STATE_FILE, content)
        self._pass_on("on_save", (args, state, control), {})

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self._nothing_fed = False
        self._pass_on("on_step_end", args, kwargs)

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        self._pass_on("on_epoch_end", args, kwargs)

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        self._pass_on("on_evaluate", args, kwargs)

    def on_predict(self, *args: Any, **kwargs: Any) -> None:
        self._pass_on("on_predict", args, kwargs)

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        self._pass_on("on_log", args, kwargs)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self._pass_on("on_train_end", args, kwargs)

    def _claim(self, model: Any, control: Any) -> None:
        """Raises `InputError` if another schedule of the same Trainer thaws this model: they would undo each other."""
        if not isinstance(model, nn.Module):
            return
        known, its_control = _unfreezing.get(model, (None, None))
        other = known() if known is not None else None
        if other is not None and other is not self and its_control is control:
            raise InputError(
                f"two callbacks unfreeze one model, by {other.schedule!r} and by {self.schedule!r}; expected one "
                "UnfreezeCallback"
            )
        _unfreezing[model] = (weakref.ref(self), control)

    def _measuring(
        self, args: Any, state: Any, control: Any, model: Any, blocks: Sequence[Block], schedule: Schedule
    ) -> tracking.FisherCallback:
        """What measures for the schedule: the `FisherCallback` of the same Trainer, or one of our own. Whether a script
        runs under `fishlens track` must not matter to what it thaws, so that only the journal is shared with that."""
        factors = {"schedule": self.schedule, "schedule_every": self.every}
        theirs = tracking.callback_of(model)
        if theirs is not None and not theirs.tracks(state):
            theirs = None
        if theirs is not None:
            theirs.factors = {**theirs.factors, **factors}
        if theirs is None or theirs.gives_way:
            pool = schedule.most_examples or None
            journal = theirs.journal if theirs is not None else None
            self._own = tracking.FisherCallback(
                Never(), pool=pool, blocks=blocks, factors=factors, journal=journal
            )
            theirs = self._own
            theirs.begin(args, state, model)
        self._nothing_fed = theirs.data is None
        return theirs

    def _pass_on(self, event: str, args: Any, kwargs: Any) -> None:
        """To the callback of our own, which the Trainer does not know."""
        if self._own is not None:
            getattr(self._own, event)(*args, **kwargs)

    def _stored_state(self, args: Any, state: Any) -> State | None:
        if state.global_step == 0:
            return None
        stored = read_state(args, state, STATE_FILE)
        if stored is None:
            raise InputError(
                f"training resumes at step {state.global_step}, but its checkpoint has no {STATE_FILE}: it was written "
                "without UnfreezeCallback, or lies in another directory (set resume_from_checkpoint in the arguments)"
            )
        try:
            made_with, left = (stored["schedule"], stored["every"]), State.from_json(stored["state"])
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(Path(stored["found_at"]) / STATE_FILE, error) from None
        if made_with != (self.schedule, self.every):
            raise InputError(
                f"the checkpoint was written with the schedule {made_with[0]!r} every {made_with[1]}; "
                f"expected {self.schedule!r} every {self.every}"
            )
        return left

    def _scores(self, step: int, examples: int) -> Scores:
        assert self.unfreezing is not None
        on = self.unfreezing.schedule.scored_on

        def measure() -> dict[str, Any]:
            assert self._fisher is not None and self._fisher.tracker is not None
            return asdict(self._fisher.tracker.measure(step, examples or None, on))

        return Scores(**from_first(measure, self._device))

    def _write(self, kind: str, step: int, **fields: Any) -> None:
        tracker = self._fisher.tracker if self._fisher is not None else None
        if tracker is not None and tracker.writer is not None:
            tracker.writer.write(kind, step, **fields)
        values = reported(kind, fields)
        for reporter in tracker.reporters if tracker is not None and values else ():
            reporter.report(step, values)


def _check_schedule(name: str) -> None:
    """Raises `InputError` for a schedule that needs what a Trainer keeps to itself, by what its class declares."""
    needs = schedule_class(name)
    if needs.sets_learning_rates:
        raise InputError(
            f"the schedule {name!r} sets learning rates, which belong to the Trainer: use fishlens.train"
        )
    if needs.scores_by == RELATIVE_GRADIENT:
        raise InputError(
            f"the schedule {name!r} looks at relative gradient norms, which are not measured inside a Trainer: use "
            "fishlens.train"
        )


def _check_blocks(blocks: Sequence[Block], model: nn.Module, optimizer: Any) -> None:
    """Raises `InputError` if something trains that no block holds: it would train from the first step."""
    held = _held(optimizer)
    named = dict(unwrapped(model).named_parameters())
    outside = [name for name in unmeasured(model, blocks) if id(named[name]) in held]
    if outside:
        raise InputError(
            f"some parameters train and lie in no block ({len(outside)}, {outside[0]} among them), so that no schedule "
            "would decide when; expected every trainable parameter in a block; freeze them before training, or give "
            "blocks= that hold them"
        )


def _check_optimizer(blocks: Sequence[Block], optimizer: Any) -> None:
    """Raises `InputError` if a block's parameters are not all in the optimizer: they would never train."""
    held = _held(optimizer)
    for block in blocks:
        missing = [name for name, parameter in block.parameters.items() if id(parameter) not in held]
        if missing:
            raise InputError(
                f"block {block.name!r} has {len(missing)} parameters that the optimizer does not hold ({missing[0]} "
                "among them): everything that is to be thawed must be trainable when the Trainer makes its optimizer"
            )


def _held(optimizer: Any) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


def _check_processes(args: Any, model: Any) -> None:
    """DistributedDataParallel waits for the gradients of frozen blocks unless it looks for unused parameters."""
    if not several_processes() or args.ddp_find_unused_parameters:
        return
    if args.ddp_find_unused_parameters is False or getattr(model, "is_gradient_checkpointing", False):
        raise InputError(
            "in several processes, frozen blocks need ddp_find_unused_parameters=True in the arguments"
        )
