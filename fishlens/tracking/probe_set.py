"""The examples that the probes of a run measure: given, or what the model was fed; more where a choice needs them."""

import random
from collections.abc import Sequence
from typing import Any

from fishlens.errors import InputError
from fishlens.fisher.batches import Batch, batches_of
from fishlens.fisher.observe import random_states_kept


class ProbeSet:
    """Batches as the model takes them. A probe measures the first `base` of them, a choice may go on to the others.

    wanted: how many examples a probe measures, rounded up to whole batches; None: all of them.
    """

    def __init__(self, batches: list[Batch], wanted: int | None):
        if wanted is not None and wanted < 1:
            raise InputError(f"a probe of {wanted} examples measures nothing; expected 1 or more")
        self.batches, self.wanted = batches, wanted

    @classmethod
    def of(cls, data: Any, examples: int | None = None) -> "ProbeSet":
        """From one batch or an iterable of batches, which is read once and kept.

        Raises `InputError` when there is no example.
        """
        if isinstance(data, ProbeSet):
            return data
        with random_states_kept(data):
            batches = list(batches_of(data))
        if not batches:
            raise InputError("the probe set has no batches; expected at least one example")
        return cls(batches, examples)

    @property
    def base(self) -> int:
        """How many batches a probe measures."""
        return _enough(self.batches, self.wanted) if self.wanted else len(self.batches)

    @property
    def examples(self) -> int:
        """How many examples a probe measures when there are enough."""
        return self.examples_in(self.base)

    def examples_in(self, batches: int) -> int:
        """How many examples the first `batches` batches hold."""
        return sum(batch.size for batch in self.batches[:batches])

    def until(self, examples: int | None) -> int:
        """How many batches hold at least `examples` examples, and at least the base; all if there are not enough."""
        return max(self.base, _enough(self.batches, examples)) if examples else self.base

    def kinds(self) -> list[Batch]:
        """A batch of every kind: of other keys, types or dimensions, and the longest of each kind."""
        found: dict[Any, Batch] = {}
        longest: dict[Any, Batch] = {}
        for batch in self.batches:
            kind = tuple((name, str(t.dtype), t.dim()) for name, t in batch_tensors(batch))
            found.setdefault(kind, batch)
            if kind not in longest or _length(batch) > _length(longest[kind]):
                longest[kind] = batch
        chosen = list(found.values())
        chosen += [batch for batch in longest.values() if all(batch is not other for other in chosen)]
        return chosen


def probe_order(rows: int, seed: int) -> list[int]:
    """Which of so many rows a probe measures: the first ones of a seeded order, the same wherever rows are parallel."""
    order = list(range(rows))
    random.Random(f"probe/{seed}").shuffle(order)
    return order


def batch_tensors(batch: Batch) -> list[tuple[Any, Any]]:
    """(name or position, tensor) of everything a batch holds."""
    parts = [*enumerate(batch.args), *batch.inputs.items(), *batch.labels.items()]
    return [(name, value) for name, value in parts if hasattr(value, "dtype")]


def _length(batch: Batch) -> float:
    return sum(value.numel() for _, value in batch_tensors(batch)) / batch.size


def _enough(batches: Sequence[Batch], examples: int) -> int:
    """How many of the first batches hold at least `examples` examples; all if there are not enough."""
    seen = 0
    for count, batch in enumerate(batches, start=1):
        seen += batch.size
        if seen >= examples:
            return count
    return len(batches)
