"""Telling examples apart by what they hold, so that a second epoch is not taken for more examples."""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from fishlens.fisher.batches import Batch, tensors_in

MASK = "attention_mask"


def examples_apart(batch: Batch) -> list[bytes]:
    """What tells each example of a batch from others: the bits of all that is its own, labels too, less its padding
    (another batch is padded to another length)."""
    digests = [hashlib.blake2b(digest_size=16) for _ in range(batch.size)]
    mask = batch.inputs.get(MASK)
    real = mask.cpu().bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None
    for name, tensor in _by_example(batch):
        here = tensor.cpu()
        for digest, row, at in zip(digests, here, range(batch.size), strict=True):
            if real is not None and here.shape[:2] == real.shape:
                row = row[real[at]]
            digest.update(f"{name} {row.dtype} {row.dim()}".encode())
            digest.update(row.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return [digest.digest() for digest in digests]


def only_rows(batch: Batch, rows: list[int]) -> Batch:
    """The batch with these examples alone."""
    return batch.take(torch.tensor(rows, dtype=torch.long))


def _by_example(batch: Batch) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of everything that has one row for each example."""
    named = [*enumerate(batch.args), *batch.inputs.items(), *batch.labels.items()]
    for name, value in named:
        for number, tensor in enumerate(tensors_in(value)):
            if tensor.layout == torch.strided and tensor.dim() > 0 and len(tensor) == batch.size:
                yield f"{name}.{number}" if number else str(name), tensor
