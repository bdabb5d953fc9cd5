"""The examples that every probe of a run measures: fixed, in one order, and more of them where a choice needs them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fishlens.errors import InputError
from fishlens.fisher.batches import Batch, batches_of
from fishlens.fisher.observe import random_states_kept


@dataclass(frozen=True)
class ProbeSet:
    """Batches as the model takes them. A probe measures the first `base` of them, a choice may go on to the others."""

    batches: Sequence[Batch] = field(repr=False)
    base: int

    @classmethod
    def of(cls, data: Any, examples: int | None = None) -> "ProbeSet":
        """From one batch or an iterable of batches, which is read once and kept.

        `examples`: how many a probe measures, rounded up to whole batches; None: all of them. Raises `InputError`
        when there is no example.
        """
        with random_states_kept(data):
            batches = list(batches_of(data))
        if not batches:
            raise InputError("the probe set has no batches; expected at least one example")
        if examples is not None and examples < 1:
            raise InputError(f"a probe of {examples} examples measures nothing; expected 1 or more")
        return cls(batches, _enough(batches, examples) if examples else len(batches))

    @property
    def examples(self) -> int:
        """How many examples a probe measures."""
        return self.examples_in(self.base)

    def examples_in(self, batches: int) -> int:
        """How many examples the first `batches` batches hold."""
        return sum(batch.size for batch in self.batches[:batches])

    def until(self, examples: int | None) -> int:
        """How many batches hold at least `examples` examples, and at least the base; all if there are not enough."""
        return max(self.base, _enough(self.batches, examples)) if examples else self.base


def _enough(batches: Sequence[Batch], examples: int) -> int:
    """How many of the first batches hold at least `examples` examples; all if there are not enough."""
    seen = 0
    for count, batch in enumerate(batches, start=1):
        seen += batch.size
        if seen >= examples:
            return count
    return len(batches)
