"""Which rows make up which update: a pure function of the seed, so that nothing about it needs to be saved."""

import math

import torch


def steps_per_epoch(rows: int, batch_size: int) -> int:
    return math.ceil(rows / batch_size)


def total_steps(rows: int, batch_size: int, steps: int | None, epochs: float | None) -> int:
    """Number of updates of a run that is given in steps or in (fractional) epochs."""
    if steps is not None:
        return steps
    assert epochs is not None
    return max(1, round(epochs * steps_per_epoch(rows, batch_size)))


class Order:
    """A new permutation of all rows each epoch; the last batch of an epoch may be smaller."""

    def __init__(self, rows: int, batch_size: int, seed: int):
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self._epoch = -1
        self._permutation: list[int] = []

    def batch(self, step: int) -> list[int]:
        """The rows of update number `step` (from 0)."""
        epoch, position = divmod(step, steps_per_epoch(self.rows, self.batch_size))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._permutation = torch.randperm(self.rows, generator=generator).tolist()
            self._epoch = epoch
        return self._permutation[position * self.batch_size : (position + 1) * self.batch_size]


def parts(batch: list[int], accumulate: int, processes: int, rank: int) -> list[list[int]]:
    """This process's share of a batch, in at most `accumulate` parts; none of them is empty.

    The shares of all processes together are the batch, whatever its size.
    """
    count = accumulate * processes
    bounds = [len(batch) * i // count for i in range(count + 1)]
    mine = range(rank * accumulate, (rank + 1) * accumulate)
    return [batch[bounds[i] : bounds[i + 1]] for i in mine if bounds[i] < bounds[i + 1]]
