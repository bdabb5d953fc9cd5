"""The SQuAD v1.1 JSON schema, which XQuAD and MLQA share."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fishlens.errors import InputError
from fishlens.training.data.fields import field
from fishlens.training.data.json_text import parse_json
from fishlens.training.data.lines import read_text


@dataclass(frozen=True)
class Answer:
    """A gold answer and where it is said to begin in the context, in code points from 0."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question about a context, with its gold answers (one or more)."""

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]


def read_squad(path: Path) -> Iterator[Question]:
    """The questions of a file, paragraph by paragraph, untouched: contexts may begin with U+FEFF, and offsets count it.

    Raises:
        InputError: not JSON (with the line), a field that is missing or of another type (with its path in the file), or
            a question without an answer, or with one that is withheld.
    """
    whole = parse_json(read_text(path), path)
    for a, article in enumerate(field(str(path), whole, "data", list)):
        where = f"{path}: data[{a}]"
        for p, paragraph in enumerate(field(where, article, "paragraphs", list)):
            inside = f"{where}.paragraphs[{p}]"
            context = field(inside, paragraph, "context", str)
            for q, qa in enumerate(field(inside, paragraph, "qas", list)):
                yield _question(f"{inside}.qas[{q}]", qa, context)


def _question(where: str, qa: Any, context: str) -> Question:
    answers = field(where, qa, "answers", list)
    texts = [field(f"{where}.answers[{i}]", answer, "text", str) for i, answer in enumerate(answers)]
    starts = [field(f"{where}.answers[{i}]", answer, "answer_start", int) for i, answer in enumerate(answers)]
    return question(where, qa, context, texts, starts)


def question(
    where: str, row: Mapping[str, Any], context: str, texts: Sequence[str], starts: Sequence[int]
) -> Question:
    """One question from its row (`id`, `question`) and its answers; InputError if it has none, or an empty one."""
    answers = tuple(Answer(text, start) for text, start in zip(texts, starts, strict=True))
    name = field(where, row, "id", str)
    if not answers:
        raise InputError(f"{where}: question {name!r} has no answer; SQuAD v1.1 gives every question one")
    for i, answer in enumerate(answers):
        if not answer.text.strip():
            raise InputError(
                f"{where}.answers[{i}]: the answer of question {name!r} is {answer.text!r}; expected words of its "
                "context: a file whose answers are withheld cannot be scored"
            )
    return Question(name, field(where, row, "question", str), context, answers)
