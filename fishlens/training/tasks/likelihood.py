"""Labels read off a language model: each label is an answer to a prompt, and the likeliest answer is the prediction.

The rows of an example are its prompt followed by each answer. What stands for a label is Σ log p(token | the tokens
before it) over its answer (`training/label_likelihood.py`), and the softmax over these sums is the prediction, as of
a multiple choice. No head is made: what was learnt in pretraining reads the answers, in any language of the texts.
"""

import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fishlens.errors import InputError
from fishlens.training.tasks.base import Feature, Split
from fishlens.training.tasks.classification import Classification, TextExample
from fishlens.training.tasks.encoding import chunks, length_limit, pad_rows, require_fast

if TYPE_CHECKING:
    import torch

TEXT, SECOND = "text", "second"


class Likelihood(Classification):
    """What a classification is with the options `prompt` and `answers`; the base that it goes before has the data.

    Args:
        prompt: what the model reads, with `{text}` and, of a pair, `{second}` where the texts stand.
        answers: what it may go on with, `{label: text}`; a space is put before each.
    """

    output = "multiple_choice"

    def __init__(
        self, files: Mapping[str, Any] | None = None, prompt: Any = None, answers: Any = None, **options: Any
    ) -> None:
        super().__init__(files=files, **options)  # of the task that this goes before
        self.prompt = _checked_prompt(self.name, prompt)
        self.answers = _checked_answers(self.name, answers, self.labels)

    def add_head(self, model: Any, name: str | None = None) -> None:
        raise InputError(
            f"task {self.name!r} has answers, whose likelihood a causal language model gives: set adapter=peft:lora"
        )

    def row_texts(self, example: TextExample) -> list[tuple[str, ...]]:
        prompt = self._prompt(example)
        return [(f"{prompt} {answer}",) for answer in self.answers]

    def encode(
        self, split: Split, tokenizer: Any, *, max_length: int | None = None, train: bool
    ) -> list[Feature]:
        """One feature per example; its `choices` are the rows of its answers.

        A row has the tokens of the prompt and the number of `answer` tokens at its end. Too long a prompt loses its
        beginning, the same tokens before every answer.
        """
        require_fast(tokenizer, "the likelihood of answers")
        limit = length_limit(tokenizer, max_length or self.max_length)
        features: list[Feature] = []
        for part in chunks(len(split)):
            examples = split.examples[part]
            prompts = [self._prompt(example) for example in examples]
            texts = [f"{prompt} {answer}" for prompt in prompts for answer in self.answers]
            encoded = tokenizer(
                texts,
                return_offsets_mapping=True,
                return_special_tokens_mask=True,
                return_attention_mask=False,
                verbose=False,  # of rows that are too long it warns, before they are cut
            )
            for i, (example, prompt) in enumerate(zip(examples, prompts, strict=True)):
                rows = range(i * len(self.answers), (i + 1) * len(self.answers))
                choices = [_row(encoded, row, len(prompt)) for row in rows]
                where = f"{split.source}: example {example.id!r}"
                features.append(
                    {"example": len(features), "label": example.label, "choices": _cut(choices, limit, where)}
                )
        return features

    def collate(self, features: Sequence[Feature], tokenizer: Any) -> "dict[str, torch.Tensor]":
        """Tensors `[examples, answers, tokens]`, padded on the left, so that all answers end at the last token;
        `answer_mask` `[examples, answers, K]`: which of the last K tokens belong to the answer; labels `[examples]`."""
        import torch

        rows = [row for feature in features for row in feature["choices"]]
        ids = [row["input_ids"] for row in rows]
        longest = max(row["answer"] for row in rows)
        flat = {
            "input_ids": pad_rows(ids, tokenizer.pad_token_id, "left"),
            "attention_mask": pad_rows([np.ones_like(row) for row in ids], 0, "left"),
            "answer_mask": np.stack([np.arange(longest) >= longest - row["answer"] for row in rows]).astype(
                np.int64
            ),
        }
        batch = {
            key: torch.from_numpy(value).unflatten(0, (len(features), -1)) for key, value in flat.items()
        }
        return {**batch, "labels": self.label_tensor([feature["label"] for feature in features])}

    def _prompt(self, example: TextExample) -> str:
        return self.prompt.format(**{TEXT: example.first, SECOND: example.second})


def by_likelihood(kind: type[Classification]) -> type[Classification]:
    """The task `kind`, its labels read by the likelihood of answers."""
    return type(kind.__name__, (Likelihood, kind), {"__doc__": kind.__doc__})


def _row(encoded: Any, row: int, prompt: int) -> dict[str, Any]:
    """One row less the special tokens at its end; its answer is what reaches beyond the `prompt`'s characters."""
    special = encoded["special_tokens_mask"][row]
    end = len(special)
    while end and special[end - 1]:
        end -= 1
    spans = zip(encoded["offset_mapping"][row][:end], special, strict=False)
    answer = sum(not ours and stop > prompt for (_, stop), ours in spans)
    return {"input_ids": np.asarray(encoded["input_ids"][row][:end], dtype=np.int32), "answer": answer}


def _cut(rows: list[dict[str, Any]], limit: int, where: str) -> list[dict[str, Any]]:
    """The rows with as much of the prompt's end as is left beside the longest answer. A first special token stays."""
    room = limit - max(row["answer"] for row in rows)
    prompts = [len(row["input_ids"]) - row["answer"] for row in rows]
    if min(prompts) < 1 or room < 2:
        raise InputError(
            f"{where}: an answer of {limit - room} tokens and a prompt of {min(prompts)} in rows of {limit} tokens; "
            "expected at least 1 token of a prompt before it and room for 2"
        )
    over = max(prompts) - room
    if over <= 0:
        return rows
    return [{**row, "input_ids": np.delete(row["input_ids"], slice(1, 1 + over))} for row in rows]


def _checked_prompt(task: str, prompt: Any) -> str:
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(prompt) if name is not None]
    except (TypeError, ValueError):
        fields = []
    if not isinstance(prompt, str) or TEXT not in fields or not {*fields} <= {TEXT, SECOND}:
        raise InputError(
            f"task {task!r}: prompt is {prompt!r}; expected text with {{{TEXT}}} and, of a pair, {{{SECOND}}} in it"
        )
    return prompt


def _checked_answers(task: str, answers: Any, labels: Sequence[str]) -> tuple[str, ...]:
    """In the order of the labels."""
    told = answers if isinstance(answers, Mapping) else {}
    texts = [text.strip() for text in map(told.get, labels) if isinstance(text, str) and text.strip()]
    if {*told} != {*labels} or len(texts) < len(labels):
        raise InputError(
            f"task {task!r}: answers is {answers!r}; expected a text for each of {', '.join(labels)}"
        )
    if len({*texts}) < len(texts):
        raise InputError(f"task {task!r}: two labels have the same answer: {answers!r}")
    return tuple(texts)
