"""Algorithm 1 of "FUN with Fisher" (Liu et al. 2024): generalised scheduled unfreezing.

    for i = 0 … N−1:
        if i mod k = 0 and i ≤ kL:
            thaw the blocks that the schedule selects      (before the forward pass of step i)
        one training step on the head and on every thawed block

Blocks are numbered 0 … L−1 from the bottom of the network to the top; the head is not a block of a schedule, it always
trains. A block that was thawed stays thawed. A schedule is a pure object: it holds settings only, `select` computes
from (step, state, scores), so that it can be printed, tested and replayed without a model.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fishlens.errors import InputError
from fishlens.schedules.scores import Scores
from fishlens.schedules.state import Event, State

TRACE = "trace"
RELATIVE_GRADIENT = "relative gradient"
SOURCE, TARGETS = "source", "targets"


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """Base of all schedules; a new one implements `choose`.

    every: k, the interval between events in optimizer steps. blocks: names, bottom to top, without the head.
    seed: of whatever is drawn at random. Options of a schedule are further fields with defaults.
    """

    name: ClassVar[str]
    scores_by: ClassVar[str | None] = None
    """What the blocks are scored by where `select` needs scores: TRACE, RELATIVE_GRADIENT, or None for never."""
    sets_learning_rates: ClassVar[bool] = False
    """Whether its events weigh the learning rates of blocks, which only fishlens's own trainer can do."""

    every: int
    blocks: tuple[str, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise InputError(f"schedule.every is {self.every!r}; expected a whole number of steps, 1 or more")
        if not self.blocks:
            raise InputError("a schedule needs at least one block, got none")
        if len(set(self.blocks)) < len(self.blocks):
            raise InputError(f"a schedule needs different block names, got {list(self.blocks)}")
        if "head" in self.blocks:
            raise InputError(
                "the head always trains and is not a block of a schedule: leave 'head' out of its blocks"
            )

    def is_event(self, step: int) -> bool:
        """Is `step` (the number of completed updates) on the grid of Algorithm 1?"""
        return step % self.every == 0 and 0 <= step <= self.every * len(self.blocks)

    def needs_scores(self, step: int, state: State) -> bool:
        """Must the blocks be measured before `select`? Only then is a probe taken."""
        return False

    def wants_more(self, step: int, state: State, scores: Scores) -> bool:
        """Should more examples be added to `scores` before `select`?"""
        return False

    def select(self, step: int, state: State, scores: Scores | None = None) -> Event:
        """What happens at `step`: an `Event`, empty where nothing is left to thaw.

        Raises `ValueError` if `step` is not an event, `InputError` if scores are needed and missing or not finite, or
        if the schedule weighs learning rates without declaring it.
        """
        if not self.is_event(step):
            raise ValueError(f"step {step} is not an event of {self}")
        if scores is None and self.needs_scores(step, state):
            raise InputError(
                f"the schedule {self.name!r} needs the scores of the blocks at step {step}, got none"
            )
        event = self.choose(step, state, scores)
        if event.learning_rate_weights and not self.sets_learning_rates:
            raise InputError(
                f"the schedule {self.name!r} gives learning-rate weights but does not declare it; expected "
                "sets_learning_rates = True on its class"
            )
        return event

    @property
    def scored_on(self) -> str:
        """Whose examples the blocks are scored on: the `source`'s, or those of the `targets`."""
        return SOURCE

    @property
    def most_examples(self) -> int:
        """How many examples `wants_more` may ask for; 0: whatever a probe measures is enough."""
        return 0

    @abstractmethod
    def choose(self, step: int, state: State, scores: Scores | None) -> Event:
        """The schedule's rule. Called by `select` at events only, with scores where they are needed."""

    def frozen(self, state: State) -> list[str]:
        """Blocks not thawed yet, bottom to top."""
        return [block for block in self.blocks if block not in state.thawed]

    @property
    def complete_at(self) -> int | None:
        """The step at which the last block is thawed; None if this schedule never thaws all."""
        return self.every * (len(self.blocks) - 1)

    def resolve(self, blocks: Sequence[int | str], field: str) -> tuple[str, ...]:
        """Names of blocks given by name or by number (0 = bottom, −1 = top), in the given order."""
        names = []
        for block in blocks:
            if isinstance(block, int) and -len(self.blocks) <= block < len(self.blocks):
                names.append(self.blocks[block])
            elif block in self.blocks:
                names.append(str(block))
            else:
                raise InputError(
                    f"{field} names block {block!r}; expected a number below {len(self.blocks)} or one of "
                    f"{', '.join(self.blocks)}"
                )
        if len(set(names)) < len(names):
            raise InputError(f"{field} names a block twice: {list(blocks)}")
        return tuple(names)


def budget_warning(schedule: Schedule, steps: int) -> str | None:
    """One sentence with the numbers, if a run of `steps` updates ends before the last block is thawed."""
    complete = schedule.complete_at
    if complete is None or complete < steps:
        return None
    reached = sum(schedule.is_event(step) for step in range(steps))
    return (
        f"the schedule {schedule.name!r} with every={schedule.every} thaws its last of {len(schedule.blocks)} blocks "
        f"at step {complete}, but training ends after {steps} steps ({reached} events): some blocks never train; "
        f"{_advice(schedule, steps)}"
    )


def _advice(schedule: Schedule, steps: int) -> str:
    events = (schedule.complete_at or 0) // schedule.every
    largest = (steps - 1) // max(1, events)
    longer = f"train for more than {schedule.complete_at} steps"
    return f"use an interval of at most {largest}, or {longer}" if largest else longer
