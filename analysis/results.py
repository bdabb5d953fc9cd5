"""What a statistic looks like when it is done: its value and everything needed to see how it was got."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from fishlens.names import counted

VALUES = "different values"  # what a column that is constant lacks: counting them says nothing


@dataclass(frozen=True)
class Estimate:
    """One number with its uncertainty. `low`, `high` and `p` are NaN where they do not exist; `note` says why."""

    quantity: str  # what was estimated, e.g. "spearman", "mean difference"
    estimate: float
    low: float
    high: float
    level: float  # confidence of low..high, e.g. 0.95
    p: float  # two-sided unless `method` says otherwise
    n: int  # runs (or pairs of runs) that the number is of
    clusters: int  # independent units among them
    method: str  # how the interval and the p-value were got
    seed: int | None = None  # of the random resamples; None where nothing is random
    note: str = ""

    enough = True

    def as_row(self) -> dict[str, Any]:
        """A plain dict for one row of a tidy table; `needed` is 0: nothing more is needed."""
        return {**asdict(self), "needed": 0}


@dataclass(frozen=True)
class NotEnough:
    """The answer "not enough runs for this": what there is, what it would take, and why."""

    quantity: str
    n: int
    clusters: int
    needed: int  # of `unit`
    unit: str  # "runs", "schedules", "seeds", …
    note: str

    enough = False

    def as_row(self) -> dict[str, Any]:
        """The same columns as `Estimate.as_row`, with NaN for the numbers that are not there."""
        nothing = dict.fromkeys(("estimate", "low", "high", "level", "p"), math.nan)
        return {
            "quantity": self.quantity,
            **nothing,
            "n": self.n,
            "clusters": self.clusters,
            "method": "",
            "seed": None,
            "note": self.note,
            "needed": self.needed,
        }

    def __str__(self) -> str:
        return f"not enough {self.unit} for {self.quantity}: {self.note}"


def not_enough(quantity: str, have: int, needed: int, unit: str, *, n: int, why: str = "") -> NotEnough:
    """`NotEnough` with its sentence written out."""
    have = max(have, 0)  # degrees of freedom may be below
    text = f"{counted(have, unit)}, at least {needed} {'is' if needed == 1 else 'are'} needed"
    text += f" ({why})" if why else ""
    reason = why if why and unit == VALUES else text
    return NotEnough(quantity, n=n, clusters=have, needed=needed, unit=unit, note=reason)
