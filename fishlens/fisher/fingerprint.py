"""A number that changes with a model's weights, also where torch does not count the write (`p.data.copy_()`)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors

from fishlens.fisher.walk import known, tensors_of

_PLAIN = (Tensor, nn.Parameter)
_TYPES = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool}
WHOLE = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}
WIDTH = 1021  # a prime, so that tensors of any usual size that change places change columns
SMALL = 2**18  # bytes of a tensor that is summed together with others
MOST = 2**19  # bytes of all of them on a CPU, so many that they are summed out of its cache
MOST_ELSEWHERE = 2**26


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
    left_out = frozenset(map(id, without))

    def found() -> list[list[Group]]:
        return _by_device([tensor for tensor in tensors_of(model) if id(tensor) not in left_out])

    with torch.no_grad():
        try:
            sums = _sums(known(model, ("checksums", left_out), found))
        except RuntimeError:  # some lie on another device since
            sums = _sums(found())
        return Weights(step, tuple(torch.stack(each) for each in sums if each))


@dataclass(frozen=True)
class Group:
    """`plain` tensors of one type, which are laid side by side; or one of any kind."""

    tensors: list[Tensor]
    plain: bool

    def sum(self) -> Tensor | None:
        if self.plain:
            return _weighted(_flatten_dense_tensors(self.tensors))
        bits = _bits(self.tensors[0])
        return bits if bits is None else _weighted(bits) if bits.nbytes <= SMALL else bits.sum()


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


def _by_device(tensors: Iterable[Tensor]) -> list[list[Group]]:
    """Every large tensor alone, small ones of a type together."""
    small: dict[tuple[torch.device, torch.dtype], list[list[Tensor]]] = {}
    found: dict[torch.device, list[Group]] = {}
    for tensor in tensors:
        of_device = found.setdefault(tensor.device, [])
        plain = type(tensor) in _PLAIN and tensor.dtype in _TYPES and tensor.layout is torch.strided
        if not plain or tensor.nbytes > SMALL:
            of_device.append(Group([tensor], plain=False))
            continue
        parts = small.setdefault((tensor.device, tensor.dtype), [[]])
        most = MOST if tensor.device.type == "cpu" else MOST_ELSEWHERE
        if sum(t.nbytes for t in parts[-1]) >= most:
            parts.append([])
        parts[-1].append(tensor)
    for (device, _), parts in small.items():
        found[device] += [Group(part, plain=True) for part in parts]
    return list(found.values())


def _sums(groups: Iterable[list[Group]]) -> list[list[Tensor]]:
    """Of every group a number, by device."""
    return [[total for group in of_device if (total := group.sum()) is not None] for of_device in groups]


def _weighted(entries: Tensor) -> Tensor:
    """Σ (2 (i mod `WIDTH`) + 1) x_i, wrapped, over words of eight bytes and what is left: it changes when entries
    change places, too."""
    raw = entries.view(torch.uint8)
    if raw.storage_offset() % 8:
        raw = raw.clone()
    words = raw[: len(raw) // 8 * 8].view(torch.int64)
    end = len(words) // WIDTH * WIDTH
    columns = words[:end].view(-1, WIDTH).sum(0)
    each = torch.cat([columns, words[end:], raw[8 * len(words) :].long()])
    return (each * torch.arange(1, 2 * len(each), 2, device=each.device)).sum()
