"""`fun`: the frozen block with the largest trace of the Fisher information (the paper's §5.3)."""

from dataclasses import dataclass

from fishlens.errors import InputError
from fishlens.schedules.base import TRACE
from fishlens.schedules.scores import Scores
from fishlens.schedules.state import Event, State
from fishlens.schedules.stepwise import Stepwise


@dataclass(frozen=True, kw_only=True)
class Fun(Stepwise):
    """One block per event: argmax of tr(F) over the frozen blocks; of equal scores the one nearer the top.

    first: "top" thaws the top block at step 0 without looking, as in the paper's experiments; "select" chooses it
    by its score too. confident: go on adding probe batches until the leader leads the runner-up by `margin`
    standard errors, or `max_examples` were seen. scores: "source", as in the paper, or "targets": tr(F) on the
    unlabelled examples of all target languages together, which is ours and nobody has tried.
    """

    name = "fun"
    scores_by = TRACE

    first: str = "top"
    confident: bool = False
    margin: float = 2.0
    max_examples: int = 2048

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first not in ("top", "select"):
            raise InputError(f"schedule.first is {self.first!r}; expected 'top' or 'select'")
        if self.margin <= 0:
            raise InputError(
                f"schedule.margin is {self.margin}; expected a number of standard errors above 0"
            )
        if self.max_examples < 1:
            raise InputError(f"schedule.max_examples is {self.max_examples}; expected 1 or more")

    def needs_scores(self, step: int, state: State) -> bool:
        return self._looks(step, state) or super().needs_scores(step, state)

    def _looks(self, step: int, state: State) -> bool:
        """Does it choose by scores here?"""
        frozen = self.frozen(state)
        first_is_given = self.first == "top" and not state.thawed
        return self.is_event(step) and bool(frozen) and not first_is_given

    @property
    def most_examples(self) -> int:
        return self.max_examples if self.confident else 0

    def wants_more(self, step: int, state: State, scores: Scores) -> bool:
        if not self._looks(step, state):
            return False
        ranked = self._ranked(state, scores)
        if not self.confident or len(ranked) < 2 or (scores.examples or 0) >= self.max_examples:
            return False
        lead = scores.margin(ranked[0], ranked[1])
        return lead is None or lead < self.margin

    def next_event(self, step: int, state: State, scores: Scores | None) -> Event:
        if scores is None or not self._looks(step, state):
            return Event(step, tuple(self.frozen(state)[-1:]))
        ranked = self._ranked(state, scores)
        runner_up = ranked[1] if len(ranked) > 1 else None
        return Event(
            step,
            chosen=(ranked[0],),
            scores=dict(scores.trace),
            stderr=dict(scores.stderr) if scores.stderr is not None else None,
            runner_up=runner_up,
            margin=scores.margin(ranked[0], runner_up) if runner_up else None,
            examples=scores.examples,
        )

    def _ranked(self, state: State, scores: Scores) -> list[str]:
        frozen = scores.of(self.frozen(state))
        return sorted(frozen, key=lambda block: (frozen[block], self.blocks.index(block)), reverse=True)
