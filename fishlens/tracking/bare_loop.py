"""watching: tracking a training loop that fishlens knows nothing of, without probe data or a call for each step.

What the model is fed in its first updates is what is measured, and an update is a step of an optimizer that holds
parameters of the model, however the loop does it: a scaler, a closure, a wrapper, an accelerator.
"""

import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from fishlens.errors import InputError, said
from fishlens.fisher import Block
from fishlens.fisher.anatomy import unwrapped
from fishlens.journal import JournalWriter, attempts
from fishlens.tracking.account import Entry
from fishlens.tracking.clock import Clock
from fishlens.tracking.fed import FedExamples
from fishlens.tracking.guard import guarded, guarded_beginning, reason, say
from fishlens.tracking.late import LateJournal
from fishlens.tracking.plain import described
from fishlens.tracking.processes import rank
from fishlens.tracking.resumption import free_name, open_free
from fishlens.tracking.settings import account_place
from fishlens.tracking.tracker import Tracker


class watching:
    """Tracks whatever trains `model` inside the block.

        with fishlens.watching(model, every=50, run="runs/mine"):
            for batch in loader:
                model(**batch).loss.backward()
                optimizer.step()
                optimizer.zero_grad()

    every, blocks, head, embeddings and what is left: as `Tracker` takes them. examples: how many of those that the
    model is fed a probe measures; a probe before there are so many is of those fed until then. run: the run's
    directory, which must be new; default: a free name like that of the script, in `runs/`.

    `updates` counts the steps of the optimizers that hold parameters of the model (of several that take turns, those of
    the one with the most). Raises `InputError` for bad arguments when it is made; what
    else goes wrong is said, and the loop goes on.
    """

    off: str | None = None
    strict = True
    updates = 0
    tracker: Tracker
    _entry: Entry | None = None
    _fed: FedExamples | None = None
    _hooks: Sequence[Any] = ()
    _journal = LateJournal()

    @guarded_beginning
    def __init__(
        self,
        model: nn.Module,
        *,
        every: int | str | Collection[int] | Clock = 50,
        run: str | Path | None = None,
        examples: int = 128,
        blocks: Sequence[Block] | str | None = None,
        factors: dict[str, Any] | None = None,
        seeds: dict[str, Any] | None = None,
        **tracker_options: Any,
    ):
        self.model = unwrapped(model)
        self._entry = Entry(account_place(), type(self.model).__name__) if rank() == 0 else None
        self._any_name = run is None
        self.run = free_name(Path("runs") / _script()) if run is None else Path(run)
        if attempts(self.run):
            raise InputError(f"{self.run} already holds a run: choose another name")
        self._steps = dict[int, int]()
        self._factors, self._seeds = {"every": str(every), **(factors or {})}, seeds or {}
        self._journal = LateJournal()
        self._parameters = {id(parameter) for parameter in self.model.parameters()}
        self._asked = -1
        self._fed = FedExamples(self.model, examples)
        self.tracker = Tracker(
            self.model, self._fed, writer=self._journal, every=every, examples=examples, blocks=blocks,
            **tracker_options,
        )  # fmt: skip

    def __enter__(self) -> "watching":
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(kind, error)

    @guarded
    def _end(self, kind: type[BaseException] | None, error: BaseException | None) -> None:
        status = "finished" if kind is None else "interrupted" if kind is KeyboardInterrupt else "failed"
        self.end(status, None if kind is None else f"{kind.__name__}: {said(error)}")

    @guarded
    def _begin(self) -> None:
        if rank() > 0:
            return
        assert self._fed is not None
        self._fed.listen()
        self._hooks = [
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]

    @guarded
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        """The weights are still those after `updates` updates, and the model has been fed, unless the optimizer's
        closure feeds it first: then the arguments with a closure after which the probe is taken."""
        if torch.compiler.is_compiling() or not self._holds_ours(optimizer):
            return None
        if self._steps.get(id(optimizer), 0) < self.updates or self._asked == self.updates:
            return None  # another optimizer of the same update
        self._asked = self.updates
        self._end_of_feeding()
        self.tracker.step(self.updates)
        return None if self.tracker.ready else self._probing_closure(args, kwargs)

    def _end_of_feeding(self) -> None:
        assert self._fed is not None
        self._fed.end_of_update()
        if self._fed.off:
            raise InputError(self._fed.off)
        if self.tracker.ready:
            self._open()
            for text in self._fed.news():
                self.tracker.note(self.updates, text, level="info")

    def _probing_closure(self, args: Any, kwargs: Any) -> Any:
        """The arguments of an optimizer's `step`, whose closure runs the model at the weights of before: Lightning's
        own, LBFGS."""
        given = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not callable(given):
            return None
        waiting = [True]

        def closure() -> Any:
            result = given()
            if waiting.pop() if waiting else False:
                self._catch_up()
            return result

        if "closure" in kwargs:
            return args, {**kwargs, "closure": closure}
        return (args[0], closure, *args[2:]), kwargs

    @guarded
    def _catch_up(self) -> None:
        self._end_of_feeding()
        self.tracker.catch_up()

    @guarded
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling() or not self._holds_ours(optimizer):
            return
        self._steps[id(optimizer)] = self._steps.get(id(optimizer), 0) + 1
        self.updates = max(self._steps.values())
        assert self._fed is not None
        self._fed.update = self.updates + 1

    def _holds_ours(self, optimizer: Optimizer) -> bool:
        return any(id(p) in self._parameters for group in optimizer.param_groups for p in group["params"])

    def _open(self) -> None:
        """Prove that the examples can be measured and open the journal, once."""
        if self._journal.writer is not None:
            return
        self.tracker.prove()
        seeds = described({"probe": self.tracker.seed, **self._seeds})
        start = {**self.tracker.start_record(), "factors": described(self._factors), "seeds": seeds}
        writer = open_free(self.run, start) if self._any_name else JournalWriter.open(self.run, start)
        self.run = writer.path.parent
        self._journal.open(writer)
        assert self._entry is not None
        self._entry.tracked(self.run, None, None)

    @guarded
    def add_factors(self, factors: dict[str, Any]) -> None:
        """What the run is, for the journal's first record; nothing once it is written."""
        self._factors |= factors

    @guarded
    def write(self, kind: str, step: int, **fields: Any) -> None:
        """A record for the journal, once it is open: a loss, say, that the loop has logged."""
        self._journal.write(kind, step, **fields)

    @guarded
    def end(self, status: str, error: str | None = None) -> None:
        """Ends the watching, for those that cannot do so by leaving a `with` block; status as in the journal."""
        watched, self._hooks = self._hooks, ()
        for hook in watched:
            hook.remove()
        assert self._fed is not None
        self._fed.stop()
        if not watched:
            return
        if self._journal.writer is None:
            raise InputError(
                "no optimizer has made a step with parameters of the model"
                if not self.updates and self._asked < 0
                else "the model was not called with gradients enabled and a batch; call the model itself"
            )
        if status == "finished":
            self.tracker.step(self.updates)  # the last weights
        if self.tracker.trouble and self._entry is not None:
            self._entry.untracked(self.tracker.trouble)
        self._journal.write("end", self.updates, status=status, error=error, best_step=None)

    def failed(self, error: BaseException) -> None:
        """Called by the guard: the loop is not watched, or no longer."""
        self.off = reason(error)
        for hook in self._hooks:
            hook.remove()
        if self._fed is not None:
            self._fed.stop()
        begun = self._journal.writer is not None
        say(f"{'tracking has stopped' if begun else 'NOT TRACKED'}, because {self.off}")
        if self._entry is not None:
            self._entry.untracked(f"tracking stopped: {self.off}" if begun else self.off)
        if begun:
            self._journal.write(
                "end", self.updates, status="failed", error=f"tracking stopped: {self.off}", best_step=None
            )


def _script() -> str:
    return Path(sys.argv[0] or "run").stem or "run"
