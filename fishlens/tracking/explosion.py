"""Does the Fisher information explode? Early in training, tr(F) that grows by orders of magnitude goes with worse
generalisation (Jastrzębski et al. 2021, "Catastrophic Fisher Explosion"), so whoever trains is told while it happens.

The rule: the sum of tr(F) over the blocks, on the source language, is more than `FACTOR` times the median of all
earlier probes of the run, of which there are at least `BEFORE`. It is said once a run; nothing is done about it.
"""

from collections.abc import Iterable, Mapping
from statistics import median

FACTOR = 10.0
BEFORE = 3
MEMORY = "sums of tr(F)"  # no language is called so


class Explosion:
    """The sums of the probes so far, oldest first."""

    def __init__(self, sums: Iterable[float] = ()):
        self.sums = list(sums)

    def at(self, step: int, trace: Mapping[str, float]) -> str | None:
        """Take the probe of a step; the sentence if it is the first one that the rule is true of."""
        already = any(self._large(number) for number in range(len(self.sums)))
        self.sums.append(sum(trace.values()))
        if already or not self._large(len(self.sums) - 1):
            return None
        usual = median(self.sums[:-1])
        return (
            f"tr(F) explodes at step {step}: its sum over blocks is {self.sums[-1]:.3g}, {self.sums[-1] / usual:.0f} "
            f"times the median of the {len(self.sums) - 1} probes before (more than {FACTOR:g} times is said). Early "
            "in training this goes with worse generalisation: try a smaller or warmed-up learning rate, or "
            "train.fisher_penalty"
        )

    def _large(self, number: int) -> bool:
        before = self.sums[:number]
        return len(before) >= BEFORE and self.sums[number] > FACTOR * median(before) > 0
