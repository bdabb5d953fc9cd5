"""Which rows make up which update: a pure function of the seed, so that nothing about it needs to be saved."""

import math
from collections.abc import Sequence

import torch
from transformers.trainer_pt_utils import get_length_grouped_indices


def steps_per_epoch(rows: int, batch_size: int) -> int:
    return math.ceil(rows / batch_size)


def total_steps(rows: int, batch_size: int, steps: int | None, epochs: float | None) -> int:
    """Number of updates of a run that is given in steps or in (fractional) epochs."""
    if steps is not None:
        return steps
    assert epochs is not None
    return max(1, round(epochs * steps_per_epoch(rows, batch_size)))


class Order:
    """A new permutation of all rows each epoch; one batch of an epoch may be smaller.

    With `lengths`, one per row, the rows of a batch are of similar length, so that less of it is padding: rows are
    sorted by length within fifty batches' worth of the permutation, and the batches come in random order.
    """

    def __init__(self, rows: int, batch_size: int, seed: int, lengths: Sequence[int] | None = None):
        self.rows, self.batch_size, self.seed, self.lengths = rows, batch_size, seed, lengths
        self._epoch = -1
        self._batches: list[list[int]] = []

    def batch(self, step: int) -> list[int]:
        """The rows of update number `step` (from 0)."""
        epoch, position = divmod(step, steps_per_epoch(self.rows, self.batch_size))
        if epoch != self._epoch:
            self._batches, self._epoch = self._new(epoch), epoch
        return self._batches[position]

    def _new(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        if self.lengths is None:
            return self._cut(torch.randperm(self.rows, generator=generator).tolist())
        grouped = self._cut(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))
        return [grouped[i] for i in torch.randperm(len(grouped), generator=generator).tolist()]

    def _cut(self, rows: list[int]) -> list[list[int]]:
        return [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]


def parts(batch: list[int], accumulate: int, processes: int, rank: int) -> list[list[int]]:
    """This process's share of a batch, in at most `accumulate` parts; none of them is empty.

    The shares of all processes together are the batch, whatever its size.
    """
    count = accumulate * processes
    bounds = [len(batch) * i // count for i in range(count + 1)]
    mine = range(rank * accumulate, (rank + 1) * accumulate)
    return [batch[bounds[i] : bounds[i + 1]] for i in mine if bounds[i] < bounds[i + 1]]
