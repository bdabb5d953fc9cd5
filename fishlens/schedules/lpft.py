"""`lpft`: first the head alone (linear probing), then everything (fine-tuning). Kumar et al. 2022."""

from fishlens.schedules.base import Schedule
from fishlens.schedules.scores import Scores
from fishlens.schedules.state import Event, State


class LinearProbingThenFineTuning(Schedule):
    """No block until step k, then all."""

    name = "lpft"

    def choose(self, step: int, state: State, scores: Scores | None) -> Event:
        return Event(step, tuple(self.frozen(state)) if step >= self.every else ())

    @property
    def complete_at(self) -> int:
        return self.every
