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
from scipy import linalg, optimize

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
    """Everything the likelihood needs of the data: cross-products of Z (all random intercepts) and [X y]."""

    zz: Array
    zxy: Array
    xyxy: Array
    sizes: tuple[int, ...]  # columns of each random effect
    n: int

    def profile(self, ratios: Array) -> "_Profile":
        """The restricted likelihood at variance ratios γ, maximised over β and σ²; V = σ² V₀."""
        root = np.repeat(np.sqrt(ratios), self.sizes)
        inner = root[:, None] * self.zz * root + np.eye(len(root))
        factor = np.linalg.cholesky(inner)
        q = len(root)
        sides = root[:, None] * np.hstack([self.zz, self.zxy])
        sides = linalg.solve_triangular(factor, sides, lower=True, check_finite=False)
        z_side, xy_side = sides[:, :q], sides[:, q:]
        weighted = self.xyxy - xy_side.T @ xy_side  # [X y]ᵀ V₀⁻¹ [X y]
        x_factor = np.linalg.cholesky(weighted[:-1, :-1])
        inverse = np.linalg.inv(weighted[:-1, :-1])
        beta = inverse @ weighted[:-1, -1]
        freedom = self.n - len(beta)
        squares = max(float(weighted[-1, -1] - weighted[:-1, -1] @ beta), np.finfo(float).tiny)
        determinants = np.log(np.diag(factor)).sum() + np.log(np.diag(x_factor)).sum()
        likelihood = -determinants - freedom / 2 * (1 + math.log(2 * math.pi * squares / freedom))
        # ∂/∂γ_k = −½ (tr Z_kᵀ P Z_k − |Z_kᵀ P y|² / σ²) with P = V₀⁻¹ − V₀⁻¹ X (Xᵀ V₀⁻¹ X)⁻¹ Xᵀ V₀⁻¹
        z_xy = self.zxy - z_side.T @ xy_side
        traces = np.diag(self.zz) - (z_side**2).sum(axis=0)
        traces = traces - ((z_xy[:, :-1] @ inverse) * z_xy[:, :-1]).sum(axis=1)
        pulls = (z_xy[:, -1] - z_xy[:, :-1] @ beta) ** 2 * freedom / squares
        starts = np.r_[0, np.cumsum(self.sizes)[:-1]]
        slope = -0.5 * np.add.reduceat(traces - pulls, starts)
        return _Profile(float(likelihood), slope, beta, inverse, squares / freedom)

    def freedom(self, ratios: Array, variance: float) -> Array:
        """Satterthwaite's (1946) degrees of freedom of every coefficient, from the expected information of the
        variances θ (those above zero, and σ²); the variance of Φ_jj = ((Xᵀ V⁻¹ X)⁻¹)_jj by the delta method.

        With P V P = P and tr(P V) = n − p, everything needed of P is Z_kᵀ P Z_l; of V⁻² it is Xᵀ V⁻¹ Z.
        """
        root = np.repeat(np.sqrt(ratios), self.sizes)
        factor = np.linalg.cholesky(root[:, None] * self.zz * root + np.eye(len(root)))
        sides = root[:, None] * np.hstack([self.zz, self.zxy[:, :-1]])
        sides = linalg.solve_triangular(factor, sides, lower=True, check_finite=False)
        z_side, x_side = sides[:, : len(root)], sides[:, len(root) :]
        xx = self.xyxy[:-1, :-1] - x_side.T @ x_side  # σ² Xᵀ V⁻¹ X
        zx = self.zxy[:, :-1] - z_side.T @ x_side
        zz = self.zz - z_side.T @ z_side
        phi = np.linalg.inv(xx)
        zpz = zz - zx @ phi @ zx.T  # σ² Zᵀ P Z
        ends = np.cumsum(self.sizes)
        parts = [slice(end - size, end) for end, size in zip(ends, self.sizes, strict=True)]
        alive = [k for k, ratio in enumerate(ratios) if ratio > _ZERO]
        gamma = ratios[alive]
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
class _Profile:
    likelihood: float
    slope: Array  # of the likelihood in γ
    beta: Array
    inverse: Array  # (Xᵀ V₀⁻¹ X)⁻¹
    variance: float  # σ²


def fit_reml(y: Array, x: Array, effects: list[NDArray]) -> Fit:
    """`y` `[n]`, `x` `[n, p]` of full column rank with the intercept first, `effects`: for each random intercept the
    level of every row `[n]`, for each other random effect its columns `[n, levels]` (`slopes`).

    Searched from two starts; when they do not reach the same maximum, or the better one ends on a slope, `converged`
    is False and `messages` says what happened.
    """
    indicators = [part if part.ndim == 2 else np.eye(part.max() + 1)[part] for part in effects]
    z, centre = np.column_stack(indicators), y.mean()
    xy = np.column_stack([x, y - centre])
    moments = _Moments(z.T @ z, z.T @ xy, xy.T @ xy, tuple(part.shape[1] for part in indicators), len(y))

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


def slopes(predictor: Array, codes: NDArray[np.intp]) -> Array:
    """The columns of a random slope of `predictor` by level; `[n, levels]`."""
    return np.eye(codes.max() + 1)[codes] * predictor[:, None]
