"""`fixed`: a given order."""

from collections.abc import Sequence
from dataclasses import dataclass

from fishlens.errors import InputError
from fishlens.schedules.permutations import SAMPLED_12, sample_permutations
from fishlens.schedules.scores import Scores
from fishlens.schedules.state import Event, State
from fishlens.schedules.stepwise import Stepwise


@dataclass(frozen=True, kw_only=True)
class Fixed(Stepwise):
    """One block per event, in a given order.

    Give either `order`, all blocks by number (0 = bottom) or name in the order of thawing, or `permutation`, the
    number (0–9) of one of the ten sampled orders (`fishlens.schedules.permutations`; for other than twelve blocks
    they are drawn by the same seeded procedure).
    """

    name = "fixed"

    order: Sequence[int | str] | None = None
    permutation: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.order is None) == (self.permutation is None):
            raise InputError(
                "the schedule 'fixed' needs either schedule.order or schedule.permutation (0 to 9)"
            )
        if self.order is None:
            object.__setattr__(self, "order", self._sampled())
        names = self.resolve(self.order or (), "schedule.order")
        if len(names) < len(self.blocks):
            missing = [block for block in self.blocks if block not in names]
            raise InputError(
                f"schedule.order leaves out {', '.join(missing)}: it must name all {len(self.blocks)} blocks; "
                "the schedule 'surgical' trains a subset"
            )
        object.__setattr__(self, "order", names)

    def _sampled(self) -> tuple[int, ...]:
        orders = SAMPLED_12 if len(self.blocks) == 12 else sample_permutations(len(self.blocks))
        if not isinstance(self.permutation, int) or not 0 <= self.permutation < len(orders):
            raise InputError(
                f"schedule.permutation is {self.permutation!r}; expected a whole number from 0 to {len(orders) - 1}"
            )
        return orders[self.permutation]

    def next_event(self, step: int, state: State, scores: Scores | None) -> Event:
        left = [block for block in self.order or () if block not in state.thawed]
        return Event(step, tuple(str(block) for block in left[:1]))
