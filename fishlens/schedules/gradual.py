"""`gu`, `gu-reverse`: one block per event, in the order of the network."""

from fishlens.schedules.base import Schedule
from fishlens.schedules.scores import Scores
from fishlens.schedules.state import Event, State


class Gradual(Schedule):
    """Top-down, the top block at step 0 (Howard & Ruder 2018)."""

    name = "gu"

    def choose(self, step: int, state: State, scores: Scores | None) -> Event:
        return Event(step, tuple(self.frozen(state)[-1:]))


class GradualReverse(Schedule):
    """Bottom-up, the bottom block at step 0 (the paper's Appendix G.2)."""

    name = "gu-reverse"

    def choose(self, step: int, state: State, scores: Scores | None) -> Event:
        return Event(step, tuple(self.frozen(state)[:1]))
