"""When to probe: every k steps, at given steps, or as often as a share of the training time allows."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

from fishlens.errors import InputError


@dataclass(frozen=True)
class Spent:
    """Seconds so far: on probes, on the last probe alone, and on training (without probes)."""

    probes: float = 0.0
    last_probe: float = 0.0
    training: float = 0.0


class Clock(ABC):
    """Decides before every step whether to probe; knows nothing but the step and the time."""

    @abstractmethod
    def due(self, step: int, spent: Spent) -> bool:
        """Probe now, after `step` completed updates?"""


@dataclass(frozen=True)
class Every(Clock):
    """At steps 0, k, 2k, …"""

    steps: int

    def due(self, step: int, spent: Spent) -> bool:
        return step % self.steps == 0


@dataclass(frozen=True)
class At(Clock):
    """At the given steps only."""

    steps: frozenset[int]

    def due(self, step: int, spent: Spent) -> bool:
        return step in self.steps


@dataclass(frozen=True)
class Never(Clock):
    """Only when a schedule asks."""

    def due(self, step: int, spent: Spent) -> bool:
        return False


@dataclass(frozen=True)
class Budget(Clock):
    """Whenever one more probe, if it costs what the last one did, keeps all probes within `share` of the training time.

    The first probe is taken at the first step, to learn what a probe costs: it is a debt that training pays off
    before the second. Which steps are probed depends on the machine; what is trained does not.
    """

    share: float

    def due(self, step: int, spent: Spent) -> bool:
        return spent.probes == 0 or spent.probes + spent.last_probe <= self.share * spent.training


def make_clock(every: int | str | Collection[int] | Clock) -> Clock:
    """`50` or `"50"`: every 50 steps. `"2%"`: at most 2% of the training time. `[0, 10, 100]` or `"0,10,100"`: there.

    Raises `InputError` for anything else.
    """
    if isinstance(every, Clock):
        return every
    wrong = InputError(
        f"every is {every!r}; expected a number of steps (50), a share of the training time ('2%') or a list of steps"
    )
    try:
        if isinstance(every, str):
            if every.strip().endswith("%"):
                return _budget(float(every.strip()[:-1]) / 100, wrong)
            steps_given = every.strip().removeprefix("[").removesuffix("]")
            listed = "," in every or steps_given != every.strip()
            every = [int(part) for part in steps_given.split(",")] if listed else int(every)
        if isinstance(every, int) and not isinstance(every, bool):
            if every < 1:
                raise wrong
            return Every(every)
        steps = frozenset(int(step) for step in every)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        raise wrong from None
    if not steps or min(steps) < 0:
        raise wrong
    return At(steps)


def _budget(share: float, wrong: InputError) -> Budget:
    if not 0 < share < 1:
        raise wrong
    return Budget(share)
