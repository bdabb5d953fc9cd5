"""How far a training is, and how long it has trained: without its probes, and without what was not training."""

import time
from collections.abc import Callable

from fishlens.tracking.clock import Spent


class Progress:
    """Steps and seconds of one training, as its tracker is told of them.

    training_seconds: a clock of the training proper; default: the time since the first step, less the probes and what
        `leave_out` was told of.
    """

    def __init__(self, training_seconds: Callable[[], float] | None = None):
        self.last_step = 0
        self._first_step: int | None = None
        self._began = 0.0
        self._spent = Spent()
        self._left_out = 0.0
        self._training_seconds = training_seconds

    def at(self, step: int) -> int | None:
        """Take note of a step; the one before it, if that was later."""
        if self._first_step is None:
            self._began, self._first_step = time.perf_counter(), step
        before, self.last_step = self.last_step, step
        return before if step < before else None

    def probed(self, seconds: float, purpose: str, of_target: bool) -> None:
        """A probe took so long. What the next one will cost is what the clock's last one did, in all languages."""
        last = self._spent.last_probe
        if of_target:
            last += seconds if purpose == "track" else 0.0
        else:
            last = seconds if purpose == "track" else max(seconds, last)
        self._spent = Spent(self._spent.probes + seconds, last)

    def leave_out(self, seconds: float) -> None:
        """So many seconds just past were not training (an evaluation)."""
        self._left_out += seconds

    @property
    def spent(self) -> Spent:
        if self._training_seconds is not None:
            training = self._training_seconds()
        else:
            since = 0.0 if self._first_step is None else time.perf_counter() - self._began
            training = since - self._spent.probes - self._left_out
        return Spent(self._spent.probes, self._spent.last_probe, max(training, 0.0))

    @property
    def overhead(self) -> float | None:
        """Seconds on probes per second of training; None before any training."""
        spent = self.spent
        trained = self._first_step is not None and self.last_step > self._first_step
        return spent.probes / spent.training if trained and spent.training > 0 else None
