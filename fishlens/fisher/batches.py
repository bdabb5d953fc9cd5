"""Batches as the engine sees them: inputs for the model, labels apart, and how many examples."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fishlens.errors import InputError
from fishlens.fisher.outputs import IGNORED, LABEL_KEYS


@dataclass(frozen=True)
class Batch:
    """`args` and `inputs` go to the model; `labels` never do, so that it computes no loss."""

    args: tuple[Any, ...]
    inputs: dict[str, Any]
    labels: dict[str, Tensor]
    size: int

    def to(self, device: torch.device) -> "Batch":
        def move(value: Any) -> Any:
            return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value

        return Batch(
            tuple(move(a) for a in self.args),
            {k: move(v) for k, v in self.inputs.items()},
            {k: move(v) for k, v in self.labels.items()},
            self.size,
        )

    def example(self, n: int) -> "Batch":
        """Example n alone: row n of every tensor whose leading dimension is the number of examples."""

        return self._rows(slice(n, n + 1), 1)

    def take(self, index: Tensor) -> "Batch":
        """The examples of these numbers."""
        return self._rows(index, len(index))

    def _rows(self, index: Any, size: int) -> "Batch":
        def rows(value: Any) -> Any:
            per_example = isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == self.size
            if not per_example:
                return value
            return value[index.to(value.device) if isinstance(index, Tensor) else index]

        return Batch(
            tuple(rows(a) for a in self.args),
            {k: rows(v) for k, v in self.inputs.items()},
            {k: rows(v) for k, v in self.labels.items()},
            size,
        )

    @property
    def scored(self) -> bool:
        """Whether any label counts, so is not −100; true without labels."""
        return not self.labels or any(bool((value != IGNORED).any()) for value in self.labels.values())

    @property
    def tokens(self) -> int:
        """Positions per row of the network, the T of `input_ids` `[N, T]` or `[N, choices, T]`; 1 without
        tokens."""
        ids, embedded = self.inputs.get("input_ids"), self.inputs.get("inputs_embeds")
        if isinstance(ids, Tensor):
            return ids.shape[-1]
        return embedded.shape[-2] if isinstance(embedded, Tensor) else 1


def batches_of(data: Any) -> Iterator[Batch]:
    """`data` as a stream of batches: one batch (a mapping, a tensor, an (inputs, labels) pair), or an
    iterable of them."""
    if isinstance(data, (Mapping, Tensor, Batch)) or _is_pair(data):
        yield as_batch(data)
        return
    if not isinstance(data, Iterable) or isinstance(data, str):
        raise InputError(f"data is a {type(data).__name__}; expected a batch or an iterable of batches")
    for item in data:
        yield as_batch(item)


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)


def as_batch(item: Any) -> Batch:
    """One batch (or the `Batch` itself); `InputError` if it holds no input tensor or no example."""
    if isinstance(item, Batch):
        return item
    if isinstance(item, Mapping):
        labels = {k: v for k, v in item.items() if k in LABEL_KEYS and isinstance(v, Tensor)}
        inputs = {k: v for k, v in item.items() if k not in LABEL_KEYS}
        args: tuple[Any, ...] = ()
    elif isinstance(item, Tensor):
        args, inputs, labels = (item,), {}, {}
    elif (
        isinstance(item, (tuple, list)) and len(item) == 2 and all(isinstance(part, Tensor) for part in item)
    ):
        args, inputs, labels = (item[0],), {}, {"labels": item[1]}
    else:
        kind = type(item).__name__
        raise InputError(
            f"a batch is a {kind}; expected a mapping of tensors, a tensor, or a pair (inputs, labels)"
        )
    first = _first_tensor(args, inputs)
    if first.dim() == 0 or first.shape[0] == 0:
        raise InputError(f"a batch has an input of shape {list(first.shape)}; expected at least one example")
    return Batch(args, dict(inputs), labels, first.shape[0])


def _first_tensor(args: tuple[Any, ...], inputs: Mapping[str, Any]) -> Tensor:
    for key in ("input_ids", "inputs_embeds", "pixel_values"):
        if isinstance(inputs.get(key), Tensor):
            return inputs[key]
    for value in (*args, *inputs.values()):
        if isinstance(value, Tensor):
            return value
    raise InputError(
        f"a batch has no input tensor (keys: {', '.join(map(str, inputs)) or 'none'}); expected input_ids"
    )
