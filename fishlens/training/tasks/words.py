"""Which token stands for which word of a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SPACE_MARKERS = ("▁", "Ġ")
"""Tokens that stand for a space alone. Some tokenizers give them the offsets of the character after it."""


@dataclass(frozen=True)
class SpacedText:
    """A text and where its words are: `start[i]` and `end[i]` are the characters of word i."""

    text: str
    start: tuple[int, ...]
    end: tuple[int, ...]


def spaced_text(words: Sequence[str], space_after: Sequence[bool]) -> SpacedText:
    """The text that the words spell, with spaces only where they are said to be: the text that a model knows."""
    text, start, end = "", [], []
    for word, space in zip(words, space_after, strict=True):
        start.append(len(text))
        text += word
        end.append(len(text))
        text += " " if space else ""
    return SpacedText(text.removesuffix(" "), tuple(start), tuple(end))


def word_tokens(
    text: SpacedText, tokens: Sequence[str], offsets: np.ndarray, first_word: int
) -> dict[int, int]:
    """{word: position of its token} for one row of tokens, for the words from `first_word` on.

    A word's token is the first one with its first character in it; where the tokenizer made no token of that character,
    the next token that begins inside the word. Several short words may share a token. A word without any token in this
    row is absent.

    offsets: `[tokens, 2]` characters; tokens that stand for nothing in the text (special ones) have an empty span.
    """
    content = [
        i for i in range(len(tokens)) if offsets[i, 0] < offsets[i, 1] and tokens[i] not in SPACE_MARKERS
    ]
    if not content:
        return {}
    begin, stop = offsets[content, 0], offsets[content, 1]
    found = {}
    for word in range(first_word, len(text.start)):
        if text.start[word] >= stop[-1]:
            break
        last = int(np.searchsorted(begin, text.start[word], side="right")) - 1
        at = int(np.searchsorted(begin, begin[last], side="left")) if last >= 0 else -1
        if at < 0 or stop[last] <= text.start[word]:
            at = last + 1
            if at == len(begin) or begin[at] >= text.end[word]:
                continue
        found[word] = content[at]
    return found
