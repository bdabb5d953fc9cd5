"""Texts of other languages, made into what the model of a Trainer takes: `languages` need not be batches.

Only a copy of the Trainer's tokenizer is called, in one thread: the script's own keeps its state, and processes that
are forked later may still use several. What a batch looks like follows from what the model predicts; its labels say at
most which tokens are asked for.
"""

import copy
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fishlens.errors import InputError, first_line
from fishlens.fisher.anatomy import unwrapped
from fishlens.fisher.observe import random_states_kept
from fishlens.fisher.outputs import IGNORED
from fishlens.fisher.which_output import find_output

Text = str | tuple[str, str]
"""A text, or a pair of them: premise and hypothesis, question and passage, what the encoder reads and the decoder."""

MAX_LENGTH = 128
MASK_SHARE = 0.15  # of a row's tokens, which a masked-language model is asked for
UNKNOWN_REFUSED = 0.5  # share of a language's tokens that the tokenizer does not know
UNKNOWN_NOTED = 0.05
ONE, TWO = "one text an example", "pairs of texts"
TAKES = {  # what a model that predicts this reads; where nothing is said, either
    "tagging": ONE,
    "causal_lm": ONE,
    "question_answering": TWO,
    "seq2seq_lm": TWO,
}


@dataclass(frozen=True)
class Texts:
    """Unlabelled texts of one language. `names`: what they are called in `source`, where they were read."""

    texts: Sequence[Text]
    names: Sequence[str] = ()
    source: str | None = None

    @classmethod
    def of(cls, data: Any) -> "Texts | None":
        """What was given for a language, if it is texts; None if it is batches."""
        if isinstance(data, Texts):
            return data
        if isinstance(data, str):
            raise InputError(f"is the text {data!r:.60}; expected a list of texts, or batches")
        if not isinstance(data, (list, tuple)) or not data or not isinstance(data[0], (str, tuple)):
            return None
        for number, text in enumerate(data):
            pair = isinstance(text, tuple) and len(text) == 2 and all(isinstance(one, str) for one in text)
            if not pair and not isinstance(text, str):
                raise InputError(f"has {text!r:.60} as text {number}; expected a text, or a pair of two")
        return cls(tuple(data))

    def first(self, count: int) -> "Texts":
        return replace(self, texts=self.texts[:count], names=self.names[:count])


@dataclass(frozen=True)
class Reader:
    """Makes batches of texts for one model. `size`: rows of a batch; `seed`: of the tokens that are masked."""

    model: nn.Module
    tokenizer: Any
    output: str = "auto"
    size: int = 8
    max_length: int | None = None
    seed: int = 0

    def batches(self, texts: Texts) -> tuple[list[dict[str, Tensor]], list[str]]:
        """The texts as the model takes them, and what a reader of the numbers should know of them.

        Raises `InputError` for texts of another form than the model reads, or of which the tokenizer knows too little.
        """
        predicts = find_output(unwrapped(self.model), self.output).name
        _check_form(texts.texts, predicts, self.model)
        tokenizer = _copied(self.tokenizer, self.model)
        length = min(
            self.max_length or MAX_LENGTH, tokenizer.model_max_length, longest_row(self.model) or 2**40
        )
        with random_states_kept(None), _one_thread():
            found = [
                self._batch(
                    texts, range(i, min(i + self.size, len(texts.texts))), predicts, tokenizer, length
                )
                for i in range(0, len(texts.texts), self.size)
            ]
        return found, _notes(texts, found, tokenizer, length)

    def _batch(
        self, texts: Texts, rows: range, predicts: str, tokenizer: Any, length: int
    ) -> dict[str, Tensor]:
        part = [texts.texts[i] for i in rows]
        first = [text if isinstance(text, str) else text[0] for text in part]
        second = [text[1] for text in part if not isinstance(text, str)] or None
        options: dict[str, Any] = {
            "truncation": True,
            "max_length": length,
            "padding": True,
            "return_tensors": "pt",
        }
        try:
            if predicts == "tagging":
                return _words(tokenizer, first, options)
            if predicts == "seq2seq_lm":
                encoded, told = tokenizer(first, **options), tokenizer(text_target=second, **options)
                asked = told["attention_mask"] == 1
                return {**encoded, "labels": told["input_ids"].masked_fill(~asked, IGNORED)}
            if predicts == "question_answering":
                options["truncation"] = "only_second"
            encoded = dict(tokenizer(first, second, **options))
        except InputError:
            raise
        except Exception as error:  # the tokenizer's own, of any kind
            raise InputError(f"the tokenizer makes nothing of the texts: {first_line(error)}") from error
        if predicts == "masked_lm":
            return masked(encoded, [f"{self.seed}/{i}" for i in rows], tokenizer)
        return encoded


def as_batches(
    languages: Mapping[str, Any], reader: Reader, examples: int
) -> tuple[dict[str, Any], dict[str, Sequence[str]], list[str]]:
    """(languages with batches in the place of texts, what the examples of each are called, notes for the journal).

    Raises `InputError` naming the language whose texts cannot be measured.
    """
    found, names, notes = dict(languages), {}, []
    for language, data in languages.items():
        try:
            texts = Texts.of(data)
            if texts is None:
                continue
            found[language], said = reader.batches(texts.first(examples))
        except InputError as error:
            raise InputError(f"language {language!r}: {error}") from error
        names[language] = texts.names
        notes += [f"language {language!r}: {note}" for note in said]
    return found, names, notes


def masked(batch: Mapping[str, Tensor], names: Sequence[str], tokenizer: Any) -> dict[str, Tensor]:
    """A batch in which 15 % of each row's ordinary tokens, one at least, are masked and asked for; which ones, follows
    from the row's name."""
    ids = batch["input_ids"]
    if tokenizer.mask_token_id is None:
        raise InputError("the tokenizer has no mask token, which a masked-language model needs")
    special = set(tokenizer.all_special_ids)
    asked = torch.zeros_like(ids, dtype=torch.bool)
    for row, name in enumerate(names):
        ordinary = [i for i, token in enumerate(ids[row].tolist()) if token not in special]
        count = min(len(ordinary), max(1, round(MASK_SHARE * len(ordinary))))
        random.Random(f"mask/{name}").shuffle(ordinary)
        asked[row, ordinary[:count]] = True
    labels = ids.masked_fill(~asked, IGNORED)
    return {**batch, "input_ids": ids.masked_fill(asked, tokenizer.mask_token_id), "labels": labels}


def unknown_share(ids: Tensor, tokenizer: Any) -> float:
    """Of these tokens, special ones aside, the share that the tokenizer calls unknown."""
    unknown = tokenizer.unk_token_id
    special = torch.tensor([i for i in tokenizer.all_special_ids if i != unknown])
    ids = ids[~torch.isin(ids, special)]
    return float((ids == unknown).float().mean()) if len(ids) and unknown is not None else 0.0


def longest_row(model: nn.Module) -> int | None:
    """How many tokens the model has positions for; None if it does not say."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            reserved = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - reserved
    return None


def _words(tokenizer: Any, texts: list[str], options: dict[str, Any]) -> dict[str, Tensor]:
    """Words between spaces, of each of which the first token is asked for, as in transformers' scripts."""
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"{type(tokenizer).__name__} does not say which tokens a word has; expected a fast tokenizer"
        )
    encoded = tokenizer([text.split() for text in texts], is_split_into_words=True, **options)
    labels = torch.full_like(encoded["input_ids"], IGNORED)
    for row in range(len(texts)):
        words = encoded.word_ids(row)
        for position, word in enumerate(words):
            if word is not None and (position == 0 or words[position - 1] != word):
                labels[row, position] = 0
    return {**encoded, "labels": labels}


def _check_form(texts: Sequence[Text], predicts: str, model: nn.Module) -> None:
    forms = {ONE if isinstance(text, str) else TWO for text in texts}
    if len(forms) > 1:
        raise InputError(f"has {ONE} and {TWO}; expected one of them")
    kind = type(unwrapped(model)).__name__
    if predicts == "multiple_choice":
        raise InputError(f"is texts, but a {kind} reads questions with their choices; expected batches")
    if TAKES.get(predicts) not in (None, *forms):
        raise InputError(f"is {forms.pop()}, but a {kind} reads {TAKES[predicts]}")


def _notes(texts: Texts, batches: Sequence[Mapping[str, Tensor]], tokenizer: Any, length: int) -> list[str]:
    """Raises `InputError` if the tokenizer knows less than half of the tokens."""
    of = f"{len(texts.texts)} texts{f' of {texts.source}' if texts.source else ''}"
    ids = torch.cat([batch["input_ids"].flatten() for batch in batches])
    unknown = unknown_share(ids, tokenizer)
    if unknown > UNKNOWN_REFUSED:
        raise InputError(
            f"the tokenizer makes {unknown:.0%} of {of} {tokenizer.unk_token}; expected at most {UNKNOWN_REFUSED:.0%}"
        )
    notes = [f"the Fisher information is measured on {of}, without labels, cut to {length} tokens"]
    if unknown > UNKNOWN_NOTED:
        notes.append(f"the tokenizer makes {unknown:.0%} of the text {tokenizer.unk_token}")
    return notes


def _copied(tokenizer: Any, model: nn.Module) -> Any:
    """A tokenizer of our own: a copy of the Trainer's, or the one that lies beside the model's checkpoint."""
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # a processor of several kinds of input has one
    if isinstance(tokenizer, PreTrainedTokenizerBase):
        own = copy.deepcopy(tokenizer)
    else:
        told = isinstance(tokenizer, (str, os.PathLike))
        name = (
            str(tokenizer)
            if told
            else getattr(getattr(unwrapped(model), "config", None), "_name_or_path", "")
        )
        try:
            own = AutoTokenizer.from_pretrained(name, trust_remote_code=False, local_files_only=not told)
        except Exception as error:  # OSError, ValueError, and whatever a damaged file makes of it
            whose = (
                f"the tokenizer {name!r}"
                if told
                else f"the Trainer has no tokenizer, and the one of {name!r}"
            )
            raise InputError(
                f"is texts, but {whose} cannot be loaded ({first_line(error)}); give tokenizer="
            ) from error
    if own.pad_token is None:
        own.pad_token = own.eos_token or own.unk_token
    return own


@contextmanager
def _one_thread() -> Iterator[None]:
    """Tokenizers that have used several threads warn in every process that is forked afterwards, and use one there."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    try:
        os.environ[name] = "false"
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
