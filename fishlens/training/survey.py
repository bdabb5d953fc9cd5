"""What a model will be given of each split: how much of it there is, how it is cut into tokens, and what is lost."""

import re
from dataclasses import dataclass
from typing import Any

from fishlens.training.tasks import Split, Task, subset
from fishlens.training.tasks.encoding import length_limit
from fishlens.training.tasks.tagged import UNSPACED

MOST = 2000
"""Larger splits are judged by so many of their examples, drawn at random."""
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class SplitSurvey:
    """One split in one language.

    tokens_per_word: None where words are not between spaces, or the task does not tell its texts. unknown: share of
    tokens that the tokenizer does not know. cut: share of rows of which the model does not see all.
    """

    split: str
    language: str
    source: str
    examples: int
    tokens_per_word: float | None
    unknown: float | None
    cut: float | None


def survey(task: Task, split: Split, tokenizer: Any, max_length: int | None, seed: int = 0) -> SplitSurvey:
    """Count tokens, unknown ones and cut rows of a split, before special tokens are added."""
    some = subset(split, MOST, seed) if len(split) > MOST else split
    rows = [row for example in some for row in task.row_texts(example)]
    if not rows:
        return SplitSurvey(split.name, split.language, split.source, len(split), None, None, None)
    limit = length_limit(tokenizer, max_length or task.max_length)
    flat = [text for row in rows for text in row]
    ids = iter(tokenizer(flat, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])
    tokens = words = unknown = cut = 0
    for row in rows:
        encoded = [next(ids) for _ in row]
        tokens += sum(map(len, encoded))
        words += sum(len(_WORD.findall(text)) for text in row)
        unknown += sum(part.count(tokenizer.unk_token_id) for part in encoded)
        room = limit - tokenizer.num_special_tokens_to_add(pair=len(row) > 1)
        cut += task.is_cut([len(part) for part in encoded], room)
    return SplitSurvey(
        split=split.name,
        language=split.language,
        source=split.source,
        examples=len(split),
        tokens_per_word=tokens / words if words and split.language not in UNSPACED else None,
        unknown=unknown / tokens if tokens else None,
        cut=cut / len(rows),
    )
