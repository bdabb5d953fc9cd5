"""What a model's output means: the distribution p(y | x), its score, and the factors of its Fisher.

All families see logits of shape `[N, M, C]`: N examples, each with M independent variables (one for
classification, the start and the end for extractive QA, one per token for tagging), and a mask `scored`
`[N, M]` of the variables that exist. `log p(y | x)` of an example is the sum over its scored variables. A
*cotangent* is a tensor shaped like the logits; back-propagating it gives every example the parameter
gradient that it stands for.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from scipy import special
from torch import Tensor
from torch.nn import functional


class Distribution(ABC):
    """A family p(y | logits): how to draw y, what its most likely value is, and ∇_logits log p."""

    name: str
    has_mode = True

    def numbers(self, classes: int) -> int:
        """How many uniform numbers the draw of one variable takes."""
        return classes

    @abstractmethod
    def passes(self, logits: Tensor, scored: Tensor) -> int:
        """Backward passes that `exact` needs."""

    @abstractmethod
    def exact(self, logits: Tensor, scored: Tensor) -> Iterator[Tensor]:
        """Cotangents v_k with Σ_k v_k v_kᵀ = Cov_y[∇ log p(y)] for every example; `passes` of them."""

    def noise(self, uniforms: np.ndarray) -> np.ndarray:
        """What `sample` takes, made of uniform numbers in [0, 1) on the host, in float64."""
        return uniforms

    @abstractmethod
    def sample(self, logits: Tensor, noise: Tensor) -> Tensor:
        """y drawn by inverse transform from `noise` `[N, M, numbers(C)]`, in the logits' precision."""

    @abstractmethod
    def mode(self, logits: Tensor) -> Tensor:
        """The most likely y."""

    @abstractmethod
    def score(self, logits: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
        """∇_logits log p(y): the cotangent of one label per variable. Unscored variables get zero."""

    @abstractmethod
    def log_probability(self, logits: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
        """log p(y | x) of every example, `[N]`, differentiable."""

    @abstractmethod
    def outcomes(self, logits: Tensor, scored: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The elementary events one by one: (p, log p), both `[N]`; log p is differentiable.

        Σ p ∇log p ∇log pᵀ over them is the Fisher, by definition and without the closed form of `exact`.
        """

    @abstractmethod
    def out_of_range(self, logits: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
        """Whether any scored target is not a possible y; a scalar tensor, so that no device has to wait."""


def widened(logits: Tensor) -> Tensor:
    """Detached logits in float32 or wider: probabilities are never computed in half precision."""
    logits = logits.detach()
    return logits if logits.dtype == torch.float64 else logits.float()


AT_ONCE = 2**24
"""Entries of a softmax that are computed at a time: 64 MiB in float32."""
Part = tuple[slice, slice]


def parts_of(logits: Tensor) -> list[Part]:
    """Some examples and variables of `[N, M, C]` after the other, all of them where they are few."""
    examples, variables, classes = logits.shape
    if logits.numel() <= AT_ONCE:
        return [(slice(None), slice(None))]
    step = max(1, AT_ONCE // classes)
    rows = max(1, step // variables)
    return [
        (slice(n, n + rows), slice(m, m + step))
        for n in range(0, examples, rows)
        for m in range(0, variables, step)
    ]


class Categorical(Distribution):
    """A softmax over C classes per variable."""

    name = "categorical"

    def numbers(self, classes: int) -> int:
        return 1

    def passes(self, logits: Tensor, scored: Tensor) -> int:
        if logits.shape[1] == 1:
            return logits.shape[2] - 1
        return int(scored.sum(1).max()) * (logits.shape[2] - 1)

    def exact(self, logits: Tensor, scored: Tensor) -> Iterator[Tensor]:
        """For one softmax, C−1 vectors: a pivoted Cholesky factor of diag(p) − ppᵀ in closed form.

        With tail sums r_k = Σ_{j≥k} p_j,  v_k = sqrt(p_k r_{k+1} / r_k) (e_k − (0,…,0, p_{k+1},…, p_C) /
        r_{k+1}). Independent variables have no cross terms in expectation, so several softmaxes take their
        vectors in turn: the j-th scored variable of every example at the same time.
        """
        p = functional.softmax(widened(logits), dim=-1)
        tails = p.flip(-1).cumsum(-1).flip(-1)
        turn = torch.where(scored, scored.cumsum(1) - 1, -1)
        turns = 1 if logits.shape[1] == 1 else int(scored.sum(1).max())
        for j in range(turns):
            in_turn = (turn == j).unsqueeze(-1)
            for k in range(p.shape[-1] - 1):
                after = tails[..., k + 1]
                there = after > 0
                safe = torch.where(there, after, 1.0)
                v = torch.zeros_like(p)
                v[..., k + 1 :] = -p[..., k + 1 :] / safe.unsqueeze(-1)
                v[..., k] = 1.0
                size = torch.where(
                    there, p[..., k] * after / torch.where(there, tails[..., k], 1.0), 0.0
                ).sqrt()
                yield torch.where(in_turn, size.unsqueeze(-1) * v, 0.0)

    def sample(self, logits: Tensor, noise: Tensor) -> Tensor:
        def of(part: Part) -> Tensor:
            cumulative = functional.softmax(widened(logits[part]), dim=-1).cumsum(-1)
            below = cumulative < noise[part].to(cumulative) * cumulative[..., -1:]
            return below.sum(-1).clamp(max=logits.shape[-1] - 1)

        parts = parts_of(logits)
        if len(parts) == 1:
            return of(parts[0])
        drawn = torch.empty(logits.shape[:2], dtype=torch.long, device=logits.device)
        for part in parts:
            drawn[part] = of(part)
        return drawn

    def mode(self, logits: Tensor) -> Tensor:
        return logits.detach().argmax(-1)

    def score(self, logits: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
        """One tensor of the logits' size is made, and no other: a vocabulary may have 256 thousand entries."""
        index = self._safe(logits, targets).unsqueeze(-1)

        def of(part: Part) -> Tensor:
            v = functional.softmax(widened(logits[part]), dim=-1).neg_()
            v.scatter_add_(-1, index[part], torch.ones_like(v[..., :1]))
            return torch.where(scored[part].unsqueeze(-1), v, 0.0)

        parts = parts_of(logits)
        if len(parts) == 1:
            return of(parts[0])
        whole = torch.empty(logits.shape, dtype=widened(logits[:0]).dtype, device=logits.device)
        for part in parts:
            whole[part] = of(part)
        return whole

    def log_probability(self, logits: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
        index = self._safe(logits, targets).unsqueeze(-1)
        chosen = functional.log_softmax(logits, dim=-1).gather(-1, index).squeeze(-1)
        return torch.where(scored, chosen, 0.0).sum(1)

    def outcomes(self, logits: Tensor, scored: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        log_p = functional.log_softmax(logits, dim=-1)
        for m in range(logits.shape[1]):
            for c in range(logits.shape[2]):
                yield log_p[:, m, c].detach().exp() * scored[:, m], log_p[:, m, c]

    def out_of_range(self, logits: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
        impossible = (targets < 0) | (targets >= logits.shape[-1])
        if targets.is_floating_point():
            impossible = impossible | (targets != targets.floor())
        return (impossible & scored).any()

    @staticmethod
    def _safe(logits: Tensor, targets: Tensor) -> Tensor:
        return targets.long().clamp(0, logits.shape[-1] - 1)


class Bernoulli(Distribution):
    """C independent yes/no labels per variable, p(y_c = 1) = σ(z_c)."""

    name = "bernoulli"

    def passes(self, logits: Tensor, scored: Tensor) -> int:
        return logits.shape[2]

    def exact(self, logits: Tensor, scored: Tensor) -> Iterator[Tensor]:
        """One label a pass: Cov = diag(σ(1 − σ))."""
        spread = (torch.sigmoid(widened(logits)) * torch.sigmoid(-widened(logits))).sqrt()
        spread = torch.where(scored.unsqueeze(-1), spread, 0.0)
        for c in range(logits.shape[2]):
            v = torch.zeros_like(spread)
            v[..., c] = spread[..., c]
            yield v

    def sample(self, logits: Tensor, noise: Tensor) -> Tensor:
        p = torch.sigmoid(widened(logits))
        return (noise.to(p) < p).to(p)

    def mode(self, logits: Tensor) -> Tensor:
        return (widened(logits) > 0).to(widened(logits))

    def score(self, logits: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
        p = torch.sigmoid(widened(logits))
        return torch.where(scored.unsqueeze(-1), targets.to(p) - p, 0.0)

    def log_probability(self, logits: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
        each = -functional.binary_cross_entropy_with_logits(logits, targets.to(logits), reduction="none")
        return torch.where(scored.unsqueeze(-1), each, 0.0).sum((1, 2))

    def outcomes(self, logits: Tensor, scored: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for m in range(logits.shape[1]):
            for c in range(logits.shape[2]):
                for sign in (1, -1):
                    log_p = functional.logsigmoid(sign * logits[:, m, c])
                    yield log_p.detach().exp() * scored[:, m], log_p

    def out_of_range(self, logits: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
        return (((targets < 0) | (targets > 1)) & scored.unsqueeze(-1)).any()


class Gaussian(Distribution):
    """Regression as a normal distribution of unit variance around the output: log p = −½ ‖y − f‖² + const."""

    name = "gaussian"
    has_mode = False  # the mode is the mean, where the score is zero for every model

    def passes(self, logits: Tensor, scored: Tensor) -> int:
        return logits.shape[2]

    def exact(self, logits: Tensor, scored: Tensor) -> Iterator[Tensor]:
        """One output a pass: Cov[y − f] is the identity."""
        for c in range(logits.shape[2]):
            v = torch.zeros_like(widened(logits))
            v[..., c] = scored.to(v)
            yield v

    def noise(self, uniforms: np.ndarray) -> np.ndarray:
        tiny = 1e-12
        return special.ndtri(uniforms.clip(tiny, 1 - tiny))

    def sample(self, logits: Tensor, noise: Tensor) -> Tensor:
        return widened(logits) + noise.to(widened(logits))

    def mode(self, logits: Tensor) -> Tensor:
        return widened(logits)

    def score(self, logits: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
        difference = targets.to(widened(logits)) - widened(logits)
        return torch.where(scored.unsqueeze(-1), difference, 0.0)

    def log_probability(self, logits: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
        square = (targets.to(logits) - logits).square().sum(-1)
        return -0.5 * torch.where(scored, square, 0.0).sum(1)

    def outcomes(self, logits: Tensor, scored: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """y = f ± 1 with one half each: another distribution, with the same second moment."""
        for m in range(logits.shape[1]):
            for c in range(logits.shape[2]):
                mean = logits[:, m, c]
                for step in (1.0, -1.0):
                    yield 0.5 * scored[:, m].to(mean), -0.5 * (mean.detach() + step - mean).square()

    def out_of_range(self, logits: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
        return (~torch.isfinite(targets) & scored.unsqueeze(-1)).any()
