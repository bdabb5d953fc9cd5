"""What a look at a run shows, kept in a few numbers: a run of any length takes the same memory and the same time."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from fishlens.journal.kinds import identity
from fishlens.journal.records import is_alive, number

Record = dict[str, Any]
NOTES = 4  # how many are shown


class Curve:
    """A series of values in at most `BINS` means of equally many values; short series as they are."""

    BINS = 512

    def __init__(self, gaps: int = 0):
        """`gaps`: so many values are missing at the beginning."""
        self._bins: list[tuple[float, int]] = []  # sum and number of finite values
        self._per = 1
        self._open: list[float] = []
        self._last: tuple[int, float] | None = None
        for _ in range(gaps):
            self._add(math.nan)

    def put(self, step: int, value: float) -> None:
        """The next value; at the step of the last one, it takes its place."""
        if self._last is not None and self._last[0] != step:
            self._add(self._last[1])
        self._last = (step, value)

    def values(self) -> list[float]:
        last = [*self._open, *([] if self._last is None else [self._last[1]])]
        ends = [_sum(last[i : i + self._per]) for i in range(0, len(last), self._per)]
        return [total / count if count else math.nan for total, count in [*self._bins, *ends]]

    def _add(self, value: float) -> None:
        self._open.append(value)
        if len(self._open) < self._per:
            return
        self._bins.append(_sum(self._open))
        self._open = []
        if len(self._bins) == self.BINS:
            halves = zip(self._bins[::2], self._bins[1::2], strict=True)
            self._bins = [(a + b, m + n) for (a, m), (b, n) in halves]
            self._per *= 2


def _sum(values: Sequence[float]) -> tuple[float, int]:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite), len(finite)


class Probes:
    """The curves of all blocks, and the last probe."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.last: Record | None = None
        self.curves: dict[str, Curve] = {}
        self._count = 0

    def put(self, probe: Record) -> None:
        step, trace = probe["step"], probe["trace"]
        if self.last is None or self.last["step"] != step:
            self._count += 1
        if self.first is None:
            self.first = step
        for name in trace.keys() - self.curves.keys():
            self.curves[name] = Curve(self._count - 1)
        for name, curve in self.curves.items():
            curve.put(step, number(trace.get(name)))
        self.last = probe


class Overview:
    """One run, record by record (`journal.follow`)."""

    def __init__(self, path: Path):
        self.path = path
        self.start: Record = {}
        self.end: Record | None = None
        self.attempts = self.last_step = 0
        self.tracked, self.selecting = Probes(), Probes()
        self.loss = Curve()
        self.latest: dict[str, Record] = {}  # by what is shown of it
        self.events: dict[tuple[Any, ...], Record] = {}
        self._notes: dict[str, Record] = {}  # each once: a resumed attempt says again what still holds
        self._lost: deque[Record] = deque(maxlen=NOTES)
        self._damaged: deque[str] = deque(maxlen=NOTES)

    def begin(self, start: Record) -> None:
        self.start, self.end = start, None
        self.attempts += 1

    def damaged(self, text: str) -> None:
        self._damaged.append(text)

    def take(self, record: Record) -> None:
        self.last_step = max(self.last_step, record["step"])
        kind = record["kind"]
        if kind == "end":
            self.end = record
        elif kind == "train":
            self.latest["train"] = record
            self.loss.put(record["step"], number(record.get("loss")))
        elif kind == "eval" and record.get("split") != "targets":
            self.latest["eval"] = record
            if record.get("headline"):
                self.latest["headline"] = record
        elif kind == "unfreeze" and record.get("chosen"):
            self.events[identity(record)] = record
        elif kind == "note":
            self._notes.setdefault(str(record.get("text", "")), record)
        elif kind == "fisher":
            self._take_probe(record)

    def _take_probe(self, record: Record) -> None:
        if record.get("overhead") is not None:
            self.latest["overhead"] = record
        if record.get("lost"):
            of = f" in {record['language']}" if record.get("language") else ""
            text = f"probe lost{of}: {record['lost']}"
            self._lost.append({**record, "text": text, "level": "warning"})
        if record.get("trace") and record.get("language") is None and record.get("series") is None:
            (self.selecting if record.get("purpose") == "select" else self.tracked).put(record)

    @property
    def probes(self) -> Probes:
        """The tracked series; of a run that only measures to choose, those measurements."""
        return self.tracked if self.tracked.last is not None else self.selecting

    @property
    def blocks(self) -> list[str]:
        """Block names, bottom to top."""
        return list(self.start.get("blocks") or {})

    @property
    def status(self) -> str:
        """As `Run.status`."""
        if self.end:
            return str(self.end.get("status"))
        return {True: "running", False: "died", None: "unfinished"}[is_alive(self.start.get("process"))]

    @property
    def notes(self) -> list[tuple[int, str, str]]:
        """Step, text and level of the last notes: the most serious ones last."""
        found = [
            (note["step"], str(note.get("text", "")), str(note.get("level")))
            for note in (*self._notes.values(), *self._lost)
        ]
        found += [(self.last_step, line, "error") for line in self._damaged]
        error = (self.end or {}).get("error")
        return [*found, *([(self.last_step, str(error), "error")] if error else [])][-NOTES:]


def binned(values: Sequence[float], width: int) -> Iterator[float]:
    """Means of the finite values of `width` stretches, NaN where there are none."""
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    for a, b in pairwise(edges):
        total, count = _sum(values[a:b])
        yield total / count if count else math.nan
