"""A number that changes with a model's weights, also where torch does not count the write (`p.data.copy_()`)."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors

from fishlens.fisher.walk import named_tensors

_PLAIN = (Tensor, nn.Parameter)
_TYPES = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool}
WHOLE = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}
SMALL, MOST = 2**18, 2**26  # bytes: of a tensor that is summed together with others, and of all that are


@dataclass(frozen=True)
class Weights:
    """A model's weights at one step, as checksums that stay on their devices until they are compared."""

    step: int
    checksums: tuple[Tensor, ...]

    def same_as(self, other: "Weights | None") -> bool:
        """Whether both are of one step and the same bits; the host waits only where the steps agree."""
        if other is None or other.step != self.step or len(other.checksums) != len(self.checksums):
            return False
        return all(map(torch.equal, self.checksums, other.checksums))


def weights_of(model: nn.Module, step: int, without: Iterable[Tensor] = ()) -> Weights:
    """A checksum of the bits of all parameters and buffers (but those `without`), in one pass over them and without
    waiting for it."""
    by_device: dict[torch.device, list[Tensor]] = {}
    left_out = set(map(id, without))
    for _, tensor in named_tensors(model):
        if id(tensor) not in left_out and tensor.numel():
            by_device.setdefault(tensor.device, []).append(tensor)
    with torch.no_grad():
        sums = [list(_sums(tensors)) for tensors in by_device.values()]
        return Weights(step, tuple(torch.stack(each) for each in sums if each))


def _bits(tensor: Tensor) -> Tensor | None:
    """The tensor's entries as whole numbers of their size; None for what has no bits of its own."""
    try:
        flat = tensor.contiguous().reshape(-1)
        if flat.is_complex():
            flat = torch.view_as_real(flat).reshape(-1)
        bits = flat.view(WHOLE[flat.element_size()])
        wide = bits.element_size() == 4 and not bits.numel() % 2 and not bits.storage_offset() % 2
        return bits.view(torch.int64) if wide else bits
    except (RuntimeError, NotImplementedError, KeyError):
        return None


def _sums(tensors: list[Tensor]) -> Iterator[Tensor]:
    """Of every large tensor the wrapped sum; small ones of a type are laid side by side first."""
    small: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        plain = type(tensor) in _PLAIN and tensor.dtype in _TYPES and tensor.layout is torch.strided
        if plain and tensor.nbytes <= SMALL:
            parts = small.setdefault(tensor.dtype, [])
            parts.append(tensor)
            if len(parts) >= MOST // SMALL:
                yield _weighted(small.pop(tensor.dtype))
        elif (bits := _bits(tensor)) is not None:
            yield _weighted([bits]) if bits.nbytes <= SMALL else bits.sum()
    for parts in small.values():
        yield _weighted(parts)


def _weighted(parts: list[Tensor]) -> Tensor:
    """Σ (2i + 1) x_i, wrapped, over words of eight bytes and what is left: it changes when entries change places, too.

    Of the words as a square, i = row · width + column: the sums of rows and columns have their weights each.
    """
    together = _flatten_dense_tensors(parts).view(torch.uint8)
    if together.storage_offset() % 8:
        together = together.clone()
    end = len(together) // 8 * 8
    words = together[:end].view(torch.int64)
    width = math.isqrt(len(words))
    square = words[: width * width].view(width, width)
    rest = torch.cat([words[width * width :], together[end:].long()])
    one = torch.arange(max(width, len(rest)), device=together.device)
    columns, rows = square.sum(0) * (2 * one[:width] + 1), square.sum(1) * (2 * width * one[:width])
    return torch.cat([columns, rows, rest * (2 * (width * width + one[: len(rest)]) + 1)]).sum()
