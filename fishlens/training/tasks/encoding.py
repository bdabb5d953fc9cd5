"""From text to padded tensors: what all tasks share, for any Hugging Face tokenizer."""

import logging
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fishlens.errors import InputError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
CHUNK = 1000


def length_limit(tokenizer: Any, wanted: int) -> int:
    """`wanted`, or less where the model takes less; says so in the log, because it changes what is read."""
    most = tokenizer.model_max_length
    if wanted > most:
        _say_that_rows_are_cut(wanted, most)
    return min(wanted, most)


@cache  # once for each pair of numbers, not once for each language
def _say_that_rows_are_cut(wanted: int, most: int) -> None:
    log.warning("max_length is %d, but the model takes %d tokens: rows are cut there", wanted, most)


def chunks(n: int) -> Iterator[slice]:
    """Slices of [0, n) to tokenize one after the other: a fast tokenizer's result takes 100 times its ids' memory."""
    for begin in range(0, n, CHUNK):
        yield slice(begin, begin + CHUNK)


def require_fast(tokenizer: Any, why: str) -> None:
    """Raise InputError unless the tokenizer knows the character offsets of its tokens."""
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"{type(tokenizer).__name__} is not a fast tokenizer, so it gives no character offsets, which {why} needs:"
            " use a model with a tokenizer.json"
        )


def encode_texts(
    tokenizer: Any, first: list[str], second: list[str] | None, max_length: int
) -> list[dict[str, np.ndarray]]:
    """Token ids (and token types, where the model has them) of texts or pairs, cut at max_length, longest first.

    The attention mask is not kept: `pad` makes it from the lengths.
    """
    limit = length_limit(tokenizer, max_length)
    rows = []
    for part in chunks(len(first)):
        encoded = tokenizer(
            first[part],
            second[part] if second is not None else None,
            truncation="longest_first",
            max_length=limit,
            return_attention_mask=False,
        )
        rows += [token_ids(encoded, i) for i in range(len(encoded["input_ids"]))]
    return rows


def token_ids(encoded: Any, row: int) -> dict[str, np.ndarray]:
    """`input_ids` and, where the model has them, `token_type_ids` of one row of a tokenizer's result."""
    keys = [key for key in ("input_ids", "token_type_ids") if key in encoded]
    return {key: np.asarray(encoded[key][row], dtype=np.int32) for key in keys}


def pad(rows: Sequence[dict[str, Any]], tokenizer: Any) -> "dict[str, torch.Tensor]":
    """`input_ids`, `attention_mask` and, if there, `token_type_ids`: int64 `[rows, longest]`."""
    import torch

    ids = [row["input_ids"] for row in rows]
    batch = {
        "input_ids": pad_rows(ids, tokenizer.pad_token_id, tokenizer.padding_side),
        "attention_mask": pad_rows([np.ones_like(row) for row in ids], 0, tokenizer.padding_side),
    }
    if "token_type_ids" in rows[0]:
        types = [row["token_type_ids"] for row in rows]
        batch["token_type_ids"] = pad_rows(types, tokenizer.pad_token_type_id, tokenizer.padding_side)
    return {key: torch.from_numpy(value) for key, value in batch.items()}


def pad_rows(rows: Sequence[np.ndarray], value: int, side: str) -> np.ndarray:
    """int64 `[rows, longest]`, filled with `value` on the left or on the right."""
    longest = max(len(row) for row in rows)
    padded = np.full((len(rows), longest), value, dtype=np.int64)
    for i, row in enumerate(rows):
        if side == "left":
            padded[i, longest - len(row) :] = row
        else:
            padded[i, : len(row)] = row
    return padded
