"""Tracker: probes a model while somebody else trains it, writes what it finds, and changes nothing.

A probe that fails (out of memory, weights that are not finite) costs that probe: the journal says what was lost and
why, and training goes on. Whatever can be known to fail is raised before the first step instead, by a trial on one
batch of every kind, when the tracker is made or the first examples are there.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fishlens.errors import InputError, said
from fishlens.fisher import Block, FisherEstimate
from fishlens.fisher.anatomy import unwrapped
from fishlens.fisher.blocks import not_measured, unmeasured
from fishlens.fisher.labels import check_labels
from fishlens.fisher.observe import observing
from fishlens.fisher.refusals import refuse_what_cannot_be_measured
from fishlens.fisher.which_output import find_output
from fishlens.journal import JournalWriter
from fishlens.journal.records import check_status
from fishlens.schedules import Scores
from fishlens.schedules.base import SOURCE, TARGETS
from fishlens.tracking.clock import Clock, make_clock
from fishlens.tracking.destinations import Destinations
from fishlens.tracking.explosion import MEMORY, Explosion
from fishlens.tracking.fed import FedExamples
from fishlens.tracking.guard import guarded, reason
from fishlens.tracking.instrument import Instrument
from fishlens.tracking.languages import (
    InLanguage,
    nothing_beside,
    same_model,
    split_by_language,
    target_probe_sets,
)
from fishlens.tracking.late import LateJournal
from fishlens.tracking.measurement import blocks_of, scores_of
from fishlens.tracking.plain import described
from fishlens.tracking.probe_record import ProbeRecords
from fishlens.tracking.probe_set import ProbeSet
from fishlens.tracking.prober import Prober
from fishlens.tracking.processes import rank
from fishlens.tracking.progress import Progress

if TYPE_CHECKING:
    from fishlens.tracking.reporters import Reporter


class Tracker:
    """Measures the Fisher information of every block of `model` on a fixed probe set, on its own clock.

        tracker = Tracker(model, probe_batches, run="runs/mine", every=50)
        for step, batch in enumerate(batches):
            tracker.step(step)                       # before the update; `step` updates are complete
            ...
        tracker.close("finished")

    data: the probe set, one batch or an iterable of batches (read once and kept), as the model takes them, with
        labels where the label source needs them; or `FedExamples`, what the model is going to be fed. `examples`: how
        many of them a probe measures (whole batches); the others serve `measure` when a choice needs more. Or
        `{language: such data}`, the source language first: every probe then measures the other languages too, whose
        labels nobody looks at, but for which tokens of a tagged sentence or masked text they leave out.
    languages: `{language: such data}` of further languages, where `data` is the source's alone (what the model is fed).
    in_language: `in_language("de")` is a context manager in which the model is ready for German (its language
        adapter active), and which restores what was before. Default: the model takes every language as it is.
    passing: the parameters that come and go with the language and never train: they do not tell weights apart.
    run: directory of the run; or `writer`, an open journal that somebody else closes. Without either nothing is
        written. Of several processes that train together, the first one measures and writes; the others do nothing.
    every: `50` steps, `[0, 10, 100]`, or `"2%"` of the training time.
    labels, samples, granularity, output, seed, preset, mode, autocast: as `estimate_fisher` takes them.
    blocks: as `find_blocks` makes them, or what it is to make them by (`by`), with `head` and `embeddings`.
    effective_dimension, noise_scale: measure these too. The gradient noise scale is of the empirical gradient, so
        that with other `labels` it costs one more backward pass, and needs labels in the probe set.
    beside: `beside("de", estimate)` (None: the source) gives more fields of the probe's record, measured while the
        model is ready for the language; what it takes is part of the probe.
    examples_ids: what the examples are called in the journal, in the probe set's order; by language, None: the source.
    languages_every: the languages after the first are measured only at steps that it divides; None: at every probe.
    diagonals: steps at which the diagonal is kept, in `diagonals/step-<n>.safetensors`; they are probed in any case.
    factors: what the run is (task, schedule, seed, …), for the journal. seeds: what was seeded with what.
    training_seconds: a clock of the training proper; default: the time since the first `step`, less the probes.

    Raises `InputError` when nothing can be measured or written, before the first step; later nothing but `measure`
    raises: what goes wrong is said on standard error and in the journal.
    """

    off: str | None = None

    def __init__(
        self,
        model: nn.Module,
        data: Any,
        *,
        run: str | os.PathLike[str] | None = None,
        writer: JournalWriter | LateJournal | None = None,
        every: int | str | Collection[int] | Clock = 50,
        examples: int | None = None,
        blocks: Sequence[Block] | str | None = None,
        head: bool = True,
        embeddings: bool = False,
        labels: str = "auto",
        samples: int = 1,
        granularity: str = "example",
        output: str = "auto",
        seed: int = 0,
        preset: str | None = None,
        mode: str = "eval",
        autocast: torch.dtype | None = None,
        effective_dimension: bool = True,
        noise_scale: bool = False,
        diagonals: Collection[int] = (),
        factors: dict[str, Any] | None = None,
        seeds: dict[str, Any] | None = None,
        resumed_from_step: int | None = None,
        fsync: bool = False,
        reporters: Iterable["Reporter"] = (),
        training_seconds: Callable[[], float] | None = None,
        languages: Mapping[str, Any] | None = None,
        in_language: InLanguage = same_model,
        passing: Callable[[], Iterable[nn.Parameter]] = tuple,
        beside: Callable[[str | None, FisherEstimate], dict[str, Any]] = nothing_beside,
        examples_ids: Mapping[str | None, Sequence[str | int]] | None = None,
        languages_every: int | None = None,
    ):
        if run is not None and writer is not None:
            raise InputError("a tracker was given both run and writer; expected one of them")
        options: dict[str, Any] = {
            "labels": labels, "samples": samples, "granularity": granularity,
            "output": output, "seed": seed, "preset": preset, "mode": mode, "autocast": autocast,
        }  # fmt: skip
        found = blocks_of(model, blocks, head=head, embeddings=embeddings)
        effective_dimension = effective_dimension and granularity == "example"
        diagonal = effective_dimension or bool(diagonals)
        self._instrument = Instrument(model, found, options, diagonal, in_language, passing)
        self._records = ProbeRecords(
            self._instrument, effective_dimension, noise_scale, beside, dict(examples_ids or {})
        )
        self._clock, self._progress = make_clock(every), Progress(training_seconds)
        self._destinations = Destinations(writer, list(reporters))
        self._prober = Prober(
            self._instrument,
            self._records,
            self._progress,
            self._destinations,
            diagonals,
            languages_every,
        )
        self._silent = rank() > 0 and writer is None
        source, data, targets = split_by_language(data, languages)
        if not self._silent:
            with observing(nn.Identity(), ()):  # reading may draw random numbers, as a DataLoader does
                self._instrument.probe_set = ProbeSet.of(data, examples)
                self._instrument.targets = target_probe_sets(targets, examples, labels, preset)
        self._due: int | None = None
        self.seed, self._owns_writer = seed, run is not None
        refuse_what_cannot_be_measured(model, self.blocks, mode)  # by every process, or the others wait
        if self._silent:
            return
        check_labels(labels, samples, seed)
        find_output(unwrapped(model), output)
        if self.ready:
            self.prove()
        if run is not None:
            start = {
                **self.start_record(),
                "factors": described(
                    {**({"source": source, "targets": list(targets)} if source else {}), **(factors or {})}
                ),
                "seeds": described({"probe": seed, **(seeds or {})}),
            }
            self.writer = JournalWriter.open(Path(run), start, resumed_from_step, fsync)
        left_out = unmeasured(model, self.blocks)
        if left_out:
            self.note(resumed_from_step or 0, not_measured(left_out), aloud=blocks is None)

    # -- what is measured -------------------------------------------------------------------------------------------

    @property
    def model(self) -> nn.Module:
        return self._instrument.model

    @property
    def blocks(self) -> Sequence[Block]:
        return self._instrument.blocks

    @property
    def probe_set(self) -> ProbeSet:
        """Of the source language, or of the only one."""
        return self._instrument.probe_set

    @property
    def targets(self) -> Mapping[str, ProbeSet]:
        """The probe sets of the target languages."""
        return self._instrument.targets

    @property
    def ready(self) -> bool:
        """Are there examples to measure?"""
        return bool(self.probe_set.batches)

    @property
    def examples_per_probe(self) -> int:
        """How many examples every probe measures, over all languages."""
        return self.probe_set.examples + sum(target.examples for target in self.targets.values())

    @property
    def identity(self) -> dict[str, Any]:
        """What the numbers are called in the journal."""
        return self._instrument.identity

    def prove(self) -> None:
        """Measures a batch of every kind, once: raises what is wrong with the input (`Instrument.prove`)."""
        self._instrument.prove()

    def start_record(self) -> dict[str, Any]:
        """What the tracker knows of a journal's start record: `blocks`, `estimator`, `device`."""
        return {
            "blocks": {block.name: block.size for block in self.blocks},
            "estimator": self.identity,
            "device": str(next(iter(self.blocks[0].parameters.values())).device),
        }

    # -- where it goes ----------------------------------------------------------------------------------------------

    @property
    def writer(self) -> JournalWriter | LateJournal | None:
        """The journal; set it when it is opened after the tracker was made."""
        return self._destinations.writer

    @writer.setter
    def writer(self, writer: JournalWriter | LateJournal | None) -> None:
        self._destinations.writer = writer

    @property
    def reporters(self) -> list["Reporter"]:
        """Dashboards; may be set later, like `writer`."""
        return self._destinations.reporters

    @reporters.setter
    def reporters(self, reporters: list["Reporter"]) -> None:
        self._destinations.reporters = reporters

    # -- how far it is ----------------------------------------------------------------------------------------------

    @property
    def overhead(self) -> float | None:
        """Seconds spent on probes per second of training so far; None before any training."""
        return self._progress.overhead

    @property
    def seconds(self) -> float:
        """Of training so far: without probes, and without what `leave_out` was told of."""
        return self._progress.spent.training

    @property
    def last_step(self) -> int:
        """The step the tracker was last told of."""
        return self._progress.last_step

    def leave_out(self, seconds: float) -> None:
        """So many seconds just past were not training (an evaluation): the overhead is not measured against them."""
        self._progress.leave_out(seconds)

    @property
    def trouble(self) -> str | None:
        """What went wrong so far, in words."""
        if self.off:
            return self.off
        lost = self._prober.lost
        count = f"{lost} probes were" if lost > 1 else "a probe was"
        return f"{count} lost, the last because of {self._prober.last_lost}" if lost else None

    # -- what a training calls --------------------------------------------------------------------------------------

    @guarded
    def step(self, step: int) -> FisherEstimate | None:
        """Call before every update, with the number of completed ones: probes if it is time to.

        Returns the estimate, or None when it was not time or the probe was lost.
        """
        self._at(step)
        if self._silent or not (
            self._clock.due(step, self._progress.spent) or step in self._prober.diagonals
        ):
            return None
        if not self.ready:
            self._due = step
            return None
        return self._prober.all_languages(step)

    @guarded
    def catch_up(self) -> FisherEstimate | None:
        """Call before the optimizer's step: the probe that `step` could not take, because nothing had been fed yet, is
        taken now. The weights are still those of its step."""
        if self._due is None or not self.ready:
            return None
        due, self._due = self._due, None
        return self._prober.all_languages(due)

    def measure(self, step: int, examples: int | None = None, on: str = SOURCE) -> Scores:
        """The scores of all blocks at the present weights, of at least `examples` examples (if there are so many).

        The same weights are never measured twice: what `step` or an earlier call has measured is used again, and
        only what is missing is added. on="targets": of the target languages' examples, all of them together, instead
        of the source's. Raises `RuntimeError` if the probe fails: nobody can choose by nothing.
        """
        self._at(step)
        if not self.ready:
            raise RuntimeError(f"the blocks cannot be measured at step {step}: there are no examples here")
        self.prove()
        if on == TARGETS:
            return scores_of(self._prober.targets(step))
        estimate = self._prober.source(step, "select", self.probe_set.until(examples))
        if estimate is None:
            lost = self._instrument.known.lost
            raise RuntimeError(f"the blocks could not be measured at step {step}: {lost}")
        return scores_of(estimate)

    def rehearse(self) -> None:
        """All that a probe measures, written nowhere: for a forecast of its cost. Raises whatever goes wrong."""
        self._prober.rehearse()

    def note(
        self, step: int, text: str, *, level: str = "warning", shown: str | None = None, aloud: bool = True
    ) -> None:
        """A sentence for the journal, once; one that is more than information is said on standard error too."""
        self._destinations.note(step, text, level=level, shown=shown, aloud=aloud)

    def memory(self) -> dict[str, Any]:
        """What the next probe is compared with, as plain values: for a checkpoint, so that a resumed run says the
        same."""
        return self._records.memory() | {MEMORY: {"source": self._destinations.explosion.sums}}

    def remember(self, memory: dict[str, Any]) -> None:
        """Go on from the `memory` of an earlier attempt."""
        self._records.remember({language: kept for language, kept in memory.items() if language != MEMORY})
        self._destinations.explosion = Explosion(memory.get(MEMORY, {}).get("source", ()))

    def failed(self, error: BaseException) -> None:
        """Called by the guard: something went wrong that is not the loss of a probe."""
        self.off = reason(error)
        text = f"tracking has stopped at step {self.last_step} and the training goes on: {self.off}"
        self.note(self.last_step, text, level="error")

    def close(
        self, status: str = "finished", *, error: str | None = None, best_step: int | None = None
    ) -> None:
        """End the journal (if the tracker opened it) and the reporters. Closing twice is allowed.

        status: finished, interrupted or failed; anything else is an `InputError`.
        """
        check_status(status)
        if isinstance(self.probe_set, FedExamples):
            self.probe_set.stop()
        if self._owns_writer and isinstance(self.writer, JournalWriter):
            self.writer.close(status, step=self.last_step, error=error, best_step=best_step)
        for reporter in self.reporters:
            reporter.close()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is None:
            self.close("finished")
        else:
            self.close(
                "interrupted" if kind is KeyboardInterrupt else "failed",
                error=f"{kind.__name__}: {said(error)}",
            )

    def _at(self, step: int) -> None:
        later = self._progress.at(step)
        if later is not None:
            text = (
                "a step is the number of updates completed since training began, not since the epoch began; the series "
                "of this run is not in order"
            )
            self.note(step, text, shown=f"step {step} was given after step {later}: {text}")
