"""Tasks that give a label to every word of a sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fishlens.errors import InputError
from fishlens.training.tasks.base import NOT_SCORED, Feature, Prediction, Split, Task
from fishlens.training.tasks.encoding import chunks, length_limit, pad, pad_rows, require_fast, token_ids
from fishlens.training.tasks.words import SpacedText, spaced_text, word_tokens

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TaggedSentence:
    """Words, their tags as indices into the task's labels, and whether a space follows each word in the text."""

    id: str
    words: tuple[str, ...]
    tags: tuple[int, ...]
    space_after: tuple[bool, ...]


class Tagging(Task):
    """One label per word.

    The model reads the sentence as it is written, spaces only where the text has them, so that a pretrained tokenizer
    sees what it knows (Chinese and Thai have none). A word is labelled at its first token; all other tokens have the
    label -100. A sentence that is longer than a row goes on in the next row, and every word is in one of them.
    """

    output = "tagging"
    labels: tuple[str, ...]
    without_token: str
    """What is predicted for a word that the tokenizer made nothing of."""

    def row_texts(self, example: TaggedSentence) -> list[tuple[str, ...]]:
        return [(spaced_text(example.words, example.space_after).text,)]

    def is_cut(self, tokens: Sequence[int], room: int) -> bool:
        """Never: a long sentence goes on in the next row."""
        return False

    def label_index(self, label: str | None, where: str) -> int:
        """The tag's index, or InputError that begins with `where`."""
        if label not in self.labels:
            raise InputError(f"{where}: unknown tag {label!r}; {self.name} has {', '.join(self.labels)}")
        return self.labels.index(label)

    def encode(
        self, split: Split, tokenizer: Any, *, max_length: int | None = None, train: bool
    ) -> list[Feature]:
        """Rows with `labels` per token, and `words` and `positions`: which words are at which tokens of the row."""
        require_fast(tokenizer, "tagging")
        limit = length_limit(tokenizer, max_length or self.max_length)
        features: list[Feature] = []
        for part in chunks(len(split)):
            examples = split.examples[part]
            texts = [spaced_text(example.words, example.space_after) for example in examples]
            encoded = tokenizer(
                [text.text for text in texts],
                truncation=True,
                max_length=limit,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
                return_attention_mask=False,
            )
            next_word = [0] * len(examples)
            for row, i in enumerate(encoded["overflow_to_sample_mapping"]):
                feature = _feature(examples[i], texts[i], encoded, row, next_word[i])
                next_word[i] = max([next_word[i], *(word + 1 for word in feature["words"])])
                features.append({"example": part.start + i, **feature})
        return features

    def collate(self, features: Sequence[Feature], tokenizer: Any) -> "dict[str, torch.Tensor]":
        import torch

        labels = pad_rows([feature["labels"] for feature in features], NOT_SCORED, tokenizer.padding_side)
        return {**pad(features, tokenizer), "labels": torch.from_numpy(labels)}

    def add_head(self, model: Any, name: str | None = None) -> None:
        model.add_tagging_head(
            name or self.name, num_labels=len(self.labels), id2label=dict(enumerate(self.labels))
        )

    def from_text(self, lines: Sequence[str], source: str, language: str) -> Split:
        """One sentence per line; its words are what stands between spaces."""
        sentences = [(number, line.split()) for number, line in enumerate(lines, start=1)]
        examples = tuple(
            TaggedSentence(str(number), tuple(words), (0,) * len(words), (True,) * len(words))
            for number, words in sentences
            if words
        )
        return Split("text", language, source, examples)

    def rows(self, outputs: Any, batch: "Mapping[str, torch.Tensor]") -> list[np.ndarray]:
        """Logits `[tokens, labels]` per row."""
        logits = outputs.logits.detach().float().cpu().numpy()
        mask = batch["attention_mask"].cpu().numpy().astype(bool)
        return [row[keep] for row, keep in zip(logits, mask, strict=True)]

    def predict(
        self, split: Split, features: Sequence[Feature], rows: Sequence[np.ndarray]
    ) -> list[Prediction]:
        """Every word has the label that its token's largest logit says."""
        predicted = [[self.without_token] * len(example.words) for example in split]
        for feature, row in zip(features, rows, strict=True):
            for word, position in zip(feature["words"], feature["positions"], strict=True):
                predicted[feature["example"]][word] = self.labels[int(row[position].argmax())]
        return [
            Prediction(example.id, [self.labels[tag] for tag in example.tags], tags)
            for example, tags in zip(split, predicted, strict=True)
        ]


def _feature(example: TaggedSentence, text: SpacedText, encoded: Any, row: int, first_word: int) -> Feature:
    offsets = np.asarray(encoded["offset_mapping"][row], dtype=np.int32).reshape(-1, 2)
    token_of = word_tokens(text, encoded[row].tokens, offsets, first_word)
    labels = np.full(len(offsets), NOT_SCORED, dtype=np.int32)
    for word, token in token_of.items():
        if labels[token] == NOT_SCORED:  # of several words in one token the first is learned
            labels[token] = example.tags[word]
    return {
        **token_ids(encoded, row),
        "labels": labels,
        "words": np.asarray(list(token_of), dtype=np.int32),
        "positions": np.asarray(list(token_of.values()), dtype=np.int32),
    }
