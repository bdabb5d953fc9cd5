"""Pearson, Spearman, Kendall and partial coefficients, for many weightings of the same observations at once.

`columns` is `[n, m]`, `weights` `[resamples, n]`: an observation of weight w counts w times,
so a bootstrap resample or a deletion is a row of weights. With `strata` (codes) only differences inside a stratum
count: columns are centred (Pearson), ranked and centred (Spearman) or paired (Kendall) within strata.
A coefficient that does not exist (a constant column) is NaN.
"""

import numpy as np
from numpy.typing import NDArray

from fishlens.errors import InputError

Array = NDArray[np.float64]
METHODS = ("pearson", "spearman", "kendall")
_AT_ONCE = 4_000_000  # numbers held at a time
_CONSTANT = 1e-12  # a sum of squares this small, relative to the column's own, is rounding


def coefficient(columns: Array, weights: Array, method: str, strata: NDArray[np.intp] | None = None) -> Array:
    """The coefficient of columns 0 and 1 given the others, one per row of `weights`; `[resamples]`.

    Partial coefficients are read off the inverse of the correlation matrix: −P₀₁ / sqrt(P₀₀ P₁₁). For `spearman`
    that is the partial correlation of ranks.
    Raises `InputError` for an unknown method, and for Kendall given other columns.
    """
    if method not in METHODS:
        raise InputError(f"there is no coefficient {method!r}; expected one of {', '.join(METHODS)}")
    if method == "kendall" and columns.shape[-1] > 2:
        raise InputError(
            "a partial Kendall coefficient is not offered: use pearson or spearman with controls"
        )
    n, m = columns.shape
    groups = np.zeros(n, dtype=np.intp) if strata is None else strata
    evaluate = {"pearson": _pearson, "spearman": _spearman, "kendall": _kendall}[method]
    rows = max(1, _AT_ONCE // (n * m))
    parts = [evaluate(columns, weights[k : k + rows], groups) for k in range(0, len(weights), rows)]
    return np.concatenate(parts)


def _pearson(columns: Array, weights: Array, groups: NDArray[np.intp]) -> Array:
    return _partial(_correlations(columns - columns.mean(axis=0), weights, groups))


def _spearman(columns: Array, weights: Array, groups: NDArray[np.intp]) -> Array:
    return _partial(_correlations(weighted_ranks(columns, weights, groups), weights, groups))


def weighted_ranks(columns: Array, weights: Array, groups: NDArray[np.intp]) -> Array:
    """Mid-ranks within groups where an observation of weight w stands for w equal ones; `[resamples, n, m]`.

    The mid-rank of i, less one half: Σ_j w_j [x_j < x_i] + ½ Σ_j w_j [x_j = x_i], over j in the group of i.
    """
    ranks = np.empty((len(weights), *columns.shape))
    for k, column in enumerate(columns.T):
        order = np.lexsort((column, groups))
        new_group = np.r_[True, np.diff(groups[order]) != 0]
        new_value = new_group | np.r_[True, np.diff(column[order]) != 0]
        before = np.zeros((len(weights), len(column) + 1))
        np.cumsum(weights[:, order], axis=1, out=before[:, 1:])
        starts = np.flatnonzero(new_value)
        tie = np.cumsum(new_value) - 1
        first, last = starts[tie], np.r_[starts[1:], len(column)][tie]
        base = np.flatnonzero(new_group)[np.cumsum(new_group) - 1]
        ranks[:, order, k] = (before[:, first] + before[:, last]) / 2 - before[:, base]
    return ranks


def _correlations(values: Array, weights: Array, groups: NDArray[np.intp]) -> Array:
    """Weighted correlation matrices after centring within groups; `[resamples, m, m]`."""
    raw = np.sqrt((values**2).mean(axis=-2, keepdims=True))
    values = values / np.where(raw > 0, raw, 1.0)
    if values.ndim == 2:
        n, m = values.shape
        products = (values[:, :, None] * values[:, None, :]).reshape(n, m * m)
        moments = (weights @ products).reshape(len(weights), m, m)
    else:
        m = values.shape[-1]
        moments = np.einsum("bni,bnj->bij", values * weights[:, :, None], values)
    spread = np.diagonal(moments, axis1=1, axis2=2).copy()
    for group in range(groups.max() + 1):
        inside = groups == group
        total = weights[:, inside].sum(axis=1)
        if values.ndim == 2:
            sums = weights[:, inside] @ values[inside]
        else:
            sums = np.einsum("bn,bnm->bm", weights[:, inside], values[:, inside])
        scaled = sums / np.sqrt(np.where(total > 0, total, 1.0))[:, None]
        moments -= scaled[:, :, None] * scaled[:, None, :]
    variance = np.diagonal(moments, axis1=1, axis2=2).copy()
    variance[variance <= _CONSTANT * np.maximum(spread, _CONSTANT)] = np.nan
    deviation = np.sqrt(variance)
    return moments / deviation[:, :, None] / deviation[:, None, :]


def _partial(correlations: Array) -> Array:
    if correlations.shape[-1] == 2:
        return np.clip(correlations[:, 0, 1], -1.0, 1.0)
    values = np.full(len(correlations), np.nan)
    there = np.isfinite(correlations).all(axis=(1, 2))
    # the two columns with what the controls explain of them taken away (Schur complement)
    a, b = correlations[there, :2, :2], correlations[there, :2, 2:]
    controls = correlations[there, 2:, 2:]
    left = a - b @ np.linalg.pinv(controls, rcond=1e-10, hermitian=True) @ np.swapaxes(b, 1, 2)
    rest = left[:, 0, 0] * left[:, 1, 1]
    alive = (left[:, 0, 0] > 1e-10) & (left[:, 1, 1] > 1e-10)
    values[np.flatnonzero(there)[alive]] = np.clip(left[alive, 0, 1] / np.sqrt(rest[alive]), -1.0, 1.0)
    return values


def _kendall(columns: Array, weights: Array, groups: NDArray[np.intp]) -> Array:
    """τ-b: (concordant − discordant) / sqrt(pairs untied in x · pairs untied in y), over pairs within groups."""
    same = groups[:, None] == groups[None, :]
    x = np.sign(columns[:, None, 0] - columns[None, :, 0]) * same
    y = np.sign(columns[:, None, 1] - columns[None, :, 1]) * same

    def pairs(matrix: Array) -> Array:
        return ((weights @ matrix) * weights).sum(axis=1)

    untied = pairs(np.abs(x)) * pairs(np.abs(y))
    return np.where(untied > 0, pairs(x * y) / np.sqrt(np.where(untied > 0, untied, 1.0)), np.nan)
