"""estimate_fisher: one forward pass, a few backward passes, and the model as it was before."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from fishlens import __version__
from fishlens.errors import InputError
from fishlens.fisher.again import modules_around
from fishlens.fisher.anatomy import unwrapped
from fishlens.fisher.batches import Batch, batches_of
from fishlens.fisher.blocks import Block, check_blocks, find_blocks, unmeasured
from fishlens.fisher.certainty import certainty
from fishlens.fisher.estimate import FisherEstimate, summarise
from fishlens.fisher.fallback import batch_gradients, one_at_a_time
from fishlens.fisher.forward import ambient_autocast, predict, taken_by
from fishlens.fisher.interrupts import stop_if_interrupted
from fishlens.fisher.labels import Draw, LabelSource, check_labels, choose_source
from fishlens.fisher.observe import collector_paused, observing, reading, undisturbed
from fishlens.fisher.outputs import BatchLogits, Output
from fishlens.fisher.passes import back_propagate
from fishlens.fisher.proof import SILENT, NotByModule, NotByOperation, Plan, Proof, Prover
from fishlens.fisher.refusals import refuse_what_cannot_be_measured
from fishlens.fisher.state import Forwards
from fishlens.fisher.sums import BlockSums, waiting_sums
from fishlens.fisher.tally import Tally
from fishlens.fisher.taps import ChangedInPlace, Taps, cloned_inputs
from fishlens.fisher.transfer import fetched
from fishlens.fisher.walk import walked_once
from fishlens.fisher.which_output import find_output

MEMORY = 256 * 2**20
NOTHING_SCORED = (
    "nothing is scored in any example: every label is −100, or every token masked; zero would mean nothing"
)
MODES = ("eval", "train", "unchanged")


@dataclass(frozen=True)
class Preset:
    """A named set of choices; `outputs` are the shapes for which it is defined.

    `published` is the procedure in the published code of Liu et al. (2024): the loss of the most likely
    labels, averaged over the batch (for QA over starts and ends alike, hence over twice the examples); its
    gradient squared and divided by the batch size; the *sum* over the first 41 batches.
    """

    labels: str
    granularity: str
    batches: int
    outputs: tuple[str, ...]


PRESETS = {
    "published": Preset("mode", "batch", 41, ("classification", "multiple_choice", "question_answering"))
}


def estimate_fisher(
    model: nn.Module,
    data: Any,
    *,
    blocks: Sequence[Block] | None = None,
    labels: str = "auto",
    samples: int = 1,
    granularity: str = "example",
    output: str = "auto",
    diagonal: bool = False,
    spectrum: bool = False,
    noise_scale: bool = False,
    seed: int = 0,
    preset: str | None = None,
    mode: str = "eval",
    autocast: torch.dtype | None = None,
    memory: int = MEMORY,
    max_passes: int = 64,
    first_example: int = 0,
    plan: Plan | None = None,
) -> FisherEstimate:
    """Fisher information of every block of `model` on `data`, with standard errors.

    `data`: a batch (a mapping of tensors as the model takes them, a tensor, or a pair of inputs and
    labels), or an iterable of batches, which is streamed. `blocks`: from `find_blocks` (the default,
    `find_blocks(model)`). `labels`: `exact`, `mc` (with `samples` draws), `empirical`, `mode`, or `auto`
    (`exact` up to five classes, else `mc`). `granularity`: `example`, or `batch` for the squared batch-mean
    gradient over the batch size. `output`: the output shape, told from the model by default. `diagonal`,
    `spectrum`, `noise_scale`: what else to return. `preset="published"`: as the published code of Liu et
    al. (2024) does it. `mode`: `eval`, `train`, or `unchanged`. `autocast`: run the forward pass under autocast
    in this dtype; squares are float32 in any case. `memory`: bytes that materialised per-example gradients
    of one parameter may take. `first_example`: the position of the first example in its stream; `mc` labels
    depend on it and on `seed`, not on how the stream is cut into batches. `plan`: a `Plan()` that you keep and
    pass again with the same model and blocks: what was proved about them is not proved again.

    The model is the same afterwards in every respect (see `observe`). Raises `InputError` on bad input.
    """
    if torch.is_inference_mode_enabled():
        raise InputError(
            "the Fisher information is made of gradients, which torch.inference_mode() rules out; measure outside of it"
        )
    if preset is not None:
        if preset not in PRESETS:
            raise InputError(f"preset={preset!r} is unknown; expected one of {', '.join(PRESETS)}")
        if labels not in ("auto", PRESETS[preset].labels):
            raise InputError(
                f"preset={preset!r} measures with labels={PRESETS[preset].labels!r}, not {labels!r}; leave labels out"
            )
        labels, granularity = PRESETS[preset].labels, PRESETS[preset].granularity
    check_labels(labels, samples, seed)
    check_choices(granularity, labels, mode, spectrum, noise_scale)
    model = unwrapped(model)
    plan = Plan() if plan is None else plan
    with walked_once(model, plan.tree) as plan.tree:
        plan.tree.look()
        blocks = find_blocks(model) if blocks is None else check_blocks(blocks)
        refuse_what_cannot_be_measured(model, blocks, mode)
        probe = Probe(
            model=model,
            blocks=list(blocks),
            output=find_output(model, output),
            labels=labels,
            samples=samples,
            seed=seed,
            max_passes=max_passes,
            granularity=granularity,
            autocast=autocast,
            preset=preset,
            mode=mode,
            unmeasured=unmeasured(model, blocks),
            plan=plan,
            tally=Tally(blocks, diagonal=diagonal, spectrum=spectrum, mean=noise_scale, memory=memory),
        )
        limit = PRESETS[preset].batches if preset else None
        parameters = [p for block in blocks for p in block.parameters.values()]
        with undisturbed(), probe.unchanged(), observing(model, parameters, mode), reading(data):
            if mode == "train":
                torch.manual_seed(seed)
            for batch in islice(batches_of(data), limit):
                with collector_paused():
                    probe.measure(batch, first_example)
                first_example += batch.size
        return probe.finish()


def prove(model: nn.Module, blocks: Sequence[Block], batch: Batch, output: Output) -> Proof:
    """How each parameter is measured with this batch; call it inside `observing`."""
    probe = Probe(
        model=model,
        blocks=list(blocks),
        output=output,
        labels="auto",
        samples=1,
        seed=0,
        max_passes=0,
        granularity="example",
        autocast=None,
        preset=None,
        mode="eval",
        unmeasured=[],
        tally=Tally(blocks, diagonal=False, spectrum=False, mean=False, memory=MEMORY),
        plan=Plan(),
    )
    with probe.unchanged():
        return probe.proof_of(batch.to(probe.device))[2]


def check_choices(
    granularity: str, labels: str, mode: str = "eval", spectrum: bool = False, noise_scale: bool = False
) -> None:
    """`InputError` unless these can be measured together."""
    if granularity not in ("example", "batch"):
        raise InputError(f"granularity={granularity!r} is unknown; expected 'example' or 'batch'")
    if mode not in MODES:
        raise InputError(f"mode={mode!r} is unknown; expected one of {', '.join(map(repr, MODES))}")
    if granularity == "batch" and labels in ("exact", "auto"):
        raise InputError(
            f"granularity='batch' squares the gradient of one set of labels, which labels={labels!r} "
            "does not have; use 'mc', 'empirical' or 'mode'"
        )
    if granularity == "batch" and spectrum:
        raise InputError(
            "spectrum=True needs granularity='example'; one gradient per batch has no spectrum to show"
        )
    if noise_scale and (granularity, labels) != ("example", "empirical"):
        raise InputError(
            f"noise_scale=True is about the gradient of the data's loss: it needs labels='empirical' and "
            f"granularity='example', not {labels!r} and {granularity!r}"
        )


@dataclass
class Probe:
    """One estimate in the making: measures batch after batch into its tally."""

    model: nn.Module
    blocks: list[Block]
    output: Output
    labels: str
    samples: int
    seed: int
    max_passes: int
    granularity: str
    autocast: torch.dtype | None
    preset: str | None
    mode: str
    unmeasured: list[str]
    tally: Tally
    plan: Plan
    forwards: Forwards = field(init=False)
    source: LabelSource | None = None
    scored: torch.Tensor | None = None
    left_out: frozenset[str] = frozenset()
    passes: int = 0
    certainties: list[torch.Tensor | None] = field(default_factory=list)
    ambient: torch.dtype | None = None
    one_by_one: dict[str, str] = field(default_factory=dict)  # parameter -> why
    unused: frozenset[str] = frozenset()
    notes: dict[str, None] = field(default_factory=dict)  # in order, each once

    def __post_init__(self) -> None:
        self.parameters = {n: p for block in self.blocks for n, p in block.parameters.items()}
        self.device = next(iter(self.parameters.values())).device
        if self.preset is not None and self.output.name not in PRESETS[self.preset].outputs:
            known = ", ".join(PRESETS[self.preset].outputs)
            raise InputError(
                f"preset={self.preset!r} is not defined for {self.output.name}; expected one of {known}"
            )

    def measure(self, batch: Batch, first: int) -> None:
        """Adds the examples of one batch, the first of which is number `first` of the stream."""
        batch = batch.to(self.device)
        self.left_out |= batch.inputs.keys() - taken_by(self.model, batch.inputs).keys()
        if self.granularity == "batch":
            self._measure_batch_gradient(batch, first)
            return
        taps, prediction, proof = self.proof_of(batch)
        self.certainties.append(certainty(prediction))
        draw = self._draw(prediction, batch, first)
        self.tally.start(prediction.logits, batch.size, draw)
        half = self._half(prediction, taps.autocast)
        missing = back_propagate(
            taps,
            prediction.logits,
            draw.cotangents,
            draw.passes,
            proof.fast,
            self.tally.add,
            half,
            self.together,
        )
        slow = {**proof.slow, **dict.fromkeys(missing, SILENT)}
        if slow:
            chosen = {name: self.parameters[name] for name in slow}
            one_at_a_time(self.predict, self._draw, batch, first, chosen, self.tally.add, half)
        self.tally.end(batch.size)
        self._remember(proof, slow)

    @property
    def together(self) -> int:
        """Bytes that the gradients of several parameters may take at a time; 0: each is reduced alone."""
        return self.tally.memory if self.tally.takes_many else 0

    def proof_of(self, batch: Batch) -> tuple[Taps, BatchLogits, Proof]:
        """A forward pass with taps on the leaves, and which parameters they may measure."""
        taps, prediction = self._forward(batch)
        prover = Prover(self.predict, self.model, self.blocks, self.parameters, self.plan, self.together)
        try:
            return taps, prediction, prover.prove(taps, prediction, batch)
        except ChangedInPlace:
            self._keep_inputs()
            return self.proof_of(batch)
        except NotByModule as found:
            self.plan.loose |= found.names
            return self.proof_of(batch)
        except NotByOperation as found:
            inside = {name: self.parameters[name] for name in found.names}
            self.plan.look_further(found.names, modules_around(self.model, inside))
            return self.proof_of(batch)

    def _forward(self, batch: Batch) -> tuple[Taps, BatchLogits]:
        rows = self.output.rows_per_example(batch.inputs)
        plan, run = self.plan, self.forwards.run
        taps = Taps(
            self.model,
            self.parameters,
            batch.size,
            rows,
            batch.tokens,
            self.mode,
            plan.loose,
            follow=not plan.proofs,
            again=plan.again,
            run=run,
        )
        with taps:
            return taps, self.predict(batch)

    def _keep_inputs(self) -> None:
        """From now on modules are called with copies, because the model changes their inputs in place."""
        if self.plan.keeps_inputs:
            raise InputError(
                "the model changes a tensor in place that the gradient of a measured block needs; expected it to "
                "be left as it is (x = x + y instead of x += y)"
            )
        self.plan.keeps_inputs = True

    def _remember(self, proof: Proof, slow: Mapping[str, str]) -> None:
        self.one_by_one = {**slow, **self.one_by_one}
        self.unused = proof.unused if self.tally.batches == 1 else self.unused & proof.unused
        self.notes |= dict.fromkeys(proof.notes)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Inside, the model may run; afterwards what its forward changed by itself is as before."""
        self.forwards = Forwards(self.model, self.plan.writes)
        try:
            yield
        finally:
            self.plan.writes = self.forwards.restore()
        self.forwards.check()

    def predict(self, batch: Batch) -> BatchLogits:
        stop_if_interrupted()
        keeping = cloned_inputs(self.model, self.parameters) if self.plan.keeps_inputs else nullcontext()
        with keeping:
            return self.forwards.run(lambda: predict(self.model, self.output, batch, self.autocast))

    def _half(self, prediction: BatchLogits, ambient: torch.dtype | None) -> bool:
        """Whether float16 takes part in the backward pass; remembers in what precision the forward pass was."""
        self.ambient = self.autocast or ambient or self.ambient
        kinds = {prediction.logits.dtype, self.ambient, *(p.dtype for p in self.parameters.values())}
        return torch.float16 in kinds

    def _draw(self, prediction: BatchLogits, batch: Batch, first: int) -> Draw:
        if self.source is None:
            self.source = choose_source(self.labels, self.samples, self.seed, self.max_passes, prediction)
        draw = self.source.draw(prediction, batch.labels, self.output, first)
        self.passes = max(self.passes, draw.passes)
        if draw.scored is not None:
            self.scored = draw.scored if self.scored is None else self.scored | draw.scored
        return draw

    def _measure_batch_gradient(self, batch: Batch, first: int) -> None:
        prediction = self.predict(batch)
        self.certainties.append(certainty(prediction))
        draw = self._draw(prediction, batch, first)
        self.tally.start(prediction.logits, 1, draw)
        half = self._half(prediction, ambient_autocast(prediction.logits.device))
        terms = batch.size * (1 if self.preset is None else prediction.logits.shape[1])
        batch_gradients(
            prediction.logits, draw, self.parameters, terms * batch.size**0.5, self.tally.add, half
        )
        self.tally.end(batch.size)

    def finish(self) -> FisherEstimate:
        """The estimate; the one transfer from the device happens here."""
        if not self.tally.batches:
            raise InputError("data has no batches; expected at least one example")
        over = "examples" if self.granularity == "example" else "batches"
        normalisation = f"mean over {over}"
        if self.preset is not None:
            self.tally.scale, normalisation = self.tally.batches, "sum over batches"
        self.tally.finish()
        both = (self.tally.squares, self.tally.sums)
        diagonal, mean_gradient = (None if sums is None else sums.parts for sums in both)
        groups = [None if sums is None else sums.groups for sums in both]
        parameters = {block.name: tuple(block.parameters) for block in self.blocks}
        waiting = fetched(
            {
                "tally": self.tally.waiting,
                "certainties": [each for each in self.certainties if each is not None],
                "scored": self.scored,
                "sums": waiting_sums(groups),
            }
        )
        table = self.tally.per_example(waiting["tally"])
        trace, stderr = summarise(parameters, table)
        assert self.source is not None
        notes = [*self.notes]
        notes += [
            f"{name}: {why}; measured one example at a time" for name, why in sorted(self.one_by_one.items())
        ]
        notes += [
            f"{name}: the output does not depend on it; its Fisher is zero" for name in sorted(self.unused)
        ]
        notes += [f"{key}: the model's forward does not take it; left out" for key in sorted(self.left_out)]
        if self.scored is not None and not waiting["scored"]:
            notes.append(NOTHING_SCORED)
        if self.tally.examples == 1:
            notes.append("one example has no standard error")
        dtype = str(next(iter(self.parameters.values())).dtype).removeprefix("torch.")
        meta = {
            "labels": self.source.name,
            "samples": self.samples if self.source.name == "mc" else 1,
            "granularity": self.granularity,
            "examples": self.tally.examples,
            "batches": self.tally.batches,
            "mode": self.mode,
            "dtype": dtype
            if self.ambient is None
            else f"{dtype} autocast {self.ambient}".replace("torch.", ""),
            "seed": self.seed,
            "blocks": ", ".join(dict.fromkeys(block.defined_by for block in self.blocks)),
            "normalisation": normalisation,
            "preset": self.preset,
            "output": self.output.name,
            "output_from": self.output.decided_by,
            "passes": self.passes,
            "version": __version__,
            "notes": notes,
            "unmeasured": self.unmeasured,
        }
        certainties = waiting["certainties"]
        entropy, confidence = (
            torch.from_numpy(np.concatenate(certainties, axis=1).astype(float))
            if certainties
            else (None, None)
        )
        return FisherEstimate(
            entropy=entropy,
            confidence=confidence,
            trace=trace,
            stderr=stderr,
            per_example=dict(zip(parameters, torch.from_numpy(table).unbind(0), strict=True)),
            meta=meta,
            diagonal=diagonal,
            mean_gradient=mean_gradient,
            spectrum=self.tally.spectrum(),
            parameters=parameters,
            sums=BlockSums.of(parameters, groups, waiting["sums"]),
        )
