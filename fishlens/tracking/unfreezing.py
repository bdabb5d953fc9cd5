"""A schedule at work on a model: decide, thaw, write down, and see that what was thawed moves."""

from collections.abc import Callable, Sequence
from typing import Any

from fishlens.fisher.blocks import HEAD, Block
from fishlens.schedules import Event, Schedule, Scores, State
from fishlens.tracking.thaw import Movement, set_trainable

Measure = Callable[[int], Scores]
"""(how many examples at least) -> the scores of all blocks at the present weights."""


class Unfreezing:
    """The one place where a training changes `requires_grad`: our trainer's, or somebody else's (`UnfreezeCallback`).

    Made after the optimizer (which must hold every block) and before the first step: it freezes all blocks but the
    head, or restores what `state` says was thawed.
    """

    def __init__(self, schedule: Schedule, blocks: Sequence[Block], state: State | None = None):
        self.schedule = schedule
        self.state = state or State()
        self._blocks = {block.name: block for block in blocks}
        self._movement = Movement()
        set_trainable(blocks, self.trainable)

    @property
    def trainable(self) -> list[str]:
        """Names of the blocks that train, bottom to top, the head among them."""
        return [name for name in self._blocks if name == HEAD or name in self.state.thawed]

    def is_due(self, step: int) -> bool:
        """Is there an event before `step` that has not been yet?"""
        last = self.state.last_step
        return self.schedule.is_event(step) and (last is None or step > last)

    def at(self, step: int, measure: Measure) -> Event | None:
        """Before the forward pass of `step`: apply its event, if it has one that changes something or is the first."""
        schedule = self.schedule
        if not self.is_due(step):
            return None
        scores = None
        if schedule.needs_scores(step, self.state):
            scores = measure(0)
            while schedule.wants_more(step, self.state, scores):
                more = measure(2 * (scores.examples or 1))
                if (more.examples or 0) <= (scores.examples or 0):
                    break  # there are no more examples
                scores = more
        event = schedule.select(step, self.state, scores)
        first = self.state.last_step is None
        if not (event.chosen or event.learning_rate_weights or first):
            return None
        self.state = self.state.after(event)
        set_trainable(self._blocks.values(), self.trainable)
        return event

    def before_update(self, step: int) -> None:
        """Remember the weights of what was thawed by the event at `step`, if there was one."""
        if self.state.last_step == step and not self._movement:
            self._movement.expect(self._blocks[name] for name in self._thawed_last())

    def after_update(self, updates: int) -> None:
        """Raises `BlockDidNotMove` if a block that was thawed has not moved. Not to be called for an update that was
        skipped (fp16 overflow) or made with learning rate 0."""
        self._movement.verify(self._blocks, updates)

    def _thawed_last(self) -> list[str]:
        weights = self.state.learning_rate_weights
        return [name for name in self.state.thawed_last if weights.get(name, 1.0) > 0]


def unfreeze_record(event: Event, number: int, trainable: Sequence[str]) -> dict[str, Any]:
    """The fields of the journal's `unfreeze` record."""
    return {
        "event": number,
        "chosen": list(event.chosen),
        "trainable": list(trainable),
        "scores": None if event.scores is None else dict(event.scores),
        "stderr": None if event.stderr is None else dict(event.stderr),
        "runner_up": event.runner_up,
        "margin": event.margin,
        "examples": event.examples,
        **({} if event.ended is None else {"ended": event.ended}),
    }
