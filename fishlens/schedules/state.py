"""The state of a schedule: what was thawed, by which events. Plain data, JSON in and out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """What a schedule decided at one step, and on what grounds.

    chosen: names of the blocks to thaw, in the order they were chosen; may be empty (`lpft` at step 0).
    scores, stderr: tr(F) of the blocks it chose among, where it looked at scores. margin: how many standard errors
    the chosen block leads the runner-up by. learning_rate_weights: factor on the learning rate of each block
    (`auto-rgn` only). total: tr(F) of all blocks, where a stopping rule looks at it; ended: that rule, where the
    schedule ends here and everything left is thawed.
    """

    step: int
    chosen: tuple[str, ...]
    scores: Mapping[str, float] | None = None
    stderr: Mapping[str, float] | None = None
    runner_up: str | None = None
    margin: float | None = None
    examples: int | None = None
    learning_rate_weights: Mapping[str, float] | None = None
    total: float | None = None
    ended: str | None = None


@dataclass(frozen=True)
class State:
    """thawed: in the order of thawing; thawed_last: those of the last event. events: how many events there were.
    last_step: when the last one was. totals: `Event.total` of the events so far."""

    thawed: tuple[str, ...] = ()
    thawed_last: tuple[str, ...] = ()
    events: int = 0
    last_step: int | None = None
    learning_rate_weights: Mapping[str, float] = field(default_factory=dict)
    totals: tuple[float, ...] = ()

    def after(self, event: Event) -> "State":
        new = tuple(block for block in event.chosen if block not in self.thawed)
        return State(
            thawed=self.thawed + new,
            thawed_last=new,
            events=self.events + 1,
            last_step=event.step,
            learning_rate_weights=dict(event.learning_rate_weights or self.learning_rate_weights),
            totals=self.totals + (() if event.total is None else (event.total,)),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "thawed": list(self.thawed),
            "thawed_last": list(self.thawed_last),
            "events": self.events,
            "last_step": self.last_step,
            "learning_rate_weights": dict(self.learning_rate_weights),
            "totals": list(self.totals),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "State":
        return cls(
            thawed=tuple(data["thawed"]),
            thawed_last=tuple(data["thawed_last"]),
            events=data["events"],
            last_step=data["last_step"],
            learning_rate_weights=dict(data["learning_rate_weights"]),
            totals=tuple(data.get("totals", ())),  # states of earlier versions have none
        )
