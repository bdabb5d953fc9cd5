"""Some of a study's planned runs: by name, or one part of several for the jobs of a cluster."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from fishlens.errors import InputError
from fishlens.sweep.plan import PlannedRun


def only(planned: Sequence[PlannedRun], patterns: Sequence[str]) -> list[PlannedRun]:
    """The runs whose names match one of `patterns` (`pos-gu-seed0`, `topic-*`); all of them without patterns.

    Raises:
        InputError: a pattern matches no run; the sentence lists some that there are.
    """
    for pattern in patterns:
        if not any(fnmatchcase(run.name, pattern) for run in planned):
            names = ", ".join(run.name for run in planned[:5])
            raise InputError(f"no run of the study is called {pattern!r}: it has {len(planned)}, {names}, …")
    return [run for run in planned if not patterns or any(fnmatchcase(run.name, p) for p in patterns)]


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 1: the runs number index, index + count, … of the plan.

    What has been run already does not change which shard a run belongs to, so the jobs of an array may start at
    any time and may be started again.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`2/8`. Raises `InputError` for anything else."""
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise InputError(f"--shard is {text!r}; expected I/N with I from 1 to N, as 2/8")
        return cls(int(found[1]), int(found[2]))

    def of(self, planned: Sequence[PlannedRun]) -> list[PlannedRun]:
        """Its runs; none where there are fewer runs than shards."""
        return list(planned[self.index - 1 :: self.count])

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"
