"""What a schedule may look at: one number per block, with its uncertainty."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fishlens.errors import InputError


@dataclass(frozen=True)
class Scores:
    """What was measured on the blocks, at the weights the event will act on.

    trace: tr(F) of each block. stderr: its standard error over examples. per_example: each example's trace, in one
    order for all blocks (so that two blocks can be compared example by example). examples: how many there were.
    relative_gradient: ‖∇L‖ / ‖θ‖ of each block, which only `auto-rgn` looks at.
    """

    trace: Mapping[str, float]
    stderr: Mapping[str, float] | None = None
    per_example: Mapping[str, Sequence[float]] | None = None
    examples: int | None = None
    relative_gradient: Mapping[str, float] | None = None

    def of(self, blocks: Sequence[str]) -> dict[str, float]:
        """The traces of `blocks`. Raises `InputError` for a block without a finite trace."""
        for block in blocks:
            value = self.trace.get(block)
            if value is None or not math.isfinite(value):
                raise InputError(
                    f"block {block!r} has the score {value}: a choice by scores needs a finite number for every "
                    "frozen block"
                )
        return {block: self.trace[block] for block in blocks}

    def margin(self, block: str, other: str) -> float | None:
        """By how many standard errors `block` leads `other`; None where nothing is known about the error.

        With per-example traces the error is that of the paired difference: an example that is hard for one block
        is hard for the other too, so the two standard errors are not independent.
        """
        lead = self.trace[block] - self.trace[other]
        error = self._error_of_difference(block, other)
        if error is None or not math.isfinite(error):
            return None
        if error == 0:
            return math.copysign(math.inf, lead) if lead else 0.0
        return lead / error

    def _error_of_difference(self, block: str, other: str) -> float | None:
        if self.per_example is not None:
            differences = [
                a - b for a, b in zip(self.per_example[block], self.per_example[other], strict=True)
            ]
            n = len(differences)
            if n < 2:
                return None
            mean = math.fsum(differences) / n
            return math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (n - 1) / n)
        if self.stderr is not None:
            return math.hypot(self.stderr[block], self.stderr[other])
        return None
