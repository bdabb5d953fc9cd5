"""Clusters as weights: a resample of clusters is a row of weights over the observations.

Every statistic here that is bootstrapped or jackknifed takes `weights` of shape `[resamples, observations]`; an
observation of weight 2 counts as two equal ones. So one vectorised call evaluates all resamples.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def codes_of(labels: ArrayLike | None, n: int) -> NDArray[np.intp]:
    """Cluster numbers 0…G−1 in order of first appearance; None means that every observation is its own cluster."""
    if labels is None:
        return np.arange(n)
    _, first, inverse = np.unique(np.asarray(labels), return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.intp)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def resampled_counts(clusters: int, resamples: int, rng: np.random.Generator) -> Array:
    """How often each cluster is drawn in each bootstrap resample, `[resamples, clusters]`."""
    return rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples).astype(float)


def deletions(clusters: int) -> Array:
    """Counts that leave out one cluster at a time, `[clusters, clusters]`."""
    return 1.0 - np.eye(clusters)


def jackknife_error(values: Array, axis: int = -1) -> Array:
    """Standard error from delete-one-cluster values: sqrt((G−1)/G Σ (θ_(g) − θ_(·))²)."""
    groups = values.shape[axis]
    centred = values - values.mean(axis=axis, keepdims=True)
    return np.sqrt((groups - 1) / groups * (centred**2).sum(axis=axis))
