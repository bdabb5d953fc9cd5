"""Tracker: probes a model while somebody else trains it, writes what it finds, and changes nothing.

A probe that fails (out of memory, weights that are not finite) costs that probe: the journal says what was lost and
why, and training goes on. Whatever can be known to fail is raised before the first step instead, by a trial on one
batch of every kind, when the tracker is made or the first examples are there.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from fishlens.errors import InputError, first_line
from fishlens.files import own_folder, writing
from fishlens.fisher import Block, FisherEstimate, estimate_fisher, merge
from fishlens.fisher.anatomy import unwrapped
from fishlens.fisher.batches import Batch
from fishlens.fisher.blocks import not_measured, unmeasured
from fishlens.fisher.comparison import (
    by_block,
    drift,
    histogram_table,
    histograms_of,
    overlaps,
    rank_overlaps,
)
from fishlens.fisher.fingerprint import Weights, weights_of
from fishlens.fisher.labels import check_labels
from fishlens.fisher.observe import observing
from fishlens.fisher.probe import NOTHING_SCORED
from fishlens.fisher.proof import Plan
from fishlens.fisher.refusals import refuse_what_cannot_be_measured
from fishlens.fisher.transfer import fetched
from fishlens.fisher.which_output import find_output
from fishlens.journal import JournalWriter
from fishlens.journal.records import check_status
from fishlens.schedules import Scores
from fishlens.schedules.base import SOURCE, TARGETS
from fishlens.tracking.clock import Clock, Spent, make_clock
from fishlens.tracking.explosion import MEMORY, Explosion
from fishlens.tracking.fed import FedExamples
from fishlens.tracking.guard import guarded, reason, say
from fishlens.tracking.languages import (
    InLanguage,
    nothing_beside,
    same_model,
    split_by_language,
    target_probe_sets,
)
from fishlens.tracking.late import LateJournal
from fishlens.tracking.measurement import (
    Measured,
    blocks_of,
    parameter_norms,
    scores_of,
    summed_up,
    unseen,
    weight_norms,
)
from fishlens.tracking.plain import described
from fishlens.tracking.probe_set import ProbeSet
from fishlens.tracking.processes import rank

if TYPE_CHECKING:
    from fishlens.tracking.reporters import Reporter

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
    in_language: `in_language("de")` is a context manager in which the model is ready for German (its language
        adapter active), and which restores what was before. Default: the model takes every language as it is.
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
        in_language: InLanguage = same_model,
        beside: Callable[[str | None, FisherEstimate], dict[str, Any]] = nothing_beside,
        examples_ids: Mapping[str | None, Sequence[str | int]] | None = None,
        languages_every: int | None = None,
    ):
        if run is not None and writer is not None:
            raise InputError("a tracker was given both run and writer; expected one of them")
        self.model = model
        self.blocks = blocks_of(model, blocks, head=head, embeddings=embeddings)
        self._in_language = in_language
        self._languages_every = languages_every
        self._beside = beside
        self._examples_ids = dict(examples_ids or {})
        self._explosion = Explosion()
        self._told: dict[str | None, int] = {}  # by language: of how many examples the journal has the ids
        self._histograms: dict[str | None, dict[str, torch.Tensor]] = {}  # of the probe before, by language
        # by language: at which weights it was measured last, and what was found (None: the probe was lost)
        self._on_targets: dict[str, tuple[Weights, FisherEstimate | None]] = {}
        self._of_source: FisherEstimate | None = None  # at the present step
        self._clock = make_clock(every)
        self._options: dict[str, Any] = {
            "labels": labels, "samples": samples, "granularity": granularity,
            "output": output, "seed": seed, "preset": preset, "mode": mode, "autocast": autocast,
        }  # fmt: skip
        self._silent = rank() > 0 and writer is None
        source, data, targets = split_by_language(data)
        self.probe_set, self.targets = ProbeSet([], None), {}
        if not self._silent:
            with observing(nn.Identity(), ()):  # reading may draw random numbers, as a DataLoader does
                self.probe_set = ProbeSet.of(data, examples)
                self.targets = target_probe_sets(targets, examples, labels, preset)
        self._effective_dimension = effective_dimension and granularity == "example"
        self._noise_scale = noise_scale
        self._diagonals = frozenset(diagonals)
        self.reporters = list(reporters)
        self._spent = Spent()
        self._began: float | None = None
        self._left_out = 0.0
        self._training_seconds = training_seconds
        self._last = Measured(None)
        self._plan = Plan()
        self._first_step: int | None = None
        self._last_step = 0
        self._due: int | None = None
        self._said: set[str] = set()
        self._probes_lost, self._last_lost = 0, ""
        self._identity: dict[str, Any] | None = None
        self.writer, self.seed = writer, seed
        self._owns_writer = run is not None
        refuse_what_cannot_be_measured(model, self.blocks, mode)  # by every process, or the others wait
        if self._silent:
            return
        check_labels(labels, samples, seed)
        find_output(unwrapped(model), output)
        if self.probe_set.batches:
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

    @property
    def ready(self) -> bool:
        """Are there examples to measure?"""
        return bool(self.probe_set.batches)

    def prove(self) -> None:
        """Measures a batch of every kind, once: raises what is wrong with the input, and learns what the numbers are
        called. What is proved about the model here need not be proved again by the probes (`Plan`)."""
        if self._identity is not None:
            return
        kinds = self.probe_set.kinds()
        first = next((batch for batch in (*kinds, *self.probe_set.batches) if batch.scored), kinds[0])
        meta = self._estimate([first], 0).meta
        if NOTHING_SCORED in meta["notes"]:
            raise InputError(f"the probe set measures nothing: {NOTHING_SCORED}")
        self._options["output"] = meta["output"]  # what the labels mean never changes under way
        for batch in kinds:
            if batch is not first:
                self._estimate([batch], 0)
        for language, probe_set in self.targets.items():
            try:
                with self._in_language(language):
                    for batch in probe_set.kinds():
                        self._estimate([batch], 0)
            except InputError as error:
                raise InputError(f"language {language!r}: {error}") from error
        self._identity = {
            **{key: meta[key] for key in IDENTITY},
            "output_from": meta["output_from"],
            "examples": self.probe_set.examples,
        }

    @property
    def trouble(self) -> str | None:
        """What went wrong so far, in words."""
        if self.off:
            return self.off
        count = f"{self._probes_lost} probes were" if self._probes_lost > 1 else "a probe was"
        return f"{count} lost, the last because of {self._last_lost}" if self._probes_lost else None

    @property
    def identity(self) -> dict[str, Any]:
        """What the numbers are called in the journal."""
        if self._identity is None:
            raise RuntimeError("nothing has been measured yet")
        return self._identity

    def start_record(self) -> dict[str, Any]:
        """What the tracker knows of a journal's start record: `blocks`, `estimator`, `device`."""
        return {
            "blocks": {block.name: block.size for block in self.blocks},
            "estimator": self.identity,
            "device": str(next(iter(self.blocks[0].parameters.values())).device),
        }

    @property
    def overhead(self) -> float | None:
        """Seconds spent on probes per second of training so far; None before any training."""
        training = self._spent_now().training
        trained = self._first_step is not None and self._last_step > self._first_step
        return self._spent.probes / training if trained and training > 0 else None

    @property
    def seconds(self) -> float:
        """Of training so far: without probes, and without what `leave_out` was told of."""
        return self._spent_now().training

    @property
    def last_step(self) -> int:
        """The step the tracker was last told of."""
        return self._last_step

    def leave_out(self, seconds: float) -> None:
        """So many seconds just past were no training (an evaluation): the overhead is not measured against them."""
        self._left_out += seconds

    @guarded
    def step(self, step: int) -> FisherEstimate | None:
        """Call before every update, with the number of completed ones: probes if it is time to.

        Returns the estimate, or None when it was not time or the probe was lost.
        """
        self._at(step)
        if self._silent or not (self._clock.due(step, self._spent_now()) or step in self._diagonals):
            return None
        if not self.ready:
            self._due = step
            return None
        return self._probe_all(step)

    @guarded
    def catch_up(self) -> FisherEstimate | None:
        """Call before the optimizer's step: the probe that `step` could not take, because nothing had been fed yet, is
        taken now. The weights are still those of its step."""
        if self._due is None or not self.ready:
            return None
        due, self._due = self._due, None
        return self._probe_all(due)

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
            return scores_of(self._measured_on_targets(step))
        estimate = self._probe(step, "select", self.probe_set.until(examples))
        if estimate is None:
            raise RuntimeError(f"the blocks could not be measured at step {step}: {self._last.lost}")
        return scores_of(estimate)

    @property
    def examples_per_probe(self) -> int:
        """How many examples every probe measures, over all languages."""
        return self.probe_set.examples + sum(target.examples for target in self.targets.values())

    def rehearse(self) -> None:
        """All that a probe measures, written nowhere: for a forecast of its cost. Raises whatever goes wrong."""
        self._last = Measured(None)
        self._describe(self._measured(self.probe_set.base), -1, "track")
        for language, probe_set in self.targets.items():
            with self._in_language(language):
                estimate = self._estimate(probe_set.batches[: probe_set.base], 0)
                self._describe(estimate, -1, "track", language)
        self._last = Measured(None)
        self._histograms, self._told = {}, {}

    def _measured_on_targets(self, step: int) -> FisherEstimate:
        if not self.targets:
            raise InputError("the schedule scores blocks on target languages, but the tracker was given none")
        weights = weights_of(self.model, step)
        for language in self.targets:
            if not weights.same_as(self._on_targets.get(language, (None, None))[0]):
                self._probe_target(weights, language, "select")
        estimates = [self._on_targets[language][1] for language in self.targets]
        there = [estimate for estimate in estimates if estimate is not None]
        if len(there) < len(estimates):
            raise RuntimeError(f"the blocks could not be measured in every target language at step {step}")
        return merge(there)

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
            self.writer.close(status, step=self._last_step, error=error, best_step=best_step)
        for reporter in self.reporters:
            reporter.close()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is None:
            self.close("finished")
        else:
            self.close(
                "interrupted" if kind is KeyboardInterrupt else "failed", error=f"{kind.__name__}: {error}"
            )

    # -- one probe --------------------------------------------------------------------------------------------------

    def _at(self, step: int) -> None:
        if self._began is None or self._first_step is None:
            self._began, self._first_step = time.perf_counter(), step
        if step < self._last_step:
            text = (
                "a step is the number of updates completed since training began, not since the epoch began; the series "
                "of this run is not in order"
            )
            self.note(step, text, shown=f"step {step} was given after step {self._last_step}: {text}")
        self._last_step = step

    def note(
        self, step: int, text: str, *, level: str = "warning", shown: str | None = None, aloud: bool = True
    ) -> None:
        """A sentence for the journal, once; one that is more than information is said on standard error too."""
        if text in self._said:
            return
        self._said.add(text)
        if aloud and level != "info":
            say(shown or text)
        if self.writer is not None:
            self.writer.write("note", step, level=level, text=shown or text)

    def failed(self, error: BaseException) -> None:
        """Called by the guard: something went wrong that is not the loss of a probe."""
        self.off = reason(error)
        text = f"tracking has stopped at step {self._last_step} and the training goes on: {self.off}"
        self.note(self._last_step, text, level="error")

    def _probe_all(self, step: int) -> FisherEstimate | None:
        """The probe of a step: of the source, and of every target language."""
        self._of_source = estimate = self._probe(step, "track", self.probe_set.base)
        assert self._last.weights is not None
        if self._languages_every is None or step % self._languages_every == 0:
            for language in self.targets:
                self._probe_target(self._last.weights, language)
        self._of_source = None
        return estimate

    def _probe(self, step: int, purpose: str, batches: int) -> FisherEstimate | None:
        """Measure the first `batches` batches, or use what was measured, and write a record of it."""
        weights = weights_of(self.model, step)
        if not weights.same_as(self._last.weights):
            self._last = Measured(weights)
        if purpose == "select" and batches in self._last.estimates:
            return self._last.estimates[batches]  # the unfreeze record will hold the scores
        estimate, fields = self._attempt(
            lambda: self._measured(batches),
            lambda found: self._describe(found, step, purpose),
            nullcontext,
            step,
            blame=lambda error: self._blame(error, batches),
        )
        last = fields["seconds"] if purpose == "track" else max(fields["seconds"], self._spent.last_probe)
        self._spent = Spent(self._spent.probes + fields["seconds"], last)
        self._last.lost = fields["lost"]
        self._write(step, {**fields, "purpose": purpose})
        for note in summed_up(estimate.meta["notes"]) if estimate is not None else ():
            self.note(step, note, level="info")
        return estimate

    def _probe_target(self, weights: Weights, language: str, purpose: str = "track") -> None:
        """Measure in a target language, and write a record of it: a part of the same probe, for the budget too."""
        step = weights.step

        def measure() -> FisherEstimate:
            probe_set = self.targets[language]
            return self._estimate(probe_set.batches[: probe_set.base], 0)

        def prepared() -> AbstractContextManager[Any]:
            return self._in_language(language)

        estimate, fields = self._attempt(
            measure,
            lambda found: self._describe(found, step, purpose, language),
            prepared,
            step,
            f" in {language!r}",
        )
        seconds = fields["seconds"]
        last = self._spent.last_probe + seconds if purpose == "track" else self._spent.last_probe
        self._spent = Spent(self._spent.probes + seconds, last)
        self._on_targets[language] = (weights, estimate)
        self._write(step, {**fields, "purpose": purpose, "language": language})

    def _attempt(
        self,
        measure: Callable[[], FisherEstimate],
        describe: Callable[[FisherEstimate], dict[str, Any]],
        prepared: Callable[[], AbstractContextManager[Any]],
        step: int,
        of: str = "",
        blame: Callable[[Exception], str] = lambda error: "",
    ) -> tuple[FisherEstimate | None, dict[str, Any]]:
        """(estimate, a record's fields with what it cost); whatever goes wrong costs this probe alone."""
        began = time.perf_counter()
        estimate, lost = None, None
        trainable = {block.name: block.trainable for block in self.blocks}
        parameters = [p for block in self.blocks for p in block.parameters.values()]
        try:
            # what `in_language` and `beside` do to random states and flags is undone as well
            with observing(self.model, parameters, "unchanged"), prepared():
                estimate = measure()
                fields = {"trainable": trainable, **describe(estimate)}
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()
            estimate, lost = None, f"{type(error).__name__}: {first_line(error)}{blame(error)}"
            self._probes_lost, self._last_lost = self._probes_lost + 1, lost
            fields = {"trace": {}, "examples": 0}
            self._say_lost(step, of, lost)
        return estimate, {**fields, "seconds": time.perf_counter() - began, "lost": lost}

    def _blame(self, error: Exception, batches: int) -> str:
        """Which batch of the probe set is to blame for an error, if one is."""
        if batches == 1 or isinstance(error, torch.OutOfMemoryError | MemoryError):
            return ""
        for number, batch in enumerate(self.probe_set.batches[:batches], start=1):
            try:
                self._estimate([batch], 0)
            except Exception:
                return f" (batch {number} of the probe set's {batches})"
        return ""

    def _say_lost(self, step: int, of: str, lost: str) -> None:
        """On standard error, once for a reason: the journal has every lost probe."""
        if lost + of not in self._said:
            self._said.add(lost + of)
            say(f"the probe at step {step}{of} is lost, training goes on: {lost}")

    def _measured(self, batches: int) -> FisherEstimate:
        """The estimate of the first `batches` batches at the present weights: the base, and what comes on top of it."""
        known = self._last.estimates
        if batches in known:
            return known[batches]
        start = max((count for count in known if count < batches), default=0)
        if start < self.probe_set.base < batches:
            self._measured(self.probe_set.base)
            start = self.probe_set.base
        more = self._estimate(self.probe_set.batches[start:batches], self.probe_set.examples_in(start))
        known[batches] = merge([known[start], more]) if start else more
        return known[batches]

    def _estimate(self, batches: Sequence[Batch], first_example: int) -> FisherEstimate:
        with unseen():
            return estimate_fisher(
                self.model,
                batches,
                blocks=self.blocks,
                diagonal=self._effective_dimension or bool(self._diagonals),
                first_example=first_example,
                plan=self._plan,
                **self._options,
            )

    def _describe(
        self, estimate: FisherEstimate, step: int, purpose: str, language: str | None = None
    ) -> dict[str, Any]:
        """A record's fields but for what the probe cost."""
        waiting = {"norms": parameter_norms(self.blocks)}
        if purpose == "track":
            waiting |= self._compared(estimate, language)
        here = fetched(waiting)
        fields: dict[str, Any] = {
            "trace": estimate.trace,
            "stderr": estimate.stderr,
            "weight_norm": weight_norms(self.blocks, here["norms"]),
            "examples": estimate.examples,
            "diagonal": None,
        }
        if estimate.entropy is not None and estimate.confidence is not None:
            fields["entropy"] = float(np.nanmean(estimate.entropy.numpy()))
            fields["confidence"] = float(np.nanmean(estimate.confidence.numpy()))
        if purpose == "track":
            fields |= {**self._comparison(estimate, language, here), **self._beside(language, estimate)}
        if self._effective_dimension:
            fields["effective_dimension"] = estimate.effective_dimension
        if self._noise_scale and language is None:
            fields["noise_scale"] = self._noise_scales(estimate)
        if step in self._diagonals and purpose == "track":
            fields["diagonal"] = self._save_diagonal(estimate, step, language)
        identity = {**self.identity, **{key: estimate.meta[key] for key in IDENTITY}}
        changed = [
            f"{key} from {self.identity[key]!r} to {identity[key]!r}"
            for key in IDENTITY
            if identity[key] != self.identity[key]
        ]
        if changed:
            raise InputError(
                f"what is measured has changed under way: {', '.join(changed)}; a new run can measure it"
            )
        identity["examples"] = estimate.examples
        if identity != self.identity:
            fields["estimator"] = identity
        return fields | self._ids(estimate.examples, language)

    def _ids(self, examples: int, language: str | None) -> dict[str, Any]:
        """Which examples were measured, where the journal does not say so yet: a smaller probe is the first of them."""
        ids = self._examples_ids.get(language)
        if not ids or examples <= self._told.get(language, 0):
            return {}
        self._told[language] = examples
        return {"examples_ids": list(ids[:examples])}

    def _compared(self, estimate: FisherEstimate, language: str | None) -> dict[str, list[torch.Tensor]]:
        """The diagonal beside the source's at this step, and its histograms: on the device."""
        if estimate.diagonal is None:
            return {}
        waiting = {"histograms": histogram_table(estimate.diagonal, estimate.parameters)}
        source = self._of_source.diagonal if self._of_source is not None else None
        if language is not None and source is not None:
            waiting["overlap"] = overlaps(source, estimate.diagonal, estimate.parameters)
            waiting["rank_overlap"] = rank_overlaps(source, estimate.diagonal, estimate.parameters)
        return waiting

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
        if language in self._histograms:
            fields["drift"] = drift(self._histograms[language], histograms)
        self._histograms[language] = histograms
        return fields

    def _noise_scales(self, estimate: FisherEstimate) -> dict[str, float] | None:
        batches = self.probe_set.batches[: self.probe_set.base]
        options = {**self._options, "labels": "empirical", "samples": 1, "preset": None}
        with unseen():
            return estimate_fisher(
                self.model, batches, blocks=self.blocks, noise_scale=True, plan=self._plan, **options
            ).noise_scale

    def memory(self) -> dict[str, Any]:
        """What the next probe is compared with, as plain values: for a checkpoint, so that a resumed run says the
        same."""
        return {
            language or "": {block: counts.tolist() for block, counts in histograms.items()}
            for language, histograms in self._histograms.items()
        } | {MEMORY: {"source": self._explosion.sums}}

    def remember(self, memory: dict[str, Any]) -> None:
        """Go on from the `memory` of an earlier attempt."""
        self._histograms = {
            language or None: {block: torch.tensor(counts) for block, counts in histograms.items()}
            for language, histograms in memory.items()
            if language != MEMORY
        }
        self._explosion = Explosion(memory.get(MEMORY, {}).get("source", ()))
        self._told = dict.fromkeys(self._histograms, self.probe_set.examples)

    def _save_diagonal(self, estimate: FisherEstimate, step: int, language: str | None) -> str | None:
        """The diagonal as safetensors, under its name only when it is whole; a refusing disk loses it, and says so."""
        if self.writer is None or self.writer.path is None or estimate.diagonal is None:
            return None
        name = f"diagonals/step-{step}{f'-{language}' if language else ''}.safetensors"
        final = self.writer.path.parent / name
        try:
            own_folder(final.parent)
            with writing(final) as beside:  # safetensors gives a file a mode of its own
                save_file({key: value.contiguous().cpu() for key, value in estimate.diagonal.items()}, beside)
        except Exception as error:  # safetensors has its own kinds for a refusing disk
            self.note(step, f"the diagonal of step {step} is lost: {first_line(error)}")
            return None
        return name

    def _write(self, step: int, fields: dict[str, Any]) -> None:
        fields["overhead"] = self.overhead
        if self.writer is not None:
            self.writer.write("fisher", step, **fields)
        if fields["purpose"] == "track":
            of = f"{fields['language']}/" if "language" in fields else ""
            values = {f"fisher/{of}{block}": value for block, value in fields["trace"].items()}
            if fields["trace"]:
                name = "fisher_sum" if not of else f"fisher_sum/{fields['language']}"
                values[name] = sum(fields["trace"].values())
            for reporter in self.reporters:
                reporter.report(step, values | {"fisher_overhead": fields["overhead"] or 0.0})
            if fields["trace"] and not of:
                self._watch_for_explosion(step, fields["trace"])

    def _watch_for_explosion(self, step: int, trace: Mapping[str, float]) -> None:
        text = self._explosion.at(step, trace)
        if text is not None:
            self.note(step, text)
            for reporter in self.reporters:
                reporter.alert("tr(F) explodes", text)

    def _spent_now(self) -> Spent:
        if self._training_seconds is not None:
            training = self._training_seconds()
        else:
            since = 0.0 if self._began is None else time.perf_counter() - self._began
            training = since - self._spent.probes - self._left_out
        return Spent(self._spent.probes, self._spent.last_probe, max(training, 0.0))
