"""`auto-rgn`: per-block learning rates by relative gradient norm (Lee et al. 2023, "Auto-RGN")."""

import math

from fishlens.errors import InputError
from fishlens.schedules.base import RELATIVE_GRADIENT, Schedule
from fishlens.schedules.scores import Scores
from fishlens.schedules.state import Event, State


class AutoRgn(Schedule):
    """Everything is thawed at step 0; every k steps each block's learning rate is multiplied by its weight.

    The weight of a block is its relative gradient norm ‖∇L‖/‖θ‖ over the largest one among the blocks, so it lies
    in [0, 1]. Unlike an unfreezing schedule this goes on for as long as training does.
    """

    name = "auto-rgn"
    scores_by = RELATIVE_GRADIENT
    sets_learning_rates = True

    def is_event(self, step: int) -> bool:
        return step % self.every == 0 and step >= 0

    def needs_scores(self, step: int, state: State) -> bool:
        return self.is_event(step)

    def choose(self, step: int, state: State, scores: Scores | None) -> Event:
        norms = scores.relative_gradient if scores is not None else None
        if norms is None:
            raise InputError(
                "the schedule 'auto-rgn' needs the relative gradient norm of every block, got none"
            )
        for block in self.blocks:
            if not math.isfinite(norms.get(block, math.nan)):
                raise InputError(
                    f"block {block!r} has the relative gradient norm {norms.get(block)}; expected a finite number"
                )
        largest = max(norms[block] for block in self.blocks)
        weights = {block: norms[block] / largest if largest > 0 else 1.0 for block in self.blocks}
        return Event(step, tuple(self.frozen(state)), learning_rate_weights=weights)

    @property
    def complete_at(self) -> int:
        return 0
