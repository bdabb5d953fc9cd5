"""Rows that hold several documents, taken apart: the documents are the examples.

Packing puts documents one after the other into a row and says where each begins: position ids that start again, a
document number per token, cumulative lengths, a mask in which no token sees another document. Each document becomes a
row of its own, padded on the right.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fishlens.errors import InputError

_NUMBERED = ("seq_idx", "document_ids", "segment_ids")
_LENGTHS = ("cu_seq_lens_q", "cu_seqlens", "cu_seq_lens")
_SAYS_WHERE = {*_NUMBERED, *_LENGTHS, "cu_seq_lens_k", "max_length_q", "max_length_k", "position_ids"}


def taken_apart(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """The batch with one document a row; the batch itself where every row is one document already.

    Raises `InputError` for a column that cannot be taken apart.
    """
    ids = item.get("input_ids")
    if not isinstance(ids, Tensor) or ids.dim() != 2:
        return item
    pairs = _mask_of_pairs(item, ids)
    numbers = _document_numbers(item, ids) if pairs is None else _numbers_by_mask(pairs)
    if numbers is None:
        return item
    spans = [span for row, of_row in enumerate(numbers) for span in _spans(row, of_row)]
    if len(spans) <= len(ids):
        return item
    longest = max(stop - start for _, start, stop in spans)
    if pairs is not None and not isinstance(item.get("position_ids"), Tensor):
        raise InputError(
            f"the rows of the batch are packed documents ({len(spans)} in {len(ids)} rows, says attention_mask of "
            f"shape {list(pairs.shape)}), and the positions of their tokens are the model's choice; expected "
            "position_ids beside it"
        )
    columns: dict[str, Any] = {}
    for key, value in item.items():
        if key == "position_ids" and pairs is not None:
            columns[key] = _padded(value.expand(ids.shape), spans, longest, 0)
        if key in _SAYS_WHERE or key == "attention_mask":
            continue
        if not isinstance(value, Tensor):
            columns[key] = value
        elif value.shape[:2] == ids.shape:
            columns[key] = _padded(value, spans, longest, -100 if key in ("labels", "label_ids") else 0)
        else:
            raise InputError(
                f"the rows of the batch are packed documents, and {key!r} of shape {list(value.shape)} is not one "
                "value a token: which document it belongs to cannot be told; give one document a row"
            )
    own = _padded(torch.ones_like(ids), spans, longest, 0)
    columns["attention_mask"] = own if pairs is None else _cut(pairs, spans, longest)
    return columns


def _mask_of_pairs(item: Mapping[str, Any], ids: Tensor) -> Tensor | None:
    mask, (count, tokens) = item.get("attention_mask"), ids.shape
    if not isinstance(mask, Tensor) or mask.dim() < 3 or mask.shape[-2:] != (tokens, tokens):
        return None
    return mask if len(mask) == count else None


def real_tokens(mask: Tensor) -> Tensor:
    """Which tokens are not padding, `[N, T]`: from a mask of tokens, or of pairs `[N, …, T, T]`."""
    if mask.dim() < 3:
        return mask.bool()
    return _seen(mask).diagonal(dim1=1, dim2=2)


def _seen(mask: Tensor) -> Tensor:
    """Which token sees which, `[N, T, T]`."""
    return _allowed(mask).flatten(1, -3).any(1) if mask.dim() > 3 else _allowed(mask)


def _numbers_by_mask(mask: Tensor) -> Tensor:
    """`[N, T]` from a mask of pairs `[N, …, T, T]`: a document ends where no token sees one beyond, or is seen."""
    sees = _seen(mask)
    real = sees.diagonal(dim1=1, dim2=2)
    sees = (sees | sees.transpose(1, 2)) & real.unsqueeze(1) & real.unsqueeze(2)
    place = torch.arange(sees.shape[1], device=mask.device)
    first = torch.where(sees, place, len(place)).amin(2).minimum(place)
    begins = first.flip(1).cummin(1).values.flip(1) == place
    return begins.cumsum(1) * real


def _allowed(mask: Tensor) -> Tensor:
    """Which pairs a mask allows: true or one where it says so, zero where it is added to the scores."""
    return mask == 0 if mask.is_floating_point() and bool((mask <= 0).all()) else mask > 0


def _cut(mask: Tensor, spans: list[tuple[int, int, int]], longest: int) -> Tensor:
    """The part of every document; padding sees its first token, because no row may see nothing."""
    allowed = _allowed(mask)
    no, yes = (mask[pairs].flatten()[:1] for pairs in (~allowed, allowed))
    out = no.expand(len(spans), *mask.shape[1:-2], longest, longest).clone()
    out[..., 0] = yes
    for n, (row, start, stop) in enumerate(spans):
        out[n, ..., : stop - start, : stop - start] = mask[row, ..., start:stop, start:stop]
    return out


def _document_numbers(item: Mapping[str, Any], ids: Tensor) -> Tensor | None:
    """`[N, T]`: another number wherever another document begins, 0 for padding; None if nothing says so."""
    mask = item.get("attention_mask")
    whole = True
    if isinstance(mask, Tensor):  # one wait, where the batch lies on a device
        lowest, highest = torch.stack(torch.aminmax(mask)).tolist() if mask.numel() else (1, 1)
        whole = lowest > 0 or (lowest < 0 and bool((mask != 0).all()))
        numbered = highest > 1
        if numbered and mask.shape == ids.shape and not mask.is_floating_point():
            return mask
    for key in _NUMBERED:
        value = item.get(key)
        if isinstance(value, Tensor) and value.shape == ids.shape:
            return value - value.min() + 1 if whole else (value - value.min() + 1) * (mask != 0)
    for key in _LENGTHS:
        value = item.get(key)
        if isinstance(value, Tensor) and value.dim() == 1 and len(ids) == 1:
            begins = torch.zeros_like(ids)
            begins[0, value[(value >= 0) & (value < ids.shape[1])].long()] = 1
            return begins.cumsum(1)
    positions = item.get("position_ids")
    if isinstance(positions, Tensor) and positions.shape == ids.shape and whole:
        begins = torch.ones_like(positions)
        begins[:, 1:] = (positions[:, 1:] != positions[:, :-1] + 1).to(positions.dtype)
        starts_low = bool((positions[begins.bool()] == positions[:, :1].min()).all())
        return begins.cumsum(1) if starts_low else None
    return None


def _spans(row: int, numbers: Tensor) -> list[tuple[int, int, int]]:
    changes = [0, *((numbers[1:] != numbers[:-1]).nonzero().flatten() + 1).tolist(), len(numbers)]
    return [
        (row, start, stop)
        for start, stop in itertools.pairwise(changes)
        if stop > start and int(numbers[start]) != 0
    ]


def _padded(value: Tensor, spans: list[tuple[int, int, int]], longest: int, filler: int) -> Tensor:
    out = value.new_full((len(spans), longest, *value.shape[2:]), filler)
    for n, (row, start, stop) in enumerate(spans):
        out[n, : stop - start] = value[row, start:stop]
    return out
