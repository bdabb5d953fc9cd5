"""Restricted maximum likelihood for a linear model with crossed random intercepts and slopes.

y = X β + Σ_k Z_k u_k + ε with u_k ∼ N(0, γ_k σ² I), ε ∼ N(0, σ² I), γ_k ≥ 0. β and σ² have closed forms given the
variance ratios γ (Bates et al. 2015, section 3), so that only γ is searched, and a γ of zero is an ordinary answer.
statsmodels' MixedLM fits the same model, but on some small studies (5 schedules × 4 seeds × 6 languages) its default
optimiser stops clearly below the maximum, or fails when a variance is zero; the tests compare the likelihood with its.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize, sparse

Array = NDArray[np.float64]
_STARTS = (1.0, 0.1)
_FLAT = 1e-3
_ZERO = 1e-8  # a variance ratio below this is an estimate of zero
_AGREE = 1e-4  # restricted log-likelihoods of two starts this close are the same maximum


@dataclass(frozen=True)
class Fit:
    """β, its covariance, σ², γ (one per random effect) and the restricted log-likelihood at the maximum found.
    `freedom`: Satterthwaite's degrees of freedom of each coefficient, 2 V² / Var(V)."""

    coefficients: Array
    covariance: Array
    residual_variance: float
    ratios: Array
    log_likelihood: float
    converged: bool
    messages: tuple[str, ...]
    freedom: Array


@dataclass(frozen=True)
class _Moments:
    """Everything the likelihood needs of the data: cross-products of Z (all random effects but one) and [X y], and of
    the one with most levels, whose own cross-product is diagonal, how many rows a level has and the sums over them.

    With W = I + γ_b Z_b Z_bᵀ for that one, aᵀ W⁻¹ b = aᵀ b − (Z_bᵀ a)ᵀ diag(γ_b w) (Z_bᵀ b), w = 1 / (1 + γ_b rows): a
    thousand runs cost a sum over their levels, and only the others are factored.
    """

    zz: Array
    zxy: Array
    xyxy: Array
    sizes: tuple[int, ...]  # columns of each other random effect
    n: int
    largest: int | None  # place of the one that is not in Z
    rows: Array  # of each of its levels, `[levels]`
    z_sums: Array  # Z summed over each of its levels, `[levels, columns]`
    xy_sums: Array
    grams: "tuple[tuple[_Gram, int], ...]"  # of levels of as many rows each, and one of these levels

    def profile(self, ratios: Array) -> "_Profile":
        """The restricted likelihood at variance ratios γ, maximised over β and σ²; V = σ² V₀."""
        made = self._sides(ratios)
        root, gram = made.root, self._summed(made.weights**2)
        weighted = made.xyxy - made.xy_side.T @ made.xy_side  # [X y]ᵀ V₀⁻¹ [X y]
        x_factor = np.linalg.cholesky(weighted[:-1, :-1])
        inverse = np.linalg.inv(weighted[:-1, :-1])
        beta = inverse @ weighted[:-1, -1]
        freedom = self.n - len(beta)
        squares = max(float(weighted[-1, -1] - weighted[:-1, -1] @ beta), np.finfo(float).tiny)
        determinants = np.log(np.diag(made.factor)).sum() + np.log(np.diag(x_factor)).sum()
        determinants -= np.log(made.weights).sum() / 2
        likelihood = -determinants - freedom / 2 * (1 + math.log(2 * math.pi * squares / freedom))
        # ∂/∂γ_k = −½ (tr Z_kᵀ P Z_k − |Z_kᵀ P y|² / σ²) with P = V₀⁻¹ − V₀⁻¹ X (Xᵀ V₀⁻¹ X)⁻¹ Xᵀ V₀⁻¹
        diagonal = np.diag(made.zz) - (made.z_side**2).sum(axis=0)
        z_xy = made.zxy - made.z_side.T @ made.xy_side
        pulls = diagonal - ((z_xy[:, :-1] @ inverse) * z_xy[:, :-1]).sum(axis=1)
        pulls -= (z_xy[:, -1] - z_xy[:, :-1] @ beta) ** 2 * freedom / squares
        # the same of the largest effect, summed over its levels: Z_b' V₀⁻¹ [X y] = w (sums of [X y] − sums of Z · B)
        solved = np.eye(len(root))
        if len(root):  # LAPACK takes no empty matrix
            solved = linalg.cho_solve((made.factor, True), solved, check_finite=False)
        inner = root[:, None] * solved * root
        moved = inner @ made.zxy
        across = gram.xy - gram.cross.T @ moved - moved.T @ gram.cross + moved.T @ gram.z @ moved
        trace = float((self.rows * made.weights).sum()) - float((inner * gram.z).sum())
        left = across[-1, -1] - 2 * beta @ across[:-1, -1] + beta @ across[:-1, :-1] @ beta
        largest = trace - float((inverse * across[:-1, :-1]).sum()) - left * freedom / squares
        slope = -0.5 * self._in_order([*(float(part.sum()) for part in self._split(pulls)), largest])
        return _Profile(float(likelihood), slope, beta, inverse, squares / freedom)

    def _summed(self, weights: Array) -> "_Gram":
        """Cross-products of the sums over the largest effect's levels, weighted: levels of as many rows weigh alike."""
        z, cross, xy = (np.zeros_like(part) for part in (self.zz, self.zxy, self.xyxy))
        for gram, level in self.grams:
            z += weights[level] * gram.z
            cross += weights[level] * gram.cross
            xy += weights[level] * gram.xy
        return _Gram(z, cross, xy)

    def _sides(self, ratios: Array) -> "_Sides":
        gamma = 0.0 if self.largest is None else float(ratios[self.largest])
        others = ratios if self.largest is None else np.delete(ratios, self.largest)
        weights = 1 / (1 + gamma * self.rows)
        gone = self._summed(gamma * weights)
        zz, zxy, xyxy = self.zz - gone.z, self.zxy - gone.cross, self.xyxy - gone.xy
        root = np.repeat(np.sqrt(others), self.sizes)
        factor = np.linalg.cholesky(root[:, None] * zz * root + np.eye(len(root)))
        wanted = root[:, None] * np.hstack([zz, zxy])
        sides = (
            linalg.solve_triangular(factor, wanted, lower=True, check_finite=False) if len(root) else wanted
        )
        z_side, xy_side = np.split(sides, [zz.shape[1]], axis=1)
        return _Sides(weights, root, zz, zxy, xyxy, factor, z_side, xy_side)

    def _split(self, values: Array) -> list[Array]:
        return np.split(values, np.cumsum(self.sizes)[:-1]) if self.sizes else []

    def _in_order(self, sums: list[float]) -> Array:
        """One number per random effect, as they were given; the last of `sums` is the largest's."""
        if self.largest is None:
            return np.array(sums[:-1])
        return np.array([*sums[: self.largest], sums[-1], *sums[self.largest : -1]])

    def freedom(self, ratios: Array, variance: float) -> Array:
        """Satterthwaite's (1946) degrees of freedom of every coefficient, from the expected information of the
        variances θ (those above zero, and σ²); the variance of Φ_jj = ((Xᵀ V⁻¹ X)⁻¹)_jj by the delta method.

        With P V P = P and tr(P V) = n − p, everything needed of P is Z_kᵀ P Z_l; of V⁻² it is Xᵀ V⁻¹ Z.
        """
        made = self._sides(ratios)
        x_side = made.xy_side[:, :-1]
        xx = made.xyxy[:-1, :-1] - x_side.T @ x_side  # σ² Xᵀ V⁻¹ X
        phi = np.linalg.inv(xx)
        z_largest, xy_largest = made.weights[:, None] * self.z_sums, made.weights[:, None] * self.xy_sums
        wanted = made.root[:, None] * z_largest.T
        if len(wanted):
            wanted = linalg.solve_triangular(made.factor, wanted, lower=True, check_finite=False)
        side = np.hstack([made.z_side, wanted])
        zx = np.vstack([made.zxy, xy_largest])[:, :-1] - side.T @ x_side
        zz = np.block([[made.zz, z_largest.T], [z_largest, np.diag(self.rows * made.weights)]])
        zpz = zz - side.T @ side - zx @ phi @ zx.T  # σ² Zᵀ P Z
        sizes = [*self.sizes, len(self.rows)]
        ends = np.cumsum(sizes)
        parts = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        others = ratios if self.largest is None else np.delete(ratios, self.largest)
        gammas = np.r_[others, 0.0 if self.largest is None else ratios[self.largest]]
        alive = [k for k, ratio in enumerate(gammas) if ratio > _ZERO]
        gamma = gammas[alive]
        # information and slopes in units of σ²: θ_k = γ_k σ², the last one σ² itself
        squares = np.array([[(zpz[parts[k], parts[m]] ** 2).sum() for m in alive] for k in alive])
        squares = squares.reshape(len(alive), len(alive))
        traces = np.array([np.trace(zpz[parts[k], parts[k]]) for k in alive])
        with_residual = traces - squares @ gamma
        trace = self.n - len(phi) - gamma @ traces
        residual = trace - gamma @ with_residual
        information = np.block([[squares, with_residual[:, None]], [with_residual[None], residual]]) / 2
        pulls = [((phi @ zx[parts[k]].T) ** 2).sum(axis=1) for k in alive]
        own = np.diag(phi) - sum((g * pull for g, pull in zip(gamma, pulls, strict=True)), np.zeros(len(phi)))
        slopes = np.column_stack([*pulls, own])
        spread = np.einsum("jk,kl,jl->j", slopes, np.linalg.pinv(information, hermitian=True), slopes)
        return 2 * np.diag(phi) ** 2 / np.maximum(spread, np.finfo(float).tiny)


@dataclass(frozen=True)
class _Gram:
    """Cross-products of sums over levels: of Z with itself and with [X y], and of [X y]."""

    z: Array
    cross: Array
    xy: Array


@dataclass(frozen=True)
class _Sides:
    """What is left of the cross-products when the largest effect is taken away (`zz`, `zxy`, `xyxy`, by W⁻¹), the
    Cholesky factor of what the others add, and its solutions."""

    weights: Array
    root: Array
    zz: Array
    zxy: Array
    xyxy: Array
    factor: Array
    z_side: Array
    xy_side: Array


@dataclass(frozen=True)
class _Profile:
    likelihood: float
    slope: Array  # of the likelihood in γ
    beta: Array
    inverse: Array  # (Xᵀ V₀⁻¹ X)⁻¹
    variance: float  # σ²


def fit_reml(y: Array, x: Array, effects: list[NDArray]) -> Fit:
    """`y` `[n]`, `x` `[n, p]` of full column rank with the intercept first, `effects`: for each random intercept the
    level of every row `[n]` (the one with most levels is then cheap), for each other random effect its columns
    `[n, levels]` (`slopes`).

    Searched from two starts; when they do not reach the same maximum, or the better one ends on a slope, `converged`
    is False and `messages` says what happened.
    """
    centre = y.mean()
    moments = _moments(np.column_stack([x, y - centre]), effects)

    def cost(ratios: Array) -> tuple[float, Array]:
        found = moments.profile(ratios)
        return -found.likelihood, -found.slope

    bounds = [(0.0, 1e8)] * len(effects)
    options = {"ftol": 1e-14, "gtol": 1e-7, "maxiter": 500}
    attempts = [
        optimize.minimize(  # type: ignore[call-overload]
            cost, np.full(len(effects), start), jac=True, method="L-BFGS-B", bounds=bounds, options=options
        )
        for start in _STARTS
    ]
    best, other = sorted(attempts, key=lambda attempt: attempt.fun)
    messages = []
    if other.fun - best.fun > _AGREE:
        values = ", ".join(f"{-attempt.fun:.4f}" for attempt in attempts)
        messages.append(f"two starts reach different log-likelihoods: {values}")
    found = moments.profile(best.x)
    left = np.where(best.x > 0, np.abs(found.slope) * best.x, np.maximum(found.slope, 0))  # per unit of ln γ
    if left.max() > _FLAT:
        messages.append(f"the optimiser stopped on a slope: {best.message}")
    beta = found.beta.copy()
    beta[0] += centre
    covariance = found.variance * found.inverse
    freedom = moments.freedom(best.x, found.variance)
    return Fit(
        beta, covariance, found.variance, best.x, found.likelihood, not messages, tuple(messages), freedom
    )


def _moments(xy: Array, effects: list[NDArray]) -> _Moments:
    counts = [int(part.max()) + 1 if part.ndim == 1 else 0 for part in effects]
    largest = int(np.argmax(counts)) if max(counts, default=0) else None
    others = [columns_of(part) for k, part in enumerate(effects) if k != largest]
    z = np.column_stack(others) if others else np.zeros((len(xy), 0))
    codes = np.zeros(len(xy), dtype=np.intp) if largest is None else effects[largest]
    count = 0 if largest is None else counts[largest]
    members = sparse.csr_matrix((np.ones(len(xy)), (codes, np.arange(len(xy)))), (max(count, 1), len(xy)))[
        :count
    ]
    rows, z_sums, xy_sums = np.asarray(members.sum(axis=1)).ravel(), members @ z, members @ xy
    grams = []
    for size in np.unique(rows):
        level = np.flatnonzero(rows == size)
        a, b = z_sums[level], xy_sums[level]
        grams.append((_Gram(a.T @ a, a.T @ b, b.T @ b), int(level[0])))
    return _Moments(
        z.T @ z, z.T @ xy, xy.T @ xy, tuple(part.shape[1] for part in others), len(xy), largest, rows, z_sums, xy_sums,
        tuple(grams),
    )  # fmt: skip


def columns_of(effect: NDArray) -> Array:
    """The columns of a random effect, of which an intercept may be given by the level of every row."""
    return effect if effect.ndim == 2 else np.eye(int(effect.max()) + 1)[effect]


def slopes(predictor: Array, codes: NDArray[np.intp]) -> Array:
    """The columns of a random slope of `predictor` by level; `[n, levels]`."""
    return np.eye(codes.max() + 1)[codes] * predictor[:, None]
