"""Does the Fisher information explode? Early in training, tr(F) that grows by orders of magnitude goes with worse
generalisation (Jastrzębski et al. 2021, "Catastrophic Fisher Explosion"), so whoever trains is told while it happens.

The rule: the sum of tr(F) over the blocks, on the source language, is more than `FACTOR` times the median of all
earlier probes of the run, of which there are at least `BEFORE`. It is said once a run; nothing is done about it.
"""

from bisect import insort
from collections.abc import Iterable, Mapping

FACTOR = 10.0
BEFORE = 3
MEMORY = "sums of tr(F)"  # no language is called so


class Explosion:
    """The sums of the probes so far, oldest first. A run has thousands: they are kept in order of size, too, so that
    none is looked at again."""

    def __init__(self, sums: Iterable[float] = ()):
        self.sums: list[float] = []
        self._in_order: list[float] = []
        self._said = False
        for number in sums:
            self._said |= self._take(number) is not None

    def at(self, step: int, trace: Mapping[str, float]) -> str | None:
        """Take the probe of a step; the sentence if it is the first one that the rule is true of."""
        usual = self._take(sum(trace.values()))
        if self._said or usual is None:
            return None
        self._said = True
        return (
            f"tr(F) explodes at step {step}: its sum over blocks is {self.sums[-1]:.3g}, {self.sums[-1] / usual:.0f} "
            f"times the median of the {len(self.sums) - 1} probes before (more than {FACTOR:g} times is said). Early "
            "in training this goes with worse generalisation: try a smaller or warmed-up learning rate, or "
            "train.fisher_penalty"
        )

    def _take(self, number: float) -> float | None:
        """The median of the probes before, if the rule is true of this one."""
        before = self._in_order
        usual = (before[(len(before) - 1) // 2] + before[len(before) // 2]) / 2 if before else 0.0
        large = len(before) >= BEFORE and number > FACTOR * usual > 0
        self.sums.append(number)
        if number == number:  # nan has no place in an order
            insort(before, number)
        return usual if large else None
