"""How predicted numbers agree with gold ones."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def pearson(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Points (-100 to 100): 100 times the correlation; 0 where either is constant, and nothing is told by it."""
    from scipy import stats

    return _correlation(stats.pearsonr, gold, predicted)


def spearman(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Points (-100 to 100): 100 times the correlation of ranks, ties sharing theirs; 0 where either is constant."""
    from scipy import stats

    return _correlation(stats.spearmanr, gold, predicted)


def _correlation(of: Callable[..., Any], gold: Sequence[float], predicted: Sequence[float]) -> float:
    if len(set(gold)) < 2 or len(set(predicted)) < 2:
        return 0.0
    found = float(of(gold, predicted)[0])
    return 100.0 * found if np.isfinite(found) else 0.0
