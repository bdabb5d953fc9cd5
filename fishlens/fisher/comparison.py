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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import Tensor

from fishlens.fisher.transfer import fetched, widest

Diagonal = Mapping[str, Tensor]
Parameters = Mapping[str, Sequence[str]]
"""The names of a block's parameters, by block: `FisherEstimate.parameters`."""
MOST_RANKED = 2**16  # entries of a block that are ranked: larger blocks by an evenly spaced choice
MOST_COUNTED = 2**22  # entries of blocks that are counted together
_LOWEST, _HIGHEST, _PER_DECADE = -24, 8, 4
BINS = (_HIGHEST - _LOWEST) * _PER_DECADE + 2
"""Four bins per power of ten from 1e-24 to 1e8, the first for all that is below (zeros too), the last for all above."""


def overlap(one: Diagonal, other: Diagonal, parameters: Parameters) -> dict[str, float]:
    """The Bhattacharyya coefficient of every block, in [0, 1]."""
    return by_block(parameters, fetched(overlaps(one, other, parameters)))


def rank_overlap(one: Diagonal, other: Diagonal, parameters: Parameters) -> dict[str, float]:
    """Spearman's correlation of the entries of every block, in [-1, 1]; ties have their mean rank.

    Of a block with more than `MOST_RANKED` entries, so many of them, evenly spaced.
    """
    return by_block(parameters, fetched(rank_overlaps(one, other, parameters)))


def log_histograms(diagonal: Diagonal, parameters: Parameters) -> dict[str, Tensor]:
    """How many entries of every block lie in each bin of $\\log_{10} d$: int64 `[BINS]` on the CPU."""
    return histograms_of(parameters, fetched(histogram_table(diagonal, parameters)))


def by_block(parameters: Parameters, values: Iterable[Any]) -> dict[str, float]:
    """One number a block, once they are fetched."""
    return {block: float(value) for block, value in zip(parameters, values, strict=True)}


def histograms_of(parameters: Parameters, table: Iterable[np.ndarray]) -> dict[str, Tensor]:
    """The rows of a fetched `histogram_table`, by block."""
    rows = (row for rows in table for row in rows)
    return {
        block: torch.from_numpy(row.astype(np.int64)) for block, row in zip(parameters, rows, strict=True)
    }


# -- on the device, to be fetched together with other things ------------------------------------------------------


def overlaps(one: Diagonal, other: Diagonal, parameters: Parameters) -> list[Tensor]:
    """`overlap` of every block, a scalar each."""

    def coefficient(a: Tensor, b: Tensor) -> Tensor:
        return (a.sqrt() * b.sqrt()).sum() / (a.sum().sqrt() * b.sum().sqrt())

    return [coefficient(_flat(one, names), _flat(other, names)) for names in parameters.values()]


def rank_overlaps(one: Diagonal, other: Diagonal, parameters: Parameters) -> list[Tensor]:
    """`rank_overlap` of every block, a scalar each."""

    def spearman(a: Tensor, b: Tensor) -> Tensor:
        stride = -(-len(a) // MOST_RANKED)
        x, y = (_ranks(values[::stride]) for values in (a, b))
        x, y = x - x.mean(), y - y.mean()
        return (x * y).sum() / (x.square().sum() * y.square().sum()).sqrt()

    return [spearman(_flat(one, names), _flat(other, names)) for names in parameters.values()]


def histogram_table(diagonal: Diagonal, parameters: Parameters) -> list[Tensor]:
    """`log_histograms`, `[blocks, BINS]` in a few pieces: small blocks are counted together."""
    groups: list[list[str]] = [[]]
    room = MOST_COUNTED
    for block, names in parameters.items():
        size = sum(diagonal[name].numel() for name in names)
        if size > room and groups[-1]:
            groups.append([])
            room = MOST_COUNTED
        groups[-1].append(block)
        room -= size
    return [
        _counts(_flat(diagonal, [name for block in group for name in parameters[block]]), sizes)
        for group in groups
        if (sizes := [sum(diagonal[name].numel() for name in parameters[block]) for block in group])
    ]


def _counts(entries: Tensor, sizes: Sequence[int]) -> Tensor:
    """Of blocks of these sizes, one after the other."""
    place = entries.log10().sub_(_LOWEST).mul_(_PER_DECADE).floor_()  # -inf for zeros
    place = place.add_(1).clamp_(0, BINS - 1).long()
    starts = [BINS * row for row in range(len(sizes))]
    torch._foreach_add_(list(place.split(sizes)), starts)
    counts = torch.zeros(BINS * len(sizes), dtype=torch.int64, device=place.device)
    return counts.scatter_add_(0, place, torch.ones_like(counts[:1]).expand_as(place)).view(-1, BINS)


def drift(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, float]:
    """The Jensen-Shannon divergence of two `log_histograms`, by block, in bits, in [0, 1]."""
    blocks = [block for block in after if block in before]
    if not blocks:
        return {}
    tables = (torch.stack([counts[block] for block in blocks]).numpy() for counts in (before, after))
    return dict(zip(blocks, jensen_shannon(*tables).tolist(), strict=True))


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Of the rows of two tables of counts, in bits (Lin 1991); nan where one of them is empty."""
    with np.errstate(invalid="ignore"):  # of an empty row, shares are nan
        one, other = (counts / counts.sum(1, keepdims=True) for counts in (p, q))
    apart = (_entropies(one) + _entropies(other)) / 2
    return np.maximum(0.0, (_entropies((one + other) / 2) - apart) / math.log(2))


def _entropies(p: np.ndarray) -> np.ndarray:
    return -special.xlogy(p, p).sum(1)


def _flat(diagonal: Diagonal, names: Sequence[str]) -> Tensor:
    flat = torch.cat([diagonal[name].flatten() for name in names])
    return flat.to(widest(flat.device))


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1; equal values share the mean of theirs."""
    values = values.contiguous()
    ordered = values.sort().values
    below = torch.searchsorted(ordered, values)
    return (below + torch.searchsorted(ordered, values, right=True) + 1).to(values) / 2
