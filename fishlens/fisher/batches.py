"""Batches as the engine sees them: inputs for the model, labels apart, and how many examples."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fishlens.errors import InputError
from fishlens.fisher.documents import taken_apart
from fishlens.fisher.outputs import IGNORED, LABEL_KEYS


@dataclass(frozen=True)
class Batch:
    """`args` and `inputs` go to the model; `labels` never do, so that it computes no loss."""

    args: tuple[Any, ...]
    inputs: dict[str, Any]
    labels: dict[str, Tensor]
    size: int

    def to(self, device: torch.device) -> "Batch":

        def moved(tensor: Tensor) -> Tensor:  # (what inference mode made has no place in a graph)
            return (tensor.clone() if tensor.is_inference() else tensor).to(device, non_blocking=True)

        return self._with(moved, self.size)

    def _with(self, change: Callable[[Tensor], Tensor], size: int) -> "Batch":
        """Every tensor changed, also in the mappings and sequences that the model takes."""
        return Batch(
            _changed(self.args, change), _changed(self.inputs, change), _changed(self.labels, change), size
        )

    def example(self, n: int) -> "Batch":
        """Example n alone: row n of every tensor whose leading dimension is the number of examples."""

        return self._rows(slice(n, n + 1), 1)

    def take(self, index: Tensor) -> "Batch":
        """The examples of these numbers."""
        return self._rows(index, len(index))

    def _rows(self, index: Any, size: int) -> "Batch":
        def rows(value: Tensor) -> Tensor:
            if value.dim() == 0 or value.shape[0] != self.size:
                return value
            return value[index.to(value.device) if isinstance(index, Tensor) else index]

        return self._with(rows, size)

    @property
    def columns(self) -> int | None:
        """The size of the second dimension of every tensor of the inputs; None where there are several, or none."""
        tensors = [x for x in tensors_in((self.args, self.inputs)) if x.dim() > 0]
        sizes = {x.shape[1] if x.dim() > 1 else None for x in tensors}
        return sizes.pop() if len(sizes) == 1 else None

    def first_column(self) -> "Batch":
        """The first of the `columns` of every tensor."""
        width = self.columns

        def column(value: Tensor) -> Tensor:
            return value[:, :1] if value.dim() > 1 and value.shape[1] == width else value

        return self._with(column, self.size)

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


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested mappings and sequences."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(item)


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_changed(item, change) for item in value))
    if type(value) in (tuple, list):
        return type(value)(_changed(item, change) for item in value)
    if type(value) is dict:
        return {key: _changed(item, change) for key, item in value.items()}
    return value


def batches_of(data: Any) -> Iterator[Batch]:
    """`data` as a stream of batches: one batch (a mapping, a tensor, an (inputs, labels) pair, also as the list that a
    `DataLoader` of a `TensorDataset` gives), or an iterable of them.

    Raises `InputError` for what could be either.
    """
    if isinstance(data, (Mapping, Tensor, Batch)) or _is_pair(data):
        yield as_batch(data)
        return
    if not isinstance(data, Iterable) or isinstance(data, str):
        raise InputError(f"data is a {type(data).__name__}; expected a batch or an iterable of batches")
    for item in data:
        yield as_batch(item)


def _is_pair(data: Any) -> bool:
    """Whether a sequence of tensors is one batch of inputs and labels; `InputError` if it is one of other columns."""
    if not isinstance(data, (tuple, list)) or len(data) < 2 or not all(isinstance(x, Tensor) for x in data):
        return False
    first, second = data[0], data[1]
    if isinstance(data, tuple) and len(data) == 2:
        return True
    if len({tuple(x.shape[:1]) for x in data}) > 1:
        return False  # batches of inputs, the last of another size
    alike = len({(x.shape[1:], x.dtype) for x in data}) == 1
    if alike and len(data) > 2 and not _looks_like_a_mask(second):
        return False  # batches of inputs
    if len(data) == 2 and not alike and not _is_mask_of(first, second):
        return True
    shapes = ", ".join(str(list(x.shape)) for x in data)
    raise InputError(
        f"a list of {len(data)} tensors of shapes {shapes} could be columns of one batch or several batches: "
        "give {'input_ids': …, 'attention_mask': …, 'labels': …}, a tuple (inputs, labels), or an iterator of batches"
    )


def _is_mask_of(inputs: Tensor, other: Tensor) -> bool:
    whole = not inputs.is_floating_point() and not other.is_floating_point()
    return whole and inputs.shape == other.shape and inputs.dim() == 2 and _looks_like_a_mask(other)


def _looks_like_a_mask(x: Tensor) -> bool:
    return not x.is_floating_point() and x.dim() > 1 and bool(((x == 0) | (x == 1)).all()) and bool(x.any())


def as_batch(item: Any) -> Batch:
    """One batch (or the `Batch` itself), documents that share a row taken apart.

    Raises `InputError` if it holds no input tensor or no example, a single row, pairs, or columns without names.
    """
    if isinstance(item, Batch):
        return item
    if isinstance(item, Mapping):
        _refuse_pairs(item)
        item = taken_apart(item)
        labels = {k: v for k, v in item.items() if k in LABEL_KEYS and isinstance(v, Tensor)}
        inputs = {k: v for k, v in item.items() if k not in LABEL_KEYS}
        args: tuple[Any, ...] = ()
    elif isinstance(item, Tensor):
        args, inputs, labels = (item,), {}, {}
    elif (
        isinstance(item, (tuple, list)) and len(item) == 2 and all(isinstance(part, Tensor) for part in item)
    ):
        if _is_mask_of(item[0], item[1]):
            raise InputError(
                "a pair of token ids and a tensor of the same shape with nothing but 0 and 1: an attention mask, or "
                "labels? Give a mapping, {'input_ids': …, 'attention_mask': …} or {'input_ids': …, 'labels': …}"
            )
        args, inputs, labels = (item[0],), {}, {"labels": item[1]}
    else:
        kind = type(item).__name__
        if isinstance(item, (tuple, list)):
            kind = f"{kind} of {len(item)}"
        raise InputError(
            f"a batch is a {kind}; expected a mapping of tensors, a tensor, or a pair (inputs, labels)"
        )
    first = _first_tensor(args, inputs)
    if first.is_nested:
        raise InputError("a batch has a nested tensor; expected padded rows (to_padded_tensor) and a mask")
    if first.dim() == 0 or first.shape[0] == 0:
        raise InputError(f"a batch has an input of shape {list(first.shape)}; expected at least one example")
    if "input_ids" in inputs and first.dim() == 1:
        raise InputError(
            f"a batch has input_ids of shape {list(first.shape)}, a single row; expected [examples, tokens]"
        )
    return Batch(args, dict(inputs), labels, first.shape[0])


def _refuse_pairs(item: Mapping[str, Any]) -> None:
    pairs = [str(key) for key in item if "rejected" in str(key) or "chosen" in str(key)]
    if pairs:
        raise InputError(
            f"the batch holds pairs ({', '.join(sorted(pairs))}): their loss is not a distribution of the labels "
            "of one example; give batches of single texts ('input_ids'), with output= where it cannot be told"
        )


def _first_tensor(args: tuple[Any, ...], inputs: Mapping[str, Any]) -> Tensor:
    for key in ("input_ids", "inputs_embeds", "pixel_values"):
        if isinstance(inputs.get(key), Tensor):
            return inputs[key]
    for value in tensors_in((args, inputs)):
        return value
    raise InputError(
        f"a batch has no input tensor (keys: {', '.join(map(str, inputs)) or 'none'}); expected input_ids"
    )
