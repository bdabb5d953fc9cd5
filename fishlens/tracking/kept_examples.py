"""Kept examples on disk, in the run's directory: a resumed training is measured on the same examples as before.

`examples.safetensors` holds the tensors; how they made up the batches, and which update each batch was fed to, is in
its metadata as JSON. No pickle.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from fishlens.errors import InputError
from fishlens.files import writing
from fishlens.fisher.batches import Batch

_PLAIN = (bool, int, float, str, type(None))


def save_examples(place: Path, batches: list[Batch], updates: list[int]) -> None:
    """Under its name only when it is whole. Raises `InputError` for arguments that a file cannot hold."""
    tensors: dict[str, Tensor] = {}
    parts = [[b.size, _taken_apart([list(b.args), b.inputs, b.labels], tensors)] for b in batches]
    metadata = {"batches": json.dumps(parts), "updates": json.dumps(updates)}
    with writing(place) as beside:
        save_file(tensors, beside, metadata)


def load_examples(place: Path, until: int, device: Any) -> tuple[list[Batch], list[int]]:
    """Batches and updates of what was fed until update `until`; nothing if nothing was kept."""
    if not place.is_file():
        return [], []
    with safe_open(place, "pt", device=str(device)) as file:
        metadata = file.metadata()
        parts, updates = json.loads(metadata["batches"]), json.loads(metadata["updates"])
        known = [(part, update) for part, update in zip(parts, updates, strict=True) if update <= until]
        batches = []
        for (size, content), _ in known:
            args, inputs, labels = _put_together(content, file.get_tensor)
            batches.append(Batch(tuple(args), inputs, labels, size))
    return batches, [update for _, update in known]


def _taken_apart(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"mapping": [[_key(key), _taken_apart(item, tensors)] for key, item in value.items()]}
    if type(value) in (list, tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_taken_apart(item, tensors) for item in value]}
    if type(value) in _PLAIN:
        return {"plain": value}
    raise InputError(f"the model is called with a {type(value).__name__}, which no file holds")


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise InputError(f"the model is called with a mapping by {type(key).__name__}, which no file holds")
    return key


def _put_together(content: dict[str, Any], tensor: Any) -> Any:
    ((kind, value),) = content.items()
    if kind == "tensor":
        return tensor(value)
    if kind == "mapping":
        return {key: _put_together(item, tensor) for key, item in value}
    if kind in ("list", "tuple"):
        items = [_put_together(item, tensor) for item in value]
        return items if kind == "list" else tuple(items)
    return value
