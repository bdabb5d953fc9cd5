"""`surgical`: a given subset, once and for all (Lee et al. 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass

from fishlens.errors import InputError
from fishlens.schedules.base import Schedule
from fishlens.schedules.scores import Scores
from fishlens.schedules.state import Event, State


@dataclass(frozen=True, kw_only=True)
class Surgical(Schedule):
    """subset: the blocks to train, by number (0 = bottom, −1 = top) or name; the others stay frozen for good."""

    name = "surgical"

    subset: Sequence[int | str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.subset:
            raise InputError("the schedule 'surgical' needs schedule.subset, the blocks to train")
        object.__setattr__(self, "subset", self.resolve(self.subset, "schedule.subset"))

    def choose(self, step: int, state: State, scores: Scores | None) -> Event:
        return Event(step, tuple(str(b) for b in self.subset if b not in state.thawed))

    @property
    def complete_at(self) -> int | None:
        return 0 if len(self.subset) == len(self.blocks) else None
