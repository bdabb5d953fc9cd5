"""`standard`: everything from the start. `full`: the same, on a model without adapters."""

from fishlens.schedules.base import Schedule
from fishlens.schedules.scores import Scores
from fishlens.schedules.state import Event, State


class Standard(Schedule):
    """All blocks at step 0: standard adapter training."""

    name = "standard"

    def choose(self, step: int, state: State, scores: Scores | None) -> Event:
        return Event(step, tuple(self.frozen(state)))

    @property
    def complete_at(self) -> int:
        return 0


class Full(Standard):
    """All weights of the model at step 0: the full fine-tuning baseline (Table 7 of the paper).

    What differs from `standard` is the model: without adapters, its blocks are the encoder's layers.
    """

    name = "full"
