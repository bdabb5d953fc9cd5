"""One probe: measure, describe, write down. Whatever goes wrong costs this probe alone."""

import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from fishlens.errors import InputError, first_line
from fishlens.files import own_folder, writing
from fishlens.fisher import FisherEstimate, merge
from fishlens.fisher.fingerprint import Weights
from fishlens.fisher.observe import observing, undisturbed
from fishlens.names import check_language
from fishlens.tracking.destinations import Destinations
from fishlens.tracking.instrument import Instrument, Measured
from fishlens.tracking.languages import nothing_beside
from fishlens.tracking.measurement import summed_up
from fishlens.tracking.probe_record import ProbeRecords
from fishlens.tracking.progress import Progress


class Prober:
    """Takes probes with an instrument. `diagonals`, `languages_every`: as `Tracker` takes them.

    `lost` counts the probes that failed; `last_lost` says why the last of them did.
    """

    def __init__(
        self,
        instrument: Instrument,
        records: ProbeRecords,
        progress: Progress,
        destinations: Destinations,
        diagonals: Collection[int],
        languages_every: int | None = None,
    ):
        self._instrument, self._records, self._progress = instrument, records, progress
        self._destinations, self.diagonals = destinations, frozenset(diagonals)
        self._languages_every = languages_every
        # by language: at which weights it was measured last, and what was found (None: the probe was lost)
        self._on_targets: dict[str, tuple[Weights, FisherEstimate | None]] = {}
        self.lost, self.last_lost = 0, ""

    def all_languages(self, step: int) -> FisherEstimate | None:
        """The probe of a step: of the source, and of every target language."""
        with self._instrument.walked():
            estimate = self.source(step, "track", self._instrument.probe_set.base)
        weights = self._instrument.known.weights
        assert weights is not None
        if self._languages_every is None or step % self._languages_every == 0:
            for language in self._instrument.targets:
                self._target(weights, language, "track", estimate)
        return estimate

    def source(self, step: int, purpose: str, batches: int) -> FisherEstimate | None:
        """Measure the first `batches` batches, or use what was measured, and write a record of it."""
        instrument = self._instrument
        instrument.weights_at(step)
        if purpose == "select" and batches in instrument.known.estimates:
            return instrument.known.estimates[batches]  # the unfreeze record will hold the scores
        estimate, fields = self._attempt(
            lambda: instrument.of_source(batches),
            lambda found: self._fields(found, step, purpose),
            nullcontext,
            step,
            blame=lambda error: instrument.blame(error, batches),
        )
        instrument.known.lost = fields["lost"]
        self._progress.probed(fields["seconds"], purpose, of_target=False)
        self._write(step, {**fields, "purpose": purpose})
        said = (*instrument.assumed, *summed_up(estimate.meta["notes"])) if estimate is not None else ()
        for note in said:
            self._destinations.note(step, note, level="info")
        return estimate

    def targets(self, step: int) -> FisherEstimate:
        """The estimate of all target languages' examples together. Raises `RuntimeError` where one is lost."""
        if not self._instrument.targets:
            raise InputError("the schedule scores blocks on target languages, but the tracker was given none")
        weights = self._instrument.weights_at(step)
        for language in self._instrument.targets:
            if not weights.same_as(self._on_targets.get(language, (None, None))[0]):
                self._target(weights, language, "select")
        estimates = [self._on_targets[language][1] for language in self._instrument.targets]
        there = [estimate for estimate in estimates if estimate is not None]
        if len(there) < len(estimates):
            raise RuntimeError(f"the blocks could not be measured in every target language at step {step}")
        return merge(there)

    def rehearse(self) -> None:
        """All that a probe measures, written nowhere. Raises whatever goes wrong."""
        instrument = self._instrument
        instrument.known = Measured(None)
        source = instrument.of_source(instrument.probe_set.base)
        self._records.fields(source, "track")
        for language in instrument.targets:
            with instrument.in_language(language):
                self._records.fields(instrument.of_target(language), "track", language, source)
        instrument.known = Measured(None)
        self._records.forget()

    def _target(
        self, weights: Weights, language: str, purpose: str, source: FisherEstimate | None = None
    ) -> None:
        """Measure in a target language, and write a record of it: a part of the same probe, for the budget too."""
        estimate, fields = self._attempt(
            lambda: self._instrument.of_target(language),
            lambda found: self._fields(found, weights.step, purpose, language, source),
            lambda: self._instrument.in_language(language),
            weights.step,
            f" in {language!r}",
        )
        self._progress.probed(fields["seconds"], purpose, of_target=True)
        self._on_targets[language] = (weights, estimate)
        self._write(weights.step, {**fields, "purpose": purpose, "language": language})

    def _attempt(
        self,
        measure: Callable[[], FisherEstimate],
        describe: Callable[[FisherEstimate], dict[str, Any]],
        prepared: Callable[[], AbstractContextManager[Any]],
        step: int,
        of: str = "",
        blame: Callable[[Exception], str] = lambda error: "",
    ) -> tuple[FisherEstimate | None, dict[str, Any]]:
        """(estimate, a record's fields with what it cost)."""
        began = time.perf_counter()
        estimate, lost = None, None
        blocks = self._instrument.blocks
        trainable = {block.name: block.trainable for block in blocks}
        parameters = (p for block in blocks for p in block.parameters.values())
        others = prepared is not nullcontext or self._records.beside is not nothing_beside
        try:
            # what `in_language` and `beside` do to random states and flags is undone as well
            with (
                observing(self._instrument.model, parameters, "unchanged") if others else undisturbed(),
                prepared(),
            ):
                estimate = measure()
                fields = {"trainable": trainable, **describe(estimate)}
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()
            estimate, lost = None, f"{type(error).__name__}: {first_line(error)}{blame(error)}"
            self.lost, self.last_lost = self.lost + 1, lost
            fields = {"trace": {}, "examples": 0}
            self._destinations.say_lost(step, of, lost)
        return estimate, {**fields, "seconds": time.perf_counter() - began, "lost": lost}

    def _fields(
        self,
        estimate: FisherEstimate,
        step: int,
        purpose: str,
        language: str | None = None,
        source: FisherEstimate | None = None,
    ) -> dict[str, Any]:
        fields = self._records.fields(estimate, purpose, language, source)
        if step in self.diagonals and purpose == "track":
            fields["diagonal"] = self._save_diagonal(estimate, step, language)
        return fields

    def _write(self, step: int, fields: dict[str, Any]) -> None:
        self._destinations.probe(step, {**fields, "overhead": self._progress.overhead})

    def _save_diagonal(self, estimate: FisherEstimate, step: int, language: str | None) -> str | None:
        """The diagonal as safetensors, under its name only when it is whole; a refusing disk loses it, and says so."""
        journal = self._destinations.writer.path if self._destinations.writer is not None else None
        if journal is None or estimate.diagonal is None:
            return None
        try:
            name = f"diagonals/step-{step}{f'-{check_language(language)}' if language else ''}.safetensors"
            save_diagonal(journal.parent / name, estimate.diagonal)
        except Exception as error:  # safetensors has its own kinds for a refusing disk
            self._destinations.note(step, f"the diagonal of step {step} is lost: {first_line(error)}")
            return None
        return name


def save_diagonal(place: Path, diagonal: dict[str, torch.Tensor]) -> None:
    """A tensor per parameter, by its name; under the file's name only when it is whole."""
    own_folder(place.parent)
    with writing(place) as beside:  # safetensors gives a file a mode of its own
        save_file({name: values.contiguous().cpu() for name, values in diagonal.items()}, beside)
