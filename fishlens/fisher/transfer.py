"""What the host needs of a device: fetched in one transfer, in whatever shapes and types."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors

NUMPY = {
    torch.float64: np.float64, torch.float32: np.float32, torch.bool: np.bool_, torch.uint8: np.uint8,
    torch.int64: np.int64, torch.int32: np.int32,
}  # fmt: skip


def fetched(tree: Any) -> Any:
    """The nested lists, tuples and dicts `tree` with a numpy array for every tensor; one wait for every device."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for tensor in _tensors(tree):
        by_device.setdefault(tensor.device, []).append(tensor)
    arrays = {
        id(tensor): array
        for tensors in by_device.values()
        for tensor, array in zip(tensors, _at_once(tensors), strict=True)
    }
    return _exchanged(tree, arrays)


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (list, tuple, dict)):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _tensors(value)


def _exchanged(tree: Any, arrays: Mapping[int, np.ndarray]) -> Any:
    """torch's own walks of trees leave reference cycles that hold the tensors."""
    if isinstance(tree, dict):
        return {key: _exchanged(value, arrays) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)([_exchanged(value, arrays) for value in tree])
    return arrays.get(id(tree), tree)


def _at_once(tensors: list[Tensor]) -> list[np.ndarray]:
    """As bytes, so that whole numbers, flags and floats of any width go together and keep every bit."""
    by_type: dict[torch.dtype, list[int]] = {}
    known = [t.detach() if t.dtype in NUMPY else t.detach().float() for t in tensors]
    for place, tensor in enumerate(known):
        by_type.setdefault(tensor.dtype, []).append(place)
    # the widest first: bytes of a wide type begin where such a type may
    types = sorted(by_type, key=lambda kind: -kind.itemsize)
    flat = [
        _flatten_dense_tensors([known[place] for place in by_type[kind]]).view(torch.uint8) for kind in types
    ]
    data = (torch.cat(flat) if len(flat) > 1 else flat[0]).cpu().numpy()
    found: list[Any] = [None] * len(known)
    start = 0
    for kind in types:
        for place in by_type[kind]:
            shape = known[place].shape
            stop = start + shape.numel() * kind.itemsize
            found[place] = data[start:stop].view(NUMPY[kind]).reshape(shape).copy()
            start = stop
    return found


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64 (Apple's does not)."""
    return device.type != "mps"


def widest(device: torch.device) -> torch.dtype:
    """The widest floating-point type in which a device computes."""
    return torch.float64 if has_float64(device) else torch.float32
