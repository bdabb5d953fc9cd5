"""Raw text of a pocket language: short documents about the world, for masked-language modelling.

A document is one to four sentences about one scene. Texts of different languages are drawn independently; parallel
lines say the same document in every language. Documents restate, explain, contrast and ask, because there a masked
word can only be guessed from another sentence: what a model needs for pairs of sentences it has to have met in plain
text.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from random import Random

from fishlens.pocket.languages import Language, text_of
from fishlens.pocket.meanings import CONCEPTS, OPPOSITES, Clause, Link, Phrase, Question, World

Meaning = Clause | Question | Link
Document = list[Meaning]


def widened(clause: Clause, role: str) -> Clause:
    """The clause with the noun of `role` ("subject" or "object") replaced by its hypernym."""
    phrase = clause.subject if role == "subject" else clause.object
    assert phrase is not None
    kind = CONCEPTS[phrase.noun].kind
    assert kind is not None
    return (
        replace(clause, subject=Phrase(kind)) if role == "subject" else replace(clause, object=Phrase(kind))
    )


def denied_opposite(clause: Clause) -> Clause:
    """ "throws the ball" → "does not catch the ball"."""
    return replace(clause, predicate=OPPOSITES[clause.predicate], negated=not clause.negated)


def _scene(world: World, random: Random) -> Document:
    topic = world.topic(random)
    first, second, third = (world.event(random, topic) for _ in range(3))
    scenes: list[Document] = [[first], [first, second], [Link(first, "and", second)], [first, second, third]]
    return random.choice(scenes)


def _restatement(world: World, random: Random) -> Document:
    event = world.event(random, modifiers=0.6)
    again = event.core()
    if not event.negated and random.random() < 0.5:
        again = widened(again, random.choice(("subject", "object")))
    return [event, again]


def _contrast(world: World, random: Random) -> Document:
    if random.random() < 0.5:
        event = replace(world.event(random), negated=False)
        return [event, denied_opposite(event.core())]
    state = replace(world.state(random, world.person(world.topic(random), random)), negated=False)
    return [state, denied_opposite(state)]


def _explanation(world: World, random: Random) -> Document:
    event = world.event(random, modifiers=0.2)
    result = world.result(event)
    return [Link(event, "so", result) if random.random() < 0.5 else Link(result, "because", event)]


def _exchange(world: World, random: Random) -> Document:
    topic = world.topic(random)
    events = [replace(world.event(random, topic), negated=False) for _ in range(random.choice((1, 2)))]
    about = random.choice(events)
    asked = random.choice(("subject", "object", "place") if about.place else ("subject", "object"))
    return [*events, Question(replace(about.core(), place=about.place), asked), about]


_KINDS = (_scene, _restatement, _contrast, _explanation, _exchange)
_WEIGHTS = (3, 4, 3, 4, 3)


def documents(world: World, random: Random) -> Iterator[Document]:
    """Endless documents."""
    while True:
        yield random.choices(_KINDS, _WEIGHTS)[0](world, random)


def line_of(document: Document, language: Language) -> str:
    return " ".join(text_of(language.say(meaning)) for meaning in document)


def raw_lines(world: World, language: Language, count: int, seed: int) -> list[str]:
    """`count` documents of this language's own, an empty line after each.

    Half of them have a line for each sentence; some lines hold several documents, so that long rows occur too.
    """
    random = Random(f"text {seed} {language.code}")
    source = documents(world, random)
    lines = []
    while count > 0:
        together = min(count, random.choices((1, 2, 3, 4), (10, 2, 1, 1))[0])
        found = list(islice(source, together))
        if together == 1 and random.random() < 0.5:
            lines += [text_of(language.say(meaning)) for meaning in found[0]]
        else:
            lines.append(" ".join(line_of(document, language) for document in found))
        lines.append("")
        count -= together
    return lines


def parallel_lines(world: World, languages: list[Language], count: int, seed: int) -> dict[str, list[str]]:
    """Line i says the same in every language."""
    source = documents(world, Random(f"parallel {seed}"))
    drawn = [next(source) for _ in range(count)]
    return {language.code: [line_of(document, language) for document in drawn] for language in languages}
