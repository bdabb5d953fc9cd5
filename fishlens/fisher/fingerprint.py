"""A number that changes with a model's weights, also where torch does not count the write (`p.data.copy_()`)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def fingerprint(model: nn.Module) -> tuple[int, ...]:
    """A checksum of the bits of all parameters and buffers, in one pass over them and one transfer."""
    sums = [_checksum(tensor.detach()) for tensor in _tensors(model)]
    return (
        tuple(torch.stack([s for s in sums if s is not None]).tolist())
        if any(s is not None for s in sums)
        else ()
    )


def _tensors(model: nn.Module) -> Iterable[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _checksum(tensor: Tensor) -> Tensor | None:
    """The wrapped sum of the tensor's bits as whole numbers of eight bytes, and of the bytes that are left; None for
    what has no bits of its own."""
    try:
        data = tensor.contiguous().reshape(-1).view(torch.uint8)
        if data.storage_offset() % 8:
            data = data.clone()
        even = data.numel() // 8 * 8
        return data[:even].view(torch.int64).sum() + data[even:].sum()
    except (RuntimeError, NotImplementedError):
        return None
