"""Extractive question answering: trained on SQuAD, tested on XQuAD or MLQA."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fishlens.errors import InputError
from fishlens.training.data.fields import field
from fishlens.training.data.hub import CONVERTED, HubPlace
from fishlens.training.data.squad import Answer, Question, question, read_squad
from fishlens.training.metrics.answers import Normalise, answer_scores
from fishlens.training.metrics.mlqa import ARTICLES, mlqa_normalise
from fishlens.training.metrics.squad import squad_normalise
from fishlens.training.tasks.base import Feature, Prediction, Split, Task
from fishlens.training.tasks.encoding import pad
from fishlens.training.tasks.layout import Layout, Place
from fishlens.training.tasks.windows import Span, Window, best_span, token_span, windows

if TYPE_CHECKING:
    import torch

ENGLISH = ("en",)
_CONTEXT = re.compile(
    r"context-(?P<file>[a-z]{2})-question-[a-z]{2}[^/]*$|/mlqa\.(?P<config>[a-z]{2})\.[a-z]{2}/"
)
TEST_PLACES = {
    "xquad": [Place("xquad/xquad.{language}.json")],
    "mlqa": [
        Place("mlqa/test-context-{language}-question-{language}.json"),
        Place("mlqa/dev-context-{language}-question-{language}.json"),
    ],
}

HUB_TESTS = {
    "xquad": [
        HubPlace(
            "google/xquad", "xquad.{language}", "validation",
            ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh"),
        )
    ],
    "mlqa": [HubPlace("facebook/mlqa", "mlqa.{language}.{language}", "test", tuple(ARTICLES), revision=CONVERTED)],
}  # fmt: skip


class QA(Task):
    """A question and a context → the span of the context that answers; token F1, exact match beside it.

    Files: SQuAD v1.1 JSON. A Fisher example is one feature window.

    Args:
        test: `xquad` (scored by SQuAD's rules in every language) or `mlqa` (scored by MLQA's rules for the language of
            the context; its test files, or where they are not there its dev files).
        max_length, stride, max_question: tokens per window, shared by neighbours, and of the question at most.
        n_best, max_answer: starts and ends that are tried, and tokens of an answer at most.
    """

    name = "qa"
    ids_are_unique = True
    output = "question_answering"
    headline = "f1"
    max_length = 384

    def __init__(
        self,
        files: Mapping[str, Any] | None = None,
        test: str = "xquad",
        stride: int = 128,
        max_question: int = 64,
        n_best: int = 20,
        max_answer: int = 30,
    ) -> None:
        if test not in TEST_PLACES:
            raise InputError(f"test is {test!r}; expected {' or '.join(TEST_PLACES)}")
        english = {
            "train": [
                Place("squad/train-v1.1.json", ENGLISH),
                Place("squad/train-v1.1.sample.json", ENGLISH),
            ],
            "validation": [
                Place("squad/dev-v1.1.json", ENGLISH),
                Place("squad/dev-v1.1.sample.json", ENGLISH),
            ],
        }
        super().__init__(Layout({**english, "test": TEST_PLACES[test]}), files)
        self.hub = {
            "train": [HubPlace("rajpurkar/squad", None, "train", ENGLISH)],
            "validation": [HubPlace("rajpurkar/squad", None, "validation", ENGLISH)],
            "test": HUB_TESTS[test],
        }
        for option, value in [("max_question", max_question), ("n_best", n_best), ("max_answer", max_answer)]:
            if value < 1:
                raise InputError(f"{option} is {value}; expected at least 1")
        if stride < 0:
            raise InputError(f"stride is {stride}; expected at least 0")
        self.test, self.stride, self.max_question = test, stride, max_question
        self.n_best, self.max_answer = n_best, max_answer

    def read(self, path: Path, language: str) -> Iterator[Question]:
        yield from read_squad(path)

    def from_hub(self, where: str, name: str, row: Mapping[str, Any], language: str) -> Question:
        answers = field(where, row, "answers", dict)
        texts, starts = field(where, answers, "text", list), field(where, answers, "answer_start", list)
        return question(where, row, field(where, row, "context", str), texts, starts)

    def notes(self, examples: Sequence[Question]) -> tuple[str, ...]:
        wrong = [(e, answer) for e in examples for answer in e.answers if not in_context(e, answer)]
        if not wrong:
            return ()
        example, answer = wrong[0]
        return (
            f"{len(wrong)} of {sum(len(e.answers) for e in examples)} gold answers are not at their offset in the"
            f" context, the first is {answer.text!r} at {answer.start} of question {example.id!r}: they are scored by"
            " their text and not trained on",
        )

    def encode(
        self, split: Split, tokenizer: Any, *, max_length: int | None = None, train: bool
    ) -> list[Feature]:
        """One feature per window, with `start` and `end`: the tokens of the first gold answer, or twice the first token
        (`<s>`) where the window does not have it. With `train`, questions whose gold answer is not in the context are
        left out; without, `offsets` are there for `predict`.
        """
        kept = [i for i, e in enumerate(split) if not train or in_context(e, e.answers[0])]
        if not kept:
            raise InputError(f"{split.source}: no gold answer is at its offset in its context")
        questions = [split[i].question for i in kept]
        contexts = [split[i].context for i in kept]
        limits = (max_length or self.max_length, self.stride, self.max_question)
        features = []
        for window in windows(tokenizer, questions, contexts, *limits):
            example = kept[window.example]
            answer = split[example].answers[0]
            start, end = self._positions(window, answer) if in_context(split[example], answer) else (0, 0)
            feature: Feature = {"example": example, "start": start, "end": end, **window.ids}
            if not train:
                feature["offsets"] = window.offsets
            features.append(feature)
        return features

    def _positions(self, window: Window, answer: Answer) -> tuple[int, int]:
        return token_span(window, answer.start, answer.start + len(answer.text)) or (0, 0)

    def collate(self, features: Sequence[Feature], tokenizer: Any) -> "dict[str, torch.Tensor]":
        import torch

        batch = pad(features, tokenizer)
        # token positions move where rows are padded on the left
        longest = batch["input_ids"].shape[1]
        left = tokenizer.padding_side == "left"
        moved = [longest - len(feature["input_ids"]) if left else 0 for feature in features]
        for key in ("start", "end"):
            positions = [feature[key] + by for feature, by in zip(features, moved, strict=True)]
            batch[f"{key}_positions"] = torch.tensor(positions)
        return batch

    def add_head(self, model: Any, name: str | None = None) -> None:
        model.add_qa_head(name or self.name)

    def rows(self, outputs: Any, batch: "Mapping[str, torch.Tensor]") -> list[np.ndarray]:
        """Start and end logits `[2, tokens]` per window."""
        start = outputs.start_logits.detach().float().cpu().numpy()
        end = outputs.end_logits.detach().float().cpu().numpy()
        mask = batch["attention_mask"].cpu().numpy().astype(bool)
        return [np.stack([s[keep], e[keep]]) for s, e, keep in zip(start, end, mask, strict=True)]

    def predict(
        self, split: Split, features: Sequence[Feature], rows: Sequence[np.ndarray]
    ) -> list[Prediction]:
        """The best span over all windows of a question, as the characters of the context; None if there is none."""
        best: dict[int, Span] = {}
        for feature, (start, end) in zip(features, rows, strict=True):
            span = best_span(feature["offsets"], start, end, self.n_best, self.max_answer)
            so_far = best.get(feature["example"])
            if span and (so_far is None or span.score > so_far.score):
                best[feature["example"]] = span
        return [
            Prediction(example.id, [answer.text for answer in example.answers], _text(example, best.get(i)))
            for i, example in enumerate(split)
        ]

    def score(self, split: Split, predictions: Sequence[Prediction]) -> dict[str, float]:
        predicted, gold = [p.predicted for p in predictions], [p.gold for p in predictions]
        return answer_scores(predicted, gold, self._normalise(split))

    def load(self, root: Path | str, split: str, language: str) -> Split:
        loaded = super().load(root, split, language)
        self._normalise(loaded)  # refuses a language without rules before anything is trained
        return loaded

    def _normalise(self, split: Split) -> Normalise:
        mlqa = self.test == "mlqa" and split.name == "test"
        return mlqa_normalise(context_language(split)) if mlqa else squad_normalise

    def row_texts(self, example: Question) -> list[tuple[str, ...]]:
        return [(example.question, example.context)]

    def is_cut(self, tokens: Sequence[int], room: int) -> bool:
        """Contexts go on in the next window; questions do not."""
        return tokens[0] > min(self.max_question, room // 2)


def context_language(split: Split) -> str:
    """The language of the contexts: MLQA's files and configurations name it, else the split's own.

    `test-context-en-question-de.json` has English contexts, whichever language the recipe calls it.
    """
    named = _CONTEXT.search(split.source)
    return (named["file"] or named["config"]) if named else split.language


def in_context(example: Question, answer: Answer) -> bool:
    """Does the context have the answer where it is said to be?"""
    return example.context.startswith(answer.text, answer.start) if answer.start >= 0 else False


def _text(example: Question, span: Span | None) -> str | None:
    # a token may begin with the space before its word
    return example.context[span.begin : span.end].strip() if span else None
