"""`gu`, `gu-reverse`: one block per event, in the order of the network."""

from fishlens.schedules.scores import Scores
from fishlens.schedules.state import Event, State
from fishlens.schedules.stepwise import Stepwise


class Gradual(Stepwise):
    """Top-down, the top block at step 0 (Howard & Ruder 2018)."""

    name = "gu"

    def next_event(self, step: int, state: State, scores: Scores | None) -> Event:
        return Event(step, tuple(self.frozen(state)[-1:]))


class GradualReverse(Stepwise):
    """Bottom-up, the bottom block at step 0 (the paper's Appendix G.2)."""

    name = "gu-reverse"

    def next_event(self, step: int, state: State, scores: Scores | None) -> Event:
        return Event(step, tuple(self.frozen(state)[:1]))
