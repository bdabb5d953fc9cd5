"""Where labels come from: exact, mc, empirical, mode. Each gives the cotangents to back-propagate."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fishlens.errors import InputError
from fishlens.fisher.outputs import BatchLogits, Output

SOURCES = ("exact", "mc", "empirical", "mode")
EXACT_UP_TO = 4
"""`auto` takes `exact` up to this many backward passes a batch (five classes), `mc` beyond."""

Targets = tuple[Tensor, Tensor]
"""Labels, and the mask `[N, M]` of those that count."""


@dataclass(frozen=True)
class Draw:
    """The cotangents of one batch: `passes` tensors shaped like the logits, each weighing 1/`samples`.

    `invalid` (a scalar tensor or None) says that a label was out of range, `scored` whether there is any
    label at all; both are looked at when the probe ends.
    """

    cotangents: Iterator[Tensor]
    passes: int
    samples: int = 1
    invalid: Tensor | None = None
    scored: Tensor | None = None


class LabelSource(ABC):
    """The contract: labels for the examples `first, first + 1, …` of a stream.

    A source either names labels (`targets`), or, like `exact`, overrides `draw` with cotangents that belong
    to no single label.
    """

    name: str
    samples = 1
    in_range = True
    """Its labels are possible ones, of all that is scored; those in the data may be any."""

    @abstractmethod
    def targets(
        self, prediction: BatchLogits, labels: Mapping[str, Tensor], output: Output, first: int
    ) -> list[Targets]:
        """`samples` sets of labels for the batch."""

    def draw(self, prediction: BatchLogits, labels: Mapping[str, Tensor], output: Output, first: int) -> Draw:
        """The scores of the targets as cotangents."""
        family, logits = prediction.distribution, prediction.logits
        chosen = self.targets(prediction, labels, output, first)
        scores = (family.score(logits, *target) for target in chosen)
        if self.in_range:
            return Draw(scores, len(chosen), self.samples, scored=prediction.scored.any())
        invalid = torch.stack([family.out_of_range(logits, *target) for target in chosen]).any()
        scored = torch.stack([mask.any() for _, mask in chosen]).any()
        return Draw(scores, len(chosen), self.samples, invalid, scored)


@dataclass(frozen=True)
class Exact(LabelSource):
    """E over y ~ p(y | x), summed analytically."""

    max_passes: int
    name = "exact"

    def targets(
        self, prediction: BatchLogits, labels: Mapping[str, Tensor], output: Output, first: int
    ) -> list[Targets]:
        raise TypeError("the exact expectation belongs to no label")

    def draw(self, prediction: BatchLogits, labels: Mapping[str, Tensor], output: Output, first: int) -> Draw:
        passes = prediction.distribution.passes(prediction.logits, prediction.scored)
        if passes > self.max_passes:
            raise InputError(
                f"labels='exact' would cost {passes} backward passes a batch for this {output.name} output "
                f"(logits {list(prediction.logits.shape)}), more than max_passes={self.max_passes}; "
                "use labels='mc', which costs one per sample"
            )
        cotangents = prediction.distribution.exact(prediction.logits, prediction.scored)
        return Draw(cotangents, passes, scored=prediction.scored.any())


@dataclass(frozen=True)
class MonteCarlo(LabelSource):
    """`samples` labels y ~ p(y | x) per example.

    The random numbers of an example depend on the seed and its position in the stream alone (a
    counter-based generator), and those of a token on its rank among the scored ones: neither batch size nor
    padding changes them.
    """

    seed: int
    samples: int = 1
    name = "mc"

    def targets(
        self, prediction: BatchLogits, labels: Mapping[str, Tensor], output: Output, first: int
    ) -> list[Targets]:
        noise = self._noise(prediction, first)
        family = prediction.distribution
        return [
            (family.sample(prediction.logits, noise[:, :, s]), prediction.scored) for s in range(self.samples)
        ]

    def _noise(self, prediction: BatchLogits, first: int) -> Tensor:
        """What the distribution draws from, `[N, M, S, numbers a variable needs]`."""
        count, variables, classes = prediction.logits.shape
        shape = (variables, self.samples, prediction.distribution.numbers(classes))
        drawn = (_kept if count * math.prod(shape) <= FEW else uniforms)(self.seed, first, count, shape)
        # some devices do not have float64
        dtype = np.float64 if prediction.logits.dtype == torch.float64 else np.float32
        noise = prediction.distribution.noise(drawn).astype(dtype)
        on_device = torch.from_numpy(noise).to(prediction.logits.device, non_blocking=True)
        if variables == 1:
            return on_device
        rank = (prediction.scored.cumsum(1) - 1).clamp(min=0)
        return on_device.gather(1, rank[:, :, None, None].expand(-1, -1, *shape[1:]))


def uniforms(seed: int, first: int, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform numbers, `[count, *shape]`, of a stream of its own for every example: the example is the top word of the
    generator's counter."""
    streams = (np.random.Philox(key=seed, counter=[0, 0, 0, first + n]) for n in range(count))
    drawn = np.stack([np.random.Generator(stream).random(shape) for stream in streams])
    drawn.flags.writeable = False
    return drawn


FEW = 2**12
_kept = lru_cache(maxsize=256)(uniforms)  # a tracker draws the same ones with every probe


class Empirical(LabelSource):
    """The data's own labels."""

    name = "empirical"
    in_range = False

    def targets(
        self, prediction: BatchLogits, labels: Mapping[str, Tensor], output: Output, first: int
    ) -> list[Targets]:
        targets, scored = output.observed(labels, prediction)
        if len(targets) != len(prediction.logits):
            raise InputError(
                f"there are {len(targets)} labels for {len(prediction.logits)} examples; expected one each"
            )
        return [(targets, scored)]


class Mode(LabelSource):
    """The most likely label, as in the paper's published code."""

    name = "mode"

    def targets(
        self, prediction: BatchLogits, labels: Mapping[str, Tensor], output: Output, first: int
    ) -> list[Targets]:
        family = prediction.distribution
        if not family.has_mode:
            raise InputError(
                f"labels='mode' is zero for every {output.name} model; use 'exact', 'mc' or 'empirical'"
            )
        return [(family.mode(prediction.logits), prediction.scored)]


def choose_source(
    name: str, samples: int, seed: int, max_passes: int, prediction: BatchLogits
) -> LabelSource:
    """The label source called `name`; `auto` is `exact` for one small softmax (or few outputs), else `mc`."""
    if name == "auto":
        single = prediction.logits.shape[1] == 1
        passes = prediction.distribution.passes(prediction.logits, prediction.scored) if single else None
        name = "exact" if passes is not None and passes <= min(EXACT_UP_TO, max_passes) else "mc"
    if name == "exact":
        return Exact(max_passes)
    if name == "mc":
        return MonteCarlo(seed, samples)
    return Empirical() if name == "empirical" else Mode()


def check_labels(name: str, samples: int, seed: int) -> None:
    """`InputError` unless the three make sense together."""
    if name not in ("auto", *SOURCES):
        raise InputError(f"labels={name!r} is unknown; expected 'auto', {', '.join(map(repr, SOURCES))}")
    if samples < 1:
        raise InputError(f"samples={samples}; expected at least 1")
    if samples > 1 and name not in ("mc", "auto"):
        raise InputError(f"samples={samples} with labels={name!r}; only 'mc' draws samples")
    if seed < 0:
        raise InputError(f"seed={seed}; expected a number of at least 0")
