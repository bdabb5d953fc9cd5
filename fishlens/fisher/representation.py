r"""Centred kernel alignment of two representations (Kornblith et al. 2019), here of one text in two languages.

Rows are parallel: row i of both says the same. Linear CKA is
$\mathrm{HSIC}(K, L) / \sqrt{\mathrm{HSIC}(K, K)\,\mathrm{HSIC}(L, L)}$ with $K = XX^\top$, $L = YY^\top$; HSIC by
the unbiased estimator (Song et al. 2012, Eq. 5), because the usual one is far above zero for unrelated representations
when there are fewer rows than dimensions.
"""

import math

import torch
from torch import Tensor

from fishlens.fisher.transfer import widest

FEWEST = 4  # rows that the unbiased estimator needs


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Of `[N, D]` and `[N, E]`: 1 for the same, about 0 for unrelated ones; nan for constants or fewer than 4 rows."""
    if len(x) < FEWEST:
        return math.nan
    one, other = _kernel(x), _kernel(y)
    both = _hsic(one, one) * _hsic(other, other)
    return float(_hsic(one, other) / both.sqrt()) if both > 0 else math.nan


def _kernel(x: Tensor) -> Tensor:
    """The inner products of different rows; CKA does not depend on their mean, rounding does."""
    x = x.to(widest(x.device))
    centred = x - x.mean(0)
    kernel = centred @ centred.T
    return kernel - torch.diag(kernel.diagonal())


def _hsic(one: Tensor, other: Tensor) -> Tensor:
    n = len(one)
    first = (one * other).sum()
    second = one.sum() * other.sum() / ((n - 1) * (n - 2))
    third = 2 * (one.sum(0) @ other.sum(0)) / (n - 2)
    return (first + second - third) / (n * (n - 3))
