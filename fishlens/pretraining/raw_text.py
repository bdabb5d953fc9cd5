"""Raw text for masked-language modelling: lines of files, as rows of token ids, drawn in batches.

A batch is a pure function of (seed, step): nothing about the data has to be saved to resume a run exactly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fishlens.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Rows = list[list[int]]
_POOL = 8  # batches that are drawn together and sorted by length, so that little is padded


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 file, split on line feeds only; an empty string stands between two documents.

    Raises:
        InputError: no such file, not UTF-8, or no text in it.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: byte {error.start} cannot be decoded") from error
    lines = [line.strip(" \t\r") for line in text.strip().split("\n")]
    if not any(lines):
        raise InputError(f"{path} has no text in it")
    return [line for line, before in zip(lines, ["", *lines], strict=False) if line or before]


def read_parallel(paths: Mapping[str, str | Path]) -> dict[str, list[str]]:
    """Files whose line i says the same; empty lines are kept, so that the numbers agree.

    Raises:
        InputError: the files do not have the same number of lines.
    """
    found = {}
    for language, path in paths.items():
        read_lines(path)  # raises for what cannot be read
        found[language] = Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    counts = {str(paths[language]): len(lines) for language, lines in found.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{path} has {count}" for path, count in counts.items())
        raise InputError(f"parallel files must have the same number of lines: {listed}")
    return found


def encode_lines(
    tokenizer: "PreTrainedTokenizerBase", lines: Sequence[str], max_length: int, *, join: bool
) -> Rows:
    """Token ids with special tokens, at most `max_length` a row.

    With `join`, consecutive lines of a document share a row as long as they fit (single sentences are short), with the
    marks between them that the tokenizer puts between the two texts of a pair. An empty line ends a document. A line
    longer than a row is cut into several.
    """
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    if first is None or last is None:
        raise InputError(f"{type(tokenizer).__name__} has no cls and sep token to put around a row")
    room = max_length - 2
    if room < 1:
        raise InputError(
            f"max_length is {max_length}, but a row needs at least one token between cls and sep"
        )
    between = [last] * (tokenizer.num_special_tokens_to_add(pair=True) - 2)
    encoded = tokenizer(list(lines), add_special_tokens=False, verbose=False)["input_ids"]
    pieces: Rows = []
    fresh = True  # at the start of a document
    for ids in encoded:
        if ids and join and not fresh and len(pieces[-1]) + len(between) + len(ids) <= room:
            pieces[-1] += [*between, *ids]
        else:
            pieces += [ids[i : i + room] for i in range(0, len(ids), room)]
        fresh = not ids
    # build_inputs_with_special_tokens adds nothing in a plain PreTrainedTokenizerFast
    return [[first, *ids, last] for ids in pieces]


def encode_pairs(
    tokenizer: "PreTrainedTokenizerBase", first: Sequence[str], second: Sequence[str], max_length: int
) -> Rows:
    """Translations side by side in one row, as a pair of sentences; pairs that do not fit are left out."""
    both = [(a, b) for a, b in zip(first, second, strict=True) if a.strip() and b.strip()]
    if not both:
        return []
    encoded = tokenizer([a for a, _ in both], [b for _, b in both], verbose=False)["input_ids"]
    return [ids for ids in encoded if len(ids) <= max_length]


@dataclass(frozen=True)
class Batches:
    """Batches over several corpora (languages, or translation pairs).

    rows: for each corpus its rows. weights: how often each corpus is drawn from. size: rows in a batch.
    """

    rows: dict[str, Rows]
    weights: dict[str, float]
    size: int
    seed: int

    def __post_init__(self) -> None:
        empty = [name for name, rows in self.rows.items() if not rows]
        if empty:
            raise InputError(f"no row of text for {', '.join(empty)}")

    def at(self, step: int) -> Rows:
        """The batch of this step: always the same rows."""
        pool, place = divmod(step, _POOL)
        random = np.random.default_rng([self.seed, 1, pool])
        names = sorted(self.rows)
        shares = np.array([self.weights[name] for name in names])
        drawn = random.choice(len(names), size=_POOL * self.size, p=shares / shares.sum())
        picked = [self.rows[names[c]][int(random.integers(len(self.rows[names[c]])))] for c in drawn]
        order = np.argsort([len(row) for row in picked], kind="stable")
        mine = order.reshape(_POOL, self.size)[random.permutation(_POOL)[place]]
        return [picked[i] for i in mine]


def language_weights(rows: Mapping[str, Rows], smoothing: float) -> dict[str, float]:
    """Shares ∝ (number of rows) ** smoothing: 1 as the text is, 0 all languages alike, 0.3 as in XLM-R."""
    return {name: float(len(found)) ** smoothing for name, found in rows.items()}


def pad(rows: Rows, padding: int) -> "tuple[Any, Any]":
    """Token ids and attention mask, int64 arrays [rows, longest]."""
    ids = np.full((len(rows), max(map(len, rows))), padding, dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        mask[i, : len(row)] = 1
    return ids, mask
