"""`random`: a random frozen block per event (the paper's +Rand)."""

import random

from fishlens.schedules.scores import Scores
from fishlens.schedules.state import Event, State
from fishlens.schedules.stepwise import Stepwise


class RandomOrder(Stepwise):
    """Uniform over the frozen blocks. The draw depends on the seed and on how many blocks are thawed, on nothing
    else, so a resumed run draws what an uninterrupted one would."""

    name = "random"

    def next_event(self, step: int, state: State, scores: Scores | None) -> Event:
        frozen = self.frozen(state)
        if not frozen:
            return Event(step, ())
        draw = random.Random(f"unfreeze/{self.seed}/{len(state.thawed)}")
        return Event(step, (draw.choice(frozen),))
