"""Schedules that thaw block by block, and when that ends: a step, or a plateau of tr(F)."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from itertools import pairwise

from fishlens.errors import InputError
from fishlens.schedules.base import SOURCE, TARGETS, TRACE, Schedule
from fishlens.schedules.scores import Scores
from fishlens.schedules.state import Event, State

PLATEAU = "plateau"


@dataclass(frozen=True, kw_only=True)
class Stepwise(Schedule):
    """Base of schedules that thaw one block per event; a new one implements `next_event`.

    until: when the intervention ends and every block that is still frozen is thawed at once: null for never
    (Algorithm 1), a number of updates (at the first event from it on), or "plateau": at the first event where tr(F)
    of all blocks together, frozen ones too, has changed by no more than `tolerance` of its largest value so far from
    each of the last `patience` events to the next. Then the blocks are measured at every event. scores: whose tr(F),
    the "source"'s or that on the unlabelled examples of the "targets".
    """

    until: int | str | None = None
    tolerance: float = 0.1
    patience: int = 2
    scores: str = SOURCE

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.until, self.tolerance, self.patience)
        if self.scores not in (SOURCE, TARGETS):
            raise InputError(f"schedule.scores is {self.scores!r}; expected {SOURCE!r} or {TARGETS!r}")
        if self.until == PLATEAU:
            object.__setattr__(self, "scores_by", TRACE)
        elif self.scores_by is None and self.scores != SOURCE:
            raise InputError(
                f"schedule.scores is {self.scores!r}, but the schedule {self.name!r} looks at scores only with "
                f"schedule.until={PLATEAU}"
            )

    @property
    def scored_on(self) -> str:
        return self.scores

    @property
    def complete_at(self) -> int | None:
        last = self.every * (len(self.blocks) - 1)
        return min(last, -(-self.until // self.every) * self.every) if isinstance(self.until, int) else last

    def needs_scores(self, step: int, state: State) -> bool:
        return self.until == PLATEAU and self.is_event(step) and bool(self.frozen(state))

    def choose(self, step: int, state: State, scores: Scores | None) -> Event:
        total = None
        if self.until == PLATEAU and scores is not None and self.frozen(state):
            total = sum(scores.of(self.blocks).values())
        if self.frozen(state) and self._ends(step, state, total):
            event = Event(step, tuple(self.frozen(state)), ended=self._rule())
        else:
            event = self.next_event(step, state, scores)
        if total is None or scores is None:
            return event
        if event.scores is None:
            stderr = dict(scores.stderr) if scores.stderr is not None else None
            event = replace(event, scores=dict(scores.trace), stderr=stderr, examples=scores.examples)
        return replace(event, total=total)

    @abstractmethod
    def next_event(self, step: int, state: State, scores: Scores | None) -> Event:
        """The schedule's rule while it is not ended: the next block."""

    def _ends(self, step: int, state: State, total: float | None) -> bool:
        if total is None:
            return isinstance(self.until, int) and step >= self.until
        totals = (*state.totals, total)
        changes = [abs(after - before) for before, after in pairwise(totals)]
        return len(changes) >= self.patience and max(changes[-self.patience :]) <= self.tolerance * max(
            totals
        )

    def _rule(self) -> str:
        if self.until != PLATEAU:
            return f"step {self.until}"
        return f"plateau of tr(F), {self.scores}: {self.patience} changes of at most {self.tolerance:g}"


def _check(until: int | str | None, tolerance: float, patience: int) -> None:
    whole = isinstance(until, int) and not isinstance(until, bool) and until >= 0
    if not (until is None or whole or until == PLATEAU):
        raise InputError(f"schedule.until is {until!r}; expected a number of updates or {PLATEAU!r}")
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 < tolerance < 1:
        raise InputError(f"schedule.tolerance is {tolerance!r}; expected a share between 0 and 1")
    if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
        raise InputError(f"schedule.patience is {patience!r}; expected a whole number of events, 1 or more")
