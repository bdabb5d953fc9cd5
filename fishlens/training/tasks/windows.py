"""Extractive QA: contexts cut into overlapping windows, answers as spans of tokens and of characters."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from fishlens.errors import InputError
from fishlens.training.tasks.encoding import chunks, length_limit, log, require_fast, token_ids

NOT_CONTEXT = -1
"""The offset of tokens that are not part of the context."""


@dataclass(frozen=True)
class Window:
    """One row for the model: a question and a part of its context.

    example: index of the question. ids: `input_ids` and, where the model has them, `token_type_ids`, `[tokens]` each.
    offsets: `[tokens, 2]`, begin and end of each context token in characters of the context, -1 for all other tokens.
    """

    example: int
    ids: Mapping[str, np.ndarray]
    offsets: np.ndarray


def windows(
    tokenizer: Any,
    questions: Sequence[str],
    contexts: Sequence[str],
    max_length: int,
    stride: int,
    max_question: int,
) -> Iterable[Window]:
    """Windows of at most max_length tokens; neighbours share `stride` tokens of the context.

    Questions are cut after max_question tokens, and both limits give way where the model takes fewer than max_length
    tokens, so that a window always moves on.
    """
    require_fast(tokenizer, "question answering")
    length = length_limit(tokenizer, max_length)
    room = length - tokenizer.num_special_tokens_to_add(pair=True)
    if room < 4:
        raise InputError(f"max_length {length} leaves {room} tokens for question and context: too few")
    max_question = min(max_question, room // 2)
    if stride >= room - max_question:
        _say_that_the_stride_is_shortened(stride, length, room // 4)
        stride = room // 4
    for part in chunks(len(questions)):
        encoded = tokenizer(
            cut(tokenizer, questions[part], max_question),
            list(contexts[part]),
            truncation="only_second",
            max_length=length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        for row, example in enumerate(encoded["overflow_to_sample_mapping"]):
            offsets = np.asarray(encoded["offset_mapping"][row], dtype=np.int32)
            offsets[[which != 1 for which in encoded[row].sequence_ids]] = NOT_CONTEXT
            yield Window(part.start + example, token_ids(encoded, row), offsets)


@cache  # once, not once for each language
def _say_that_the_stride_is_shortened(stride: int, length: int, used: int) -> None:
    log.warning("stride %d is too long for windows of %d tokens: %d is used", stride, length, used)


def cut(tokenizer: Any, texts: Sequence[str], tokens: int) -> list[str]:
    """The texts, those longer than so many tokens cut at a token's end."""
    encoded = tokenizer(
        list(texts), add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False
    )
    return [
        text[: offsets[tokens - 1][1]] if len(offsets) > tokens else text
        for text, offsets in zip(texts, encoded["offset_mapping"], strict=True)
    ]


def token_span(window: Window, begin: int, end: int) -> tuple[int, int] | None:
    """First and last token of the characters [begin, end), or None if they are not all in the window."""
    context = np.flatnonzero(window.offsets[:, 0] != NOT_CONTEXT)
    if not len(context):
        return None
    starts, stops = window.offsets[context, 0], window.offsets[context, 1]
    if begin < starts[0] or end > stops[-1]:
        return None
    first = int(np.searchsorted(starts, begin, side="right")) - 1
    last = int(np.searchsorted(stops, end, side="left"))
    return int(context[first]), int(context[max(first, last)])


@dataclass(frozen=True)
class Span:
    """A candidate answer: characters [begin, end) of the context and its score, the sum of its two logits."""

    begin: int
    end: int
    score: float


def best_span(
    offsets: np.ndarray, start: np.ndarray, end: np.ndarray, n_best: int, max_tokens: int
) -> Span | None:
    """The best pair among the n_best starts and n_best ends of one window, or None if none of them is an answer.

    offsets: as in `Window`. start, end: logits `[tokens]`. An answer lies in the context, does not end before it begins
    and has at most max_tokens tokens. Of equal scores the first in token order wins.
    """
    starts = np.sort(np.argsort(-start, kind="stable")[:n_best])
    ends = np.sort(np.argsort(-end, kind="stable")[:n_best])
    starts = starts[offsets[starts, 0] != NOT_CONTEXT]
    ends = ends[offsets[ends, 0] != NOT_CONTEXT]
    if not len(starts) or not len(ends):
        return None
    length = ends[None, :] - starts[:, None] + 1
    scores = np.where(
        (length >= 1) & (length <= max_tokens), start[starts][:, None] + end[ends][None, :], -np.inf
    )
    i, j = np.unravel_index(int(scores.argmax()), scores.shape)
    if scores[i, j] == -np.inf:
        return None
    return Span(int(offsets[starts[i], 0]), int(offsets[ends[j], 1]), float(scores[i, j]))
