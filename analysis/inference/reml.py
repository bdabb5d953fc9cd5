"""Restricted maximum likelihood for a linear model with crossed random intercepts.

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
_AGREE = 1e-4  # restricted log-likelihoods of two starts this close are the same maximum


@dataclass(frozen=True)
class Fit:
    """β, its covariance, σ², γ (one per random intercept) and the restricted log-likelihood at the maximum found."""

    coefficients: Array
    covariance: Array
    residual_variance: float
    ratios: Array
    log_likelihood: float
    converged: bool
    messages: tuple[str, ...]


@dataclass(frozen=True)
class _Moments:
    """Everything the likelihood needs of the data: cross-products of Z (all random intercepts) and [X y]."""

    zz: Array
    zxy: Array
    xyxy: Array
    sizes: tuple[int, ...]  # levels of each random intercept
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


@dataclass(frozen=True)
class _Profile:
    likelihood: float
    slope: Array  # of the likelihood in γ
    beta: Array
    inverse: Array  # (Xᵀ V₀⁻¹ X)⁻¹
    variance: float  # σ²


def fit_reml(y: Array, x: Array, levels: list[NDArray[np.intp]]) -> Fit:
    """`y` `[n]`, `x` `[n, p]` of full column rank with the intercept first, `levels`: the level of every row, for each
    random intercept.

    Searched from two starts; when they do not reach the same maximum, or the better one ends on a slope, `converged`
    is False and `messages` says what happened.
    """
    indicators = [np.eye(codes.max() + 1)[codes] for codes in levels]
    z, centre = np.column_stack(indicators), y.mean()
    xy = np.column_stack([x, y - centre])
    moments = _Moments(z.T @ z, z.T @ xy, xy.T @ xy, tuple(part.shape[1] for part in indicators), len(y))

    def cost(ratios: Array) -> tuple[float, Array]:
        found = moments.profile(ratios)
        return -found.likelihood, -found.slope

    bounds = [(0.0, 1e8)] * len(levels)
    options = {"ftol": 1e-14, "gtol": 1e-7, "maxiter": 500}
    attempts = [
        optimize.minimize(  # type: ignore[call-overload]
            cost, np.full(len(levels), start), jac=True, method="L-BFGS-B", bounds=bounds, options=options
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
    return Fit(beta, covariance, found.variance, best.x, found.likelihood, not messages, tuple(messages))
