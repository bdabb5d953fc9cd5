"""The world that every pocket language talks about: concepts, who tends to do what, and what follows from what.

A meaning is language-neutral. A `Clause` says that a subject did something (to an object, in a place, at a time), or
is something; a `Question` asks for one part of a clause. Names of concepts are English glosses, for the reader only:
no language of the pocket family contains them.

What is likely in this world is drawn once from its seed (`World`): each person prefers some verbs, each verb some
objects, each thing some places and properties, and every verb has a result. Those preferences are what masked-language
modelling can learn, and what the gold labels of the tasks are made from.
"""

from dataclasses import dataclass, replace
from random import Random

# topic: (persons, things with their kind, places, verbs as pairs of opposites with their results)
_TOPICS: dict[str, tuple[str, str, str, str]] = {
    "entertainment": (
        "singer dancer painter",
        "song:work film:work drum:tool costume:cloth parrot:animal",
        "theatre museum",
        "perform:delight cancel:vanish praise:shine mock:fade",
    ),
    "geography": (
        "explorer shepherd miner",
        "map:work stone:matter snow:matter sheep:animal tree:plant",
        "mountain valley",
        "climb:tremble descend:rest freeze:harden melt:flow",
    ),
    "health": (
        "doctor nurse patient",
        "medicine:matter bandage:cloth soup:food scalpel:tool leech:animal",
        "hospital pharmacy",
        "heal:recover hurt:suffer clean:shine infect:rot",
    ),
    "politics": (
        "king minister voter",
        "law:work crown:cloth tax:matter letter:work horse:animal",
        "palace parliament",
        "approve:last reject:vanish raise:grow lower:shrink",
    ),
    "science/technology": (
        "engineer chemist pilot",
        "machine:tool rocket:tool acid:matter report:work mouse:animal",
        "laboratory factory",
        "build:last destroy:break start:move stop:rest",
    ),
    "sports": (
        "runner swimmer coach",
        "ball:tool medal:cloth racket:tool flag:cloth dog:animal",
        "stadium pool",
        "throw:fly catch:rest win:delight lose:fade",
    ),
    "travel": (
        "tourist guide sailor",
        "ticket:work suitcase:tool bread:food tent:cloth camel:animal",
        "harbour hotel",
        "pack:shrink unpack:grow buy:move sell:vanish",
    ),
}
_OPPOSITE_PROPERTIES = (
    *("big", "small", "old", "new", "hot", "cold", "tidy", "dirty", "bright", "dark"),
    *("heavy", "light", "rich", "poor", "fast", "slow", "strong", "weak", "good", "bad"),
)
_TIMES = ("yesterday", "today", "often", "rarely")

TOPICS = tuple(_TOPICS)
PERSON = "person"


@dataclass(frozen=True)
class Concept:
    """Something that has a word. `tag` is its universal part of speech; `kind` its hypernym, for persons and things."""

    name: str
    tag: str
    topic: str | None = None
    kind: str | None = None


@dataclass(frozen=True)
class Phrase:
    """A noun with at most one adjective."""

    noun: str
    adjective: str | None = None


@dataclass(frozen=True)
class Clause:
    """`predicate` is a verb, or an adjective when there is no object ("the ball is big")."""

    subject: Phrase
    predicate: str
    object: Phrase | None = None
    place: Phrase | None = None
    time: str | None = None
    negated: bool = False

    def core(self) -> "Clause":
        """Who did what to whom, without modifiers."""
        return replace(
            self,
            subject=Phrase(self.subject.noun),
            object=Phrase(self.object.noun) if self.object else None,
            place=None,
            time=None,
        )


@dataclass(frozen=True)
class Question:
    """Asks for `asked` ("subject", "object" or "place") of a clause."""

    clause: Clause
    asked: str


@dataclass(frozen=True)
class Link:
    """Two clauses joined by `connective`: "because", "so" or "and"."""

    first: Clause
    connective: str
    second: Clause


def _concepts() -> dict[str, Concept]:
    found = [Concept(name, "ADJ") for name in _OPPOSITE_PROPERTIES]
    found += [Concept(name, "ADV") for name in _TIMES]
    results, kinds = set(), {PERSON}
    for topic, (persons, things, places, verbs) in _TOPICS.items():
        found += [Concept(name, "NOUN", topic, PERSON) for name in persons.split()]
        for thing in things.split():
            name, kind = thing.split(":")
            kinds.add(kind)
            found.append(Concept(name, "NOUN", topic, kind))
        found += [Concept(name, "NOUN", topic, "place") for name in places.split()]
        for verb in verbs.split():
            name, result = verb.split(":")
            results.add(result)
            found.append(Concept(name, "VERB", topic))
    found += [Concept(name, "VERB") for name in sorted(results)]
    found += [Concept(name, "NOUN") for name in sorted(kinds)]
    found += [Concept(name, "PRON") for name in ("who", "what")]
    found += [
        Concept("where", "ADV"),
        Concept("not", "PART"),
        Concept("in", "ADP"),
        Concept("be", "AUX"),
        Concept("and", "CCONJ"),
        Concept("because", "SCONJ"),
        Concept("so", "SCONJ"),
    ]
    by_name = {concept.name: concept for concept in found}
    assert len(by_name) == len(found), "a concept is named twice"
    return by_name


CONCEPTS = _concepts()
PROPERTIES = _OPPOSITE_PROPERTIES
TIMES = _TIMES


def _pairs(words: list[str] | tuple[str, ...]) -> dict[str, str]:
    return {a: b for i in range(0, len(words), 2) for a, b in (words[i : i + 2], words[i : i + 2][::-1])}


_VERBS = {topic: [verb.split(":") for verb in parts[3].split()] for topic, parts in _TOPICS.items()}
OPPOSITES = _pairs(PROPERTIES) | {
    a: b for verbs in _VERBS.values() for a, b in _pairs([name for name, _ in verbs]).items()
}
RESULTS = {name: result for verbs in _VERBS.values() for name, result in verbs}


class World:
    """What is likely: every draw prefers the same few partners of a concept, in an order fixed by the seed."""

    def __init__(self, seed: int = 0, on_topic: float = 0.9):
        self.seed = seed
        self.on_topic = on_topic
        self._orders: dict[tuple[str, str], tuple[list[str], list[float]]] = {}
        nouns = [c for c in CONCEPTS.values() if c.tag == "NOUN" and c.topic]
        self._persons = {t: [c.name for c in nouns if c.topic == t and c.kind == PERSON] for t in TOPICS}
        self._places = {t: [c.name for c in nouns if c.topic == t and c.kind == "place"] for t in TOPICS}
        self._things = {
            t: [c.name for c in nouns if c.topic == t and c.kind not in (PERSON, "place")] for t in TOPICS
        }
        self._verbs = {t: [name for name, _ in _VERBS[t]] for t in TOPICS}

    def _prefer(
        self, of: str, what: str, among: list[str], random: Random, without: str | None = None
    ) -> str:
        """Draw a partner of `of`: weights 1, 1/2, 1/3 … over an order that belongs to `of`."""
        key = (of, what)
        if key not in self._orders:
            order = sorted(among)
            Random(f"world {self.seed} {of} {what}").shuffle(order)
            self._orders[key] = (order, [1 / (rank + 1) for rank in range(len(order))])
        order, weights = self._orders[key]
        while True:
            drawn = random.choices(order, weights)[0]
            if drawn != without:
                return drawn

    def _stray(self, topic: str, random: Random) -> str:
        return topic if random.random() < self.on_topic else random.choice(TOPICS)

    def topic(self, random: Random) -> str:
        return random.choice(TOPICS)

    def person(self, topic: str, random: Random, without: str | None = None) -> str:
        return self._prefer(topic, "person", self._persons[topic], random, without)

    def property_of(self, noun: str, random: Random, without: str | None = None) -> str:
        return self._prefer(noun, "property", list(PROPERTIES), random, without)

    def object_of(self, verb: str, topic: str, random: Random, without: str | None = None) -> str:
        if random.random() < 0.15:
            return self.person(topic, random, without)
        return self._prefer(verb, f"object in {topic}", self._things[topic], random, without)

    def place_in(self, topic: str, random: Random, without: str | None = None) -> str:
        return self._prefer(topic, "place", self._places[topic], random, without)

    def event(self, random: Random, topic: str | None = None, *, modifiers: float = 0.4) -> Clause:
        """Somebody does something to something; each modifier is there with probability `modifiers`."""
        topic = topic or self.topic(random)
        person = self.person(topic, random)
        verb = self._prefer(person, "verb", self._verbs[topic], random)
        noun = self.object_of(verb, self._stray(topic, random), random, without=person)

        def phrase(name: str) -> Phrase:
            return Phrase(name, self.property_of(name, random) if random.random() < modifiers else None)

        return Clause(
            subject=phrase(person),
            predicate=verb,
            object=phrase(noun),
            place=Phrase(self.place_in(self._stray(topic, random), random))
            if random.random() < modifiers
            else None,
            time=random.choice(TIMES) if random.random() < modifiers / 2 else None,
            negated=random.random() < 0.2,
        )

    def state(self, random: Random, noun: str) -> Clause:
        """Something is somehow."""
        return Clause(Phrase(noun), self.property_of(noun, random), negated=random.random() < 0.2)

    def result(self, event: Clause) -> Clause:
        """What follows from an event: its object does what the verb's result says."""
        assert event.object is not None
        return Clause(Phrase(event.object.noun), RESULTS[event.predicate], negated=event.negated)


def gloss(clause: Clause) -> str:
    """The clause in stiff English, for the reader."""

    def said(phrase: Phrase) -> str:
        return f"the {phrase.adjective} {phrase.noun}" if phrase.adjective else f"the {phrase.noun}"

    predicate = clause.predicate if CONCEPTS[clause.predicate].tag == "VERB" else f"be {clause.predicate}"
    words = [said(clause.subject), f"(not) {predicate}" if clause.negated else predicate]
    if clause.object:
        words.append(said(clause.object))
    if clause.place:
        words.append(f"in {said(clause.place)}")
    if clause.time:
        words.append(clause.time)
    return " ".join(words)
