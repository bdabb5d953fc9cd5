"""What measures a model: its blocks, its examples, and how; and what is known of the weights it has now."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fishlens.errors import InputError
from fishlens.fisher import Block, FisherEstimate, estimate_fisher, merge
from fishlens.fisher.batches import Batch
from fishlens.fisher.fingerprint import Weights, weights_of
from fishlens.fisher.probe import NOTHING_SCORED
from fishlens.fisher.proof import Plan
from fishlens.fisher.refusals import refuse_sharded
from fishlens.fisher.walk import Tree, look_again, walked_once
from fishlens.fisher.which_output import UNTOLD
from fishlens.tracking.languages import InLanguage, same_model
from fishlens.tracking.measurement import unseen
from fishlens.tracking.probe_set import ProbeSet

IDENTITY = (
    "labels",
    "samples",
    "granularity",
    "output",
    "mode",
    "dtype",
    "seed",
    "blocks",
    "normalisation",
    "preset",
    "version",
)

ASSUMED = (
    "nothing says what the model's outputs mean, so they are measured as one softmax for each example; "
    "where they are something else give output="
)


@dataclass
class Measured:
    """What is known at one state of the weights: the estimate by how many batches it is of, or why there is none."""

    weights: Weights | None
    estimates: dict[int, FisherEstimate] = field(default_factory=dict)
    lost: str | None = None


@dataclass
class Instrument:
    """Measures the blocks of `model` on its probe sets. `options`: as `estimate_fisher` takes them; `passing`: as
    `Tracker` takes it.

    `identity` says what its numbers are called in the journal, once `prove` has measured something.
    """

    model: nn.Module
    blocks: Sequence[Block]
    options: dict[str, Any]
    diagonal: bool = True
    in_language: InLanguage = same_model
    passing: Callable[[], Iterable[nn.Parameter]] = tuple
    probe_set: ProbeSet = field(default_factory=lambda: ProbeSet([], None))
    targets: dict[str, ProbeSet] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()  # what nobody has said of the numbers, for the journal
    known: Measured = field(default_factory=lambda: Measured(None))
    _plan: Plan = field(default_factory=Plan)
    _tree: Tree | None = None
    _identity: dict[str, Any] | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What the numbers are called in the journal."""
        if self._identity is None:
            raise RuntimeError("nothing has been measured yet")
        return self._identity

    @contextmanager
    def walked(self) -> Iterator[None]:
        """Inside, the model's tree of modules is looked over once."""
        with walked_once(self.model, self._tree) as self._tree:
            yield

    def prove(self) -> None:
        """Measures a batch of every kind, once: raises what is wrong with the input, and learns what the numbers are
        called. What is proved about the model here need not be proved again by the probes (`Plan`)."""
        if self._identity is not None:
            return
        kinds = self.probe_set.kinds()
        first = next((batch for batch in (*kinds, *self.probe_set.batches) if batch.scored), kinds[0])
        meta = self._estimate([first]).meta
        if NOTHING_SCORED in meta["notes"]:
            raise InputError(f"the probe set measures nothing: {NOTHING_SCORED}")
        self.options["output"] = meta["output"]  # what the labels mean never changes under way
        self.assumed = (ASSUMED,) if meta["output_from"] == UNTOLD else ()
        for batch in kinds:
            if batch is not first:
                self._estimate([batch])
        for language, probe_set in self.targets.items():
            try:
                with self.in_language(language):
                    for batch in probe_set.kinds():
                        self._estimate([batch])
            except InputError as error:
                raise InputError(f"language {language!r}: {error}") from error
        self._identity = {
            **{key: meta[key] for key in IDENTITY},
            "output_from": meta["output_from"],
            "examples": self.probe_set.examples,
        }

    def weights_at(self, step: int) -> Weights:
        """The present weights; what was measured at other ones is forgotten."""
        refuse_sharded(self.model)  # it may have been sharded since the beginning
        passing = [*self.passing()]
        if passing:
            look_again(self.model)
        weights = weights_of(self.model, step, passing)
        if not weights.same_as(self.known.weights):
            self.known = Measured(weights)
        return weights

    def of_source(self, batches: int) -> FisherEstimate:
        """The estimate of the first `batches` batches at the present weights: the base, and what comes on top of it."""
        known, base = self.known.estimates, self.probe_set.base
        if batches in known:
            return known[batches]
        start = max((count for count in known if count < batches), default=0)
        if start < base < batches:
            self.of_source(base)
            start = base
        more = self._estimate(self.probe_set.batches[start:batches], self.probe_set.examples_in(start))
        known[batches] = merge([known[start], more]) if start else more
        return known[batches]

    def of_target(self, language: str) -> FisherEstimate:
        """The estimate of a target language, for which the model must be ready."""
        probe_set = self.targets[language]
        return self._estimate(probe_set.batches[: probe_set.base])

    def noise_scales(self) -> dict[str, float] | None:
        """The gradient noise scale of every block, from the empirical gradient of the source's examples."""
        options = {**self.options, "labels": "empirical", "samples": 1, "preset": None}
        with unseen():
            return estimate_fisher(
                self.model,
                self.probe_set.batches[: self.probe_set.base],
                blocks=self.blocks,
                noise_scale=True,
                plan=self._plan,
                **options,
            ).noise_scale

    def blame(self, error: Exception, batches: int) -> str:
        """Which batch of the probe set is to blame for an error, if one is."""
        if batches == 1 or isinstance(error, torch.OutOfMemoryError | MemoryError):
            return ""
        for number, batch in enumerate(self.probe_set.batches[:batches], start=1):
            try:
                self._estimate([batch])
            except Exception:
                return f" (batch {number} of the probe set's {batches})"
        return ""

    def _estimate(self, batches: Sequence[Batch], first_example: int = 0) -> FisherEstimate:
        with unseen():
            return estimate_fisher(
                self.model,
                batches,
                blocks=self.blocks,
                diagonal=self.diagonal,
                first_example=first_example,
                plan=self._plan,
                **self.options,
            )
