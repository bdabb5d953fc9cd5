"""Gold-labelled tasks, made from meanings: the label is known before any sentence is said.

Every function yields examples as meanings; `formats.py` says them in a language and writes the official layouts.
The same meanings are said in every language, so test rows are parallel, as in XNLI and XCOPA.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from random import Random
from typing import Any

from fishlens.pocket.meanings import CONCEPTS, OPPOSITES, RESULTS, Clause, Question, World
from fishlens.pocket.text import Meaning, denied_opposite, documents, widened


@dataclass(frozen=True)
class Pair:
    """Entailment: `label` is entailment, neutral or contradiction."""

    premise: Clause
    hypothesis: Clause
    label: str


@dataclass(frozen=True)
class Choice:
    """Which of two clauses is the `question` ("cause" or "effect") of the premise; `label` is 0 or 1."""

    premise: Clause
    choices: tuple[Clause, Clause]
    question: str
    label: int


@dataclass(frozen=True)
class Passage:
    """Clauses, and questions each with the number of the clause that answers it."""

    clauses: tuple[Clause, ...]
    questions: tuple[tuple[Question, int], ...]


@dataclass(frozen=True)
class Topical:
    clauses: tuple[Clause, ...]
    topic: str


def _entailed(event: Clause, random: Random) -> Clause:
    """Less than the premise says: modifiers dropped; a hypernym; or the opposite denied."""
    core = event.core()
    if event.negated:
        return core
    way = random.random()
    if way < 0.45:
        return (
            replace(core, object=event.object)
            if random.random() < 0.5
            else replace(core, subject=event.subject)
        )
    if way < 0.8:
        return widened(core, random.choice(("subject", "object")))
    return denied_opposite(core)


def _contradicted(event: Clause, random: Random) -> Clause:
    core = event.core()
    if not event.negated and random.random() < 0.6:
        return replace(core, predicate=OPPOSITES[core.predicate])
    return replace(core, negated=not core.negated)


def _undecided(event: Clause, world: World, random: Random) -> Clause:
    """The same deed, but by somebody else or to something else of the same scene."""
    core = event.core()
    topic = CONCEPTS[core.subject.noun].topic
    assert topic is not None
    while True:
        other = world.event(random, topic).core()
        who = random.choice(("subject", "object"))
        if getattr(other, who) not in (core.subject, core.object):
            return replace(core, **{who: getattr(other, who)}, negated=random.random() < 0.35)


def _pair(label: str, world: World, random: Random) -> Pair:
    event = replace(world.event(random, modifiers=0.6), negated=random.random() < 0.3)
    if event.negated:
        event = event.core()  # "did not heal him there" would not say that he was not healed
    if label == "entailment":
        return Pair(event, _entailed(event, random), label)
    if label == "contradiction":
        return Pair(event, _contradicted(event, random), label)
    return Pair(event, _undecided(event, world, random), label)


def pairs(world: World, random: Random) -> Iterator[Pair]:
    """Labels in turn, no pair twice. Negation is about as frequent under every label, in premise and hypothesis."""
    seen: set[Pair] = set()
    while True:
        for label in ("entailment", "neutral", "contradiction"):
            while (pair := _pair(label, world, random)) in seen:
                pass
            seen.add(pair)
            yield pair


def choices(world: World, random: Random) -> Iterator[Choice]:
    """Wrong choices share topic and nouns with the right one: only the deed and its result differ."""
    while True:
        for question in ("cause", "effect"):
            for label in (0, 1):
                event = replace(world.event(random, modifiers=0.25), negated=False, time=None)
                topic = CONCEPTS[event.predicate].topic
                others = [
                    verb
                    for verb, result in RESULTS.items()
                    if CONCEPTS[verb].topic == topic and result != RESULTS[event.predicate]
                ]
                wrong = replace(event, predicate=random.choice(others))
                if question == "cause":
                    premise, right, other = world.result(event), event, wrong
                else:
                    premise, right, other = event, world.result(event), world.result(wrong)
                yield Choice(premise, (right, other) if label == 0 else (other, right), question, label)


def passages(world: World, random: Random) -> Iterator[Passage]:
    """Three clauses with different subjects, deeds and objects; every question has one answer."""
    while True:
        topic = world.topic(random)
        clauses: list[Clause] = []
        for _ in range(100):
            clause = replace(world.event(random, topic, modifiers=0.5), negated=False, time=None)
            if clause.object and not any(
                {clause.subject.noun, clause.object.noun} & {old.subject.noun, old.object.noun}  # type: ignore[union-attr]
                or clause.predicate == old.predicate
                for old in clauses
            ):
                clauses.append(clause)
            if len(clauses) == 3:
                break
        else:
            continue
        questions = []
        for number in random.sample(range(3), 2):
            clause = clauses[number]
            asked = random.choice(("subject", "object", "place") if clause.place else ("subject", "object"))
            about = replace(clause.core(), place=clause.place if asked == "place" else None)
            questions.append((Question(about, asked), number))
        yield Passage(tuple(clauses), tuple(questions))


def sentences(world: World, random: Random) -> Iterator[Meaning]:
    """For tagging: any sentence of any document."""
    for document in documents(world, random):
        yield random.choice(document)


def topical(world: World, random: Random) -> Iterator[Topical]:
    """Two or three clauses of one topic; the topic is the label."""
    while True:
        topic = world.topic(random)
        yield Topical(tuple(world.event(random, topic) for _ in range(random.choice((2, 3)))), topic)


MAKERS: dict[str, Callable[[World, Random], Iterator[Any]]] = {
    "nli": pairs,
    "choice": choices,
    "qa": passages,
    "tagging": sentences,
    "topic": topical,
}


def make_splits(task: str, world: World, sizes: dict[str, int], seed: int) -> dict[str, list[Any]]:
    """Examples of a task for each split, in order; no example is in two places."""
    random = Random(f"task {seed} {task}")
    seen: set[Any] = set()

    def fresh() -> Iterator[Any]:
        for example in MAKERS[task](world, random):
            if example not in seen:
                seen.add(example)
                yield example

    source = fresh()
    return {split: list(islice(source, size)) for split, size in sizes.items()}
