"""What the host needs of a device: fetched in one transfer, in whatever shapes and types."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

NUMPY = {
    torch.float64: np.float64, torch.float32: np.float32, torch.bool: np.bool_, torch.uint8: np.uint8,
    torch.int64: np.int64, torch.int32: np.int32,
}  # fmt: skip


def fetched(tree: Any) -> Any:
    """The nested lists, tuples and dicts `tree` with a numpy array for every tensor; one wait for every device."""
    leaves, spec = tree_flatten(tree)
    by_device: dict[torch.device, list[int]] = {}
    for place, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            by_device.setdefault(leaf.device, []).append(place)
    for places in by_device.values():
        for place, value in zip(places, _at_once([leaves[place] for place in places]), strict=True):
            leaves[place] = value
    return tree_unflatten(leaves, spec)


def _at_once(tensors: list[Tensor]) -> list[np.ndarray]:
    """As bytes, so that whole numbers, flags and floats of any width go together and keep every bit."""
    known = [(t.detach() if t.dtype in NUMPY else t.detach().float()).contiguous() for t in tensors]
    # the widest first: bytes of a wide type begin where such a type may
    order = sorted(range(len(known)), key=lambda place: -known[place].element_size())
    data = torch.cat([known[place].reshape(-1).view(torch.uint8) for place in order]).cpu().numpy()
    found: list[Any] = [None] * len(known)
    start = 0
    for place in order:
        tensor = known[place]
        stop = start + tensor.numel() * tensor.element_size()
        found[place] = data[start:stop].view(NUMPY[tensor.dtype]).reshape(tensor.shape).copy()
        start = stop
    return found


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64 (Apple's does not)."""
    return device.type != "mps"


def widest(device: torch.device) -> torch.dtype:
    """The widest floating-point type in which a device computes."""
    return torch.float64 if has_float64(device) else torch.float32
