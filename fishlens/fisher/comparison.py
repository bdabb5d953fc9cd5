r"""Two Fisher diagonals beside each other: of two languages at one step, or of one language at two steps.

All of it is by block, over the entries $d_i \ge 0$ of the block's diagonal:

    overlap        $\sum_i \sqrt{a_i b_i} \,/\, \sqrt{\sum_i a_i \sum_i b_i}$: the cosine of the square roots, which is
                   the Bhattacharyya coefficient of the two diagonals as distributions over parameters; 1 if they are
                   proportional
    rank_overlap   Spearman's correlation of the entries
    drift          the Jensen-Shannon divergence, in bits, of the two histograms of $\log_{10} d_i$: 0 for equal ones,
                   1 for ones without a common bin; it sees how large the entries are and not which ones

What cannot be said (a diagonal of zeros) is nan.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Diagonal = Mapping[str, Tensor]
Parameters = Mapping[str, Sequence[str]]
"""The names of a block's parameters, by block: `FisherEstimate.parameters`."""
MOST_RANKED = 2**16  # entries of a block that are ranked: larger blocks by an evenly spaced choice
_LOWEST, _HIGHEST, _PER_DECADE = -24, 8, 4
BINS = (_HIGHEST - _LOWEST) * _PER_DECADE + 2
"""Four bins per power of ten from 1e-24 to 1e8, the first for all that is below (zeros too), the last for all above."""


def overlap(one: Diagonal, other: Diagonal, parameters: Parameters) -> dict[str, float]:
    """The Bhattacharyya coefficient of every block, in [0, 1]."""

    def coefficient(a: Tensor, b: Tensor) -> Tensor:
        return (a.sqrt() * b.sqrt()).sum() / (a.sum().sqrt() * b.sum().sqrt())

    return _by_block(coefficient, one, other, parameters)


def rank_overlap(one: Diagonal, other: Diagonal, parameters: Parameters) -> dict[str, float]:
    """Spearman's correlation of the entries of every block, in [-1, 1]; ties have their mean rank.

    Of a block with more than `MOST_RANKED` entries, so many of them, evenly spaced.
    """

    def spearman(a: Tensor, b: Tensor) -> Tensor:
        stride = -(-len(a) // MOST_RANKED)
        x, y = (_ranks(values[::stride]) for values in (a, b))
        x, y = x - x.mean(), y - y.mean()
        return (x * y).sum() / (x.square().sum() * y.square().sum()).sqrt()

    return _by_block(spearman, one, other, parameters)


def log_histograms(diagonal: Diagonal, parameters: Parameters) -> dict[str, Tensor]:
    """How many entries of every block lie in each bin of $\\log_{10} d$: int64 `[BINS]` on the CPU."""
    found = {}
    for block, names in parameters.items():
        bins = (_flat(diagonal, names).log10() - _LOWEST) * _PER_DECADE  # -inf for zeros
        found[block] = torch.bincount((bins.floor() + 1).clamp(0, BINS - 1).long(), minlength=BINS)
    return {block: counts.cpu() for block, counts in found.items()}


def drift(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, float]:
    """The Jensen-Shannon divergence of two `log_histograms`, by block, in bits, in [0, 1]."""
    return {block: jensen_shannon(before[block], after[block]) for block in after if block in before}


def jensen_shannon(p: Tensor, q: Tensor) -> float:
    """Of two lists of counts, in bits (Lin 1991); nan if one of them is empty."""
    if not p.sum() or not q.sum():
        return math.nan
    p, q = p.double() / p.sum(), q.double() / q.sum()
    entropies = [float(torch.special.entr(each).sum()) for each in ((p + q) / 2, p, q)]
    return max(0.0, (entropies[0] - (entropies[1] + entropies[2]) / 2) / math.log(2))


def _by_block(
    measure: Callable[[Tensor, Tensor], Tensor], one: Diagonal, other: Diagonal, parameters: Parameters
) -> dict[str, float]:
    """One number a block, all in one transfer from the device."""
    values = [measure(_flat(one, names), _flat(other, names)) for names in parameters.values()]
    return dict(zip(parameters, torch.stack(values).tolist(), strict=True))


def _flat(diagonal: Diagonal, names: Sequence[str]) -> Tensor:
    flat = torch.cat([diagonal[name].flatten() for name in names])
    return flat.double() if flat.device.type != "mps" else flat.float()


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1; equal values share the mean of theirs."""
    _, group, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    return (last - (counts - 1) / 2)[group].to(values)
