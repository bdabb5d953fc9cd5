"""The fields of a probe's record, and what they are compared with: the probe before, and the source language."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fishlens.errors import InputError
from fishlens.fisher import FisherEstimate
from fishlens.fisher.comparison import (
    by_block,
    drift,
    histogram_table,
    histograms_of,
    overlaps,
    rank_overlaps,
)
from fishlens.fisher.transfer import fetched
from fishlens.tracking.instrument import IDENTITY, Instrument
from fishlens.tracking.languages import nothing_beside
from fishlens.tracking.measurement import parameter_norms, weight_norms


@dataclass
class ProbeRecords:
    """Makes a record's fields of an estimate. Options are those of `Tracker`; `told`: of how many examples of a
    language the journal has the ids; `histograms`: of the diagonal of the probe before, by language."""

    instrument: Instrument
    effective_dimension: bool = True
    noise_scale: bool = False
    beside: Callable[[str | None, FisherEstimate], dict[str, Any]] = nothing_beside
    examples_ids: Mapping[str | None, Sequence[str | int]] = field(default_factory=dict)
    histograms: dict[str | None, dict[str, torch.Tensor]] = field(default_factory=dict)
    told: dict[str | None, int] = field(default_factory=dict)

    def fields(
        self,
        estimate: FisherEstimate,
        purpose: str,
        language: str | None = None,
        source: FisherEstimate | None = None,
    ) -> dict[str, Any]:
        """A record's fields but for what the probe cost. `source`: the source's estimate at the same weights."""
        waiting: dict[str, Any] = {"norms": parameter_norms(self.instrument.blocks)}
        if purpose == "track":
            waiting |= _compared(estimate, None if language is None else source)
        here = fetched(waiting)
        fields: dict[str, Any] = {
            "trace": estimate.trace,
            "stderr": estimate.stderr,
            "weight_norm": weight_norms(self.instrument.blocks, here["norms"]),
            "examples": estimate.examples,
            "diagonal": None,
        }
        if estimate.entropy is not None and estimate.confidence is not None:
            fields["entropy"] = _mean_of_known(estimate.entropy)
            fields["confidence"] = _mean_of_known(estimate.confidence)
        if purpose == "track":
            fields |= {**self._comparison(estimate, language, here), **self.beside(language, estimate)}
        if self.effective_dimension:
            fields["effective_dimension"] = estimate.effective_dimension
        if self.noise_scale and language is None:
            fields["noise_scale"] = self.instrument.noise_scales()
        return fields | self._identity(estimate) | self._ids(estimate.examples, language)

    def memory(self) -> dict[str, Any]:
        """What the next probe is compared with, as plain values."""
        return {
            language or "": {block: counts.tolist() for block, counts in histograms.items()}
            for language, histograms in self.histograms.items()
        }

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Go on from the `memory` of an earlier attempt."""
        self.histograms = {
            language or None: {block: torch.tensor(counts) for block, counts in histograms.items()}
            for language, histograms in memory.items()
        }
        self.told = dict.fromkeys(self.histograms, self.instrument.probe_set.examples)

    def forget(self) -> None:
        """As if nothing had been measured."""
        self.histograms, self.told = {}, {}

    def _identity(self, estimate: FisherEstimate) -> dict[str, Any]:
        """What differs from what the journal's start says of every probe: the number of examples, nothing else."""
        begun = self.instrument.identity
        identity = {**begun, **{key: estimate.meta[key] for key in IDENTITY}}
        changed = [
            f"{key} from {begun[key]!r} to {identity[key]!r}"
            for key in IDENTITY
            if identity[key] != begun[key]
        ]
        if changed:
            raise InputError(
                f"what is measured has changed under way: {', '.join(changed)}; a new run can measure it"
            )
        identity["examples"] = estimate.examples
        return {} if identity == begun else {"estimator": identity}

    def _ids(self, examples: int, language: str | None) -> dict[str, Any]:
        """Which examples were measured, where the journal does not say so yet: a smaller probe is the first of them."""
        ids = self.examples_ids.get(language)
        if not ids or examples <= self.told.get(language, 0):
            return {}
        self.told[language] = examples
        return {"examples_ids": list(ids[:examples])}

    def _comparison(
        self, estimate: FisherEstimate, language: str | None, here: dict[str, list[np.ndarray]]
    ) -> dict[str, dict[str, float]]:
        """What `_compared` left, once it is fetched; and the diagonal beside that of the probe before."""
        if "histograms" not in here:
            return {}
        fields: dict[str, dict[str, float]] = {
            key: by_block(estimate.parameters, here[key])
            for key in ("overlap", "rank_overlap")
            if key in here
        }
        histograms = histograms_of(estimate.parameters, here["histograms"])
        if language in self.histograms:
            fields["drift"] = drift(self.histograms[language], histograms)
        self.histograms[language] = histograms
        return fields


def _mean_of_known(values: torch.Tensor) -> float:
    known = [value for value in values.numpy().tolist() if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _compared(estimate: FisherEstimate, source: FisherEstimate | None) -> dict[str, list[torch.Tensor]]:
    """Histograms of the diagonal, and the diagonal beside the source's: on the device."""
    if estimate.diagonal is None:
        return {}
    waiting = {"histograms": histogram_table(estimate.diagonal, estimate.parameters)}
    if source is not None and source.diagonal is not None:
        waiting["overlap"] = overlaps(source.diagonal, estimate.diagonal, estimate.parameters)
        waiting["rank_overlap"] = rank_overlaps(source.diagonal, estimate.diagonal, estimate.parameters)
    return waiting
