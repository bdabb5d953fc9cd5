"""The pocket family: one source language and ten targets, each a grammar and a lexicon made from a seed.

A language says a `Clause` by its grammar: constituent order, where adjectives, adpositions, negation and question
words stand, whether objects carry case and verbs agree with their subject (by a separate particle or by a fused
form, which is a word of its own), whether "to be" is said. Its words are its own, except for a share of cognates:
words identical with the source's. `distance` to the source follows from these choices alone.
"""

from dataclasses import dataclass, field, fields
from itertools import combinations
from random import Random

from fishlens.pocket.meanings import CONCEPTS, PERSON, Clause, Link, Phrase, Question


@dataclass(frozen=True)
class Grammar:
    """Everything about a language but its words."""

    order: str = "SVO"  # any permutation of S, V, O
    adjective: str = "before"  # its noun: before or after
    adposition: str = "before"  # its noun: before or after
    negation: str = "before"  # the verb: before or after; or final: at the end of the clause
    modifiers: str = "last"  # place and time: last or first in the clause
    question: str = "fronted"  # the question word: fronted or in place
    case: str = "none"  # of objects: none, particle or fused
    agreement: str = "none"  # of the verb with a person as subject: none, particle or fused
    copula: str = "said"  # "to be": said or zero


# What each difference from the source adds to the distance; the weights sum to 1. A fused form weighs its whole
# weight (it changes the words), a particle half; order weighs the share of pairs among S, V, O that are turned round.
DISTANCE_WEIGHTS: dict[str, float] = {
    "lexicon": 0.50,
    "order": 0.16,
    "adjective": 0.05,
    "adposition": 0.04,
    "negation": 0.05,
    "modifiers": 0.03,
    "question": 0.03,
    "case": 0.07,
    "agreement": 0.05,
    "copula": 0.02,
}


@dataclass(frozen=True)
class Token:
    """A word of a sentence. `role` is the part of the clause it belongs to ("subject", "object", "place" or "")."""

    form: str
    tag: str
    role: str = ""
    particle: bool = False  # case and agreement particles: inside a role, outside the noun phrase


@dataclass(frozen=True)
class Language:
    """A grammar, and a form for every concept; `particles` are the case and agreement morphemes."""

    code: str
    name: str
    grammar: Grammar
    lexicon: dict[str, str] = field(repr=False)
    particles: dict[str, str] = field(repr=False)
    cognates: float = 1.0  # the share of the lexicon that is identical with the source's

    def say(self, meaning: Clause | Question | Link) -> list[Token]:
        """The sentence, with its closing mark."""
        if isinstance(meaning, Question):
            return [*self._question(meaning), Token("?", "PUNCT")]
        if isinstance(meaning, Link):
            joined = [
                *self._clause(meaning.first),
                self._word(meaning.connective),
                *self._clause(meaning.second),
            ]
            return [*joined, Token(".", "PUNCT")]
        return [*self._clause(meaning), Token(".", "PUNCT")]

    def words(self) -> list[str]:
        """Every form that this language can produce."""
        found = set(self.lexicon.values())
        if self.grammar.case == "particle":
            found.add(self.particles["case"])
        elif self.grammar.case == "fused":
            found |= {self._fused(name, "case") for name, c in CONCEPTS.items() if c.tag == "NOUN"}
        if self.grammar.agreement == "particle":
            found.add(self.particles["agreement"])
        elif self.grammar.agreement == "fused":
            found |= {self._fused(name, "agreement") for name, c in CONCEPTS.items() if c.tag == "VERB"}
        return sorted(found)

    def _word(self, concept: str, role: str = "") -> Token:
        return Token(self.lexicon[concept], CONCEPTS[concept].tag, role)

    def _fused(self, concept: str, particle: str) -> str:
        return self.lexicon[concept] + self.particles[particle]

    def _phrase(self, phrase: Phrase, role: str) -> list[Token]:
        tokens = [self._word(phrase.noun, role)]
        if role == "object" and self.grammar.case == "fused":
            tokens = [Token(self._fused(phrase.noun, "case"), "NOUN", role)]
        if phrase.adjective:
            adjective = self._word(phrase.adjective, role)
            tokens = [adjective, *tokens] if self.grammar.adjective == "before" else [*tokens, adjective]
        if role == "object" and self.grammar.case == "particle":
            tokens.append(Token(self.particles["case"], "PART", role, particle=True))
        return tokens

    def _predicate(self, clause: Clause) -> list[Token]:
        if CONCEPTS[clause.predicate].tag == "ADJ":
            adjective = self._word(clause.predicate)
            tokens = [adjective] if self.grammar.copula == "zero" else [self._word("be"), adjective]
        else:
            tokens = [self._word(clause.predicate)]
            concept = CONCEPTS[clause.subject.noun]
            if PERSON in (concept.kind, concept.name) and self.grammar.agreement == "fused":
                tokens = [Token(self._fused(clause.predicate, "agreement"), "VERB")]
            elif PERSON in (concept.kind, concept.name) and self.grammar.agreement == "particle":
                tokens.append(Token(self.particles["agreement"], "PART", particle=True))
        if clause.negated and self.grammar.negation != "final":
            negation = self._word("not")
            tokens = [negation, *tokens] if self.grammar.negation == "before" else [*tokens, negation]
        return tokens

    def _place(self, phrase: Phrase) -> list[Token]:
        noun, adposition = self._phrase(phrase, "place"), self._word("in")
        return [adposition, *noun] if self.grammar.adposition == "before" else [*noun, adposition]

    def _clause(self, clause: Clause, asked: str | None = None) -> list[Token]:
        """`asked`: the role whose words are replaced by the question word (in place) or left out (fronted)."""
        question_word = {"subject": "who", "object": "what", "place": "where"}
        in_place = self.grammar.question == "in place"

        def part(role: str, tokens: list[Token]) -> list[Token]:
            if role != asked:
                return tokens
            return [self._word(question_word[role])] if in_place else []

        parts = {
            "S": part("subject", self._phrase(clause.subject, "subject")),
            "V": self._predicate(clause),
            "O": part("object", self._phrase(clause.object, "object")) if clause.object else [],
        }
        core = [token for letter in self.grammar.order for token in parts[letter]]
        around = part("place", self._place(clause.place)) if clause.place else []
        if clause.time:
            around = [*around, self._word(clause.time)]
        tokens = [*core, *around] if self.grammar.modifiers == "last" else [*around, *core]
        if clause.negated and self.grammar.negation == "final":
            tokens.append(self._word("not"))
        if asked and not in_place:
            tokens = [self._word(question_word[asked]), *tokens]
        return tokens

    def _question(self, question: Question) -> list[Token]:
        return self._clause(question.clause, asked=question.asked)


def text_of(tokens: list[Token]) -> str:
    """The written sentence: words with a space between them, marks attached."""
    return "".join(t.form if t.tag == "PUNCT" else f" {t.form}" for t in tokens).strip()


def order_distance(a: str, b: str) -> float:
    """The share of the three pairs among S, V and O that stand the other way round."""
    turned = sum((a.index(x) < a.index(y)) != (b.index(x) < b.index(y)) for x, y in combinations("SVO", 2))
    return turned / 3


def distance(language: Language, source: Language) -> float:
    """0 for the source itself, 1 for a language without a cognate that differs in everything (DISTANCE_WEIGHTS)."""
    total = DISTANCE_WEIGHTS["lexicon"] * (1 - language.cognates)
    total += DISTANCE_WEIGHTS["order"] * order_distance(language.grammar.order, source.grammar.order)
    for name in (f.name for f in fields(Grammar) if f.name != "order"):
        mine, theirs = getattr(language.grammar, name), getattr(source.grammar, name)
        if mine != theirs:
            total += DISTANCE_WEIGHTS[name] * (0.5 if "particle" in (mine, theirs) else 1.0)
    return total


@dataclass(frozen=True)
class Family:
    """The source and its targets, nearest first."""

    source: Language
    targets: tuple[Language, ...]

    @property
    def languages(self) -> tuple[Language, ...]:
        return (self.source, *self.targets)

    def distance(self, code: str) -> float:
        return distance(self[code], self.source)

    def __getitem__(self, code: str) -> Language:
        return {language.code: language for language in self.languages}[code]


# code, name, share of cognates, grammar. No code is an ISO 639-1 code, so no rule made for a real language applies.
_SOURCE = ("mu", "Muro", Grammar())
_TARGETS: list[tuple[str, str, float, Grammar]] = [
    ("me", "Mera", 0.92, Grammar()),
    ("le", "Letan", 0.84, Grammar(adjective="after")),
    ("ri", "Rivo", 0.76, Grammar(negation="after", question="in place")),
    ("ke", "Keshi", 0.60, Grammar(order="SOV", adposition="after")),
    ("fu", "Furo", 0.52, Grammar(order="SVO", adjective="after", negation="final", copula="zero")),
    ("ze", "Zenka", 0.44, Grammar(order="VSO", adjective="after", agreement="particle")),
    ("ob", "Obri", 0.36, Grammar(order="SOV", adposition="after", negation="after", case="particle")),
    (
        "xi",
        "Xiru",
        0.20,
        Grammar(order="SOV", adposition="after", negation="after", question="in place", case="fused"),
    ),
    (
        "wi",
        "Wiso",
        0.12,
        Grammar(
            order="VOS",
            adjective="after",
            negation="final",
            case="particle",
            agreement="fused",
            copula="zero",
        ),
    ),
    (
        "tu",
        "Tuvo",
        0.04,
        Grammar("OVS", "after", "after", "after", "first", "in place", "fused", "fused", "zero"),
    ),
]
_SHORT = {"PRON", "PART", "ADP", "AUX", "CCONJ", "SCONJ"}


class _Mint:
    """Makes words in the sound of one language, none of them twice in the family."""

    def __init__(self, random: Random, taken: set[str]):
        self.random, self.taken = random, taken
        self.consonants = random.sample(list("bdfghjklmnprstvwz"), 9)
        self.vowels = random.sample(list("aeiou"), 4)
        self.codas = ["", "", "", *random.sample(list("lmnrs"), 2)]

    def word(self, syllables: int) -> str:
        pick = self.random.choice
        for attempt in range(1000):
            length = syllables + attempt // 50
            form = "".join(pick(self.consonants) + pick(self.vowels) for _ in range(length)) + pick(
                self.codas
            )
            if form not in self.taken:
                self.taken.add(form)
                return form
        raise RuntimeError("the sounds of a pocket language do not suffice for its lexicon")


def _particles(mint: _Mint) -> dict[str, str]:
    return {"case": mint.word(1), "agreement": mint.word(1)}


def make_family(seed: int = 0) -> Family:
    """The same seed makes the same languages, word for word."""
    # English words that metrics or templates treat specially must not be words of ours
    taken = {"a", "an", "the", "was", "what", "as", "result", "cause", "effect", "happened"}
    code, name, grammar = _SOURCE
    mint = _Mint(Random(f"sounds {seed} {code}"), taken)
    lexicon = {c.name: mint.word(1 if c.tag in _SHORT else 2) for c in CONCEPTS.values()}
    source = Language(code, name, grammar, lexicon, _particles(mint))
    targets = []
    for code, name, share, grammar in _TARGETS:
        random = Random(f"lexicon {seed} {code}")
        mint = _Mint(random, taken)
        kept = set(random.sample(sorted(CONCEPTS), round(share * len(CONCEPTS))))
        forms = {
            c.name: source.lexicon[c.name] if c.name in kept else mint.word(1 if c.tag in _SHORT else 2)
            for c in CONCEPTS.values()
        }
        targets.append(Language(code, name, grammar, forms, _particles(mint), len(kept) / len(CONCEPTS)))
    targets.sort(key=lambda language: distance(language, source))
    return Family(source, tuple(targets))
