"""The languages are what their grammars say, the same from every seed, and as far apart as the choices make them."""

from dataclasses import replace
from random import Random

import pytest

from fishlens.pocket.languages import (
    DISTANCE_WEIGHTS,
    Grammar,
    distance,
    make_family,
    order_distance,
    text_of,
)
from fishlens.pocket.meanings import CONCEPTS, Clause, Link, Phrase, Question, World

FAMILY = make_family()
CLAUSE = Clause(Phrase("doctor", "old"), "heal", Phrase("patient"), Phrase("hospital"), "today")


def said(meaning, **grammar):
    """In glosses instead of forms: the grammar alone."""
    language = replace(
        FAMILY.source,
        grammar=Grammar(**grammar),
        lexicon={name: name for name in CONCEPTS},
        particles={"case": "CASE", "agreement": "AGR"},
    )
    return text_of(language.say(meaning))


def test_the_same_seed_makes_the_same_words_and_another_seed_other_ones():
    assert make_family(3) == make_family(3)
    assert make_family(3).source.words() != make_family(4).source.words()


def test_no_form_has_two_meanings_in_a_language_or_across_languages_unless_it_is_a_cognate():
    meaning_of = {}
    for language in FAMILY.languages:
        assert len(set(language.lexicon.values())) == len(CONCEPTS)
        for concept, form in language.lexicon.items():
            assert meaning_of.setdefault(form, concept) == concept
    everything = [set(language.words()) for language in FAMILY.languages]
    fused = [
        words - set(lang.lexicon.values()) for words, lang in zip(everything, FAMILY.languages, strict=True)
    ]
    for number, words in enumerate(fused):
        for other, lexicon in enumerate(everything):
            assert number == other or not words & lexicon


def test_a_cognate_is_identical_with_the_sources_word_and_the_share_is_as_stated():
    for language in FAMILY.targets:
        same = sum(language.lexicon[name] == FAMILY.source.lexicon[name] for name in CONCEPTS)
        assert same / len(CONCEPTS) == pytest.approx(language.cognates)


@pytest.mark.parametrize("order", ["SVO", "SOV", "VSO", "VOS", "OVS", "OSV"])
def test_constituents_stand_in_the_order_of_the_language(order):
    words = {"S": "doctor", "V": "heal", "O": "patient"}
    assert said(CLAUSE.core(), order=order) == " ".join(words[letter] for letter in order) + "."


@pytest.mark.parametrize(
    ("grammar", "sentence"),
    [
        ({}, "old doctor heal patient in hospital today."),
        ({"adjective": "after"}, "doctor old heal patient in hospital today."),
        ({"adposition": "after"}, "old doctor heal patient hospital in today."),
        ({"modifiers": "first"}, "in hospital today old doctor heal patient."),
        ({"case": "particle"}, "old doctor heal patient CASE in hospital today."),
        ({"case": "fused"}, "old doctor heal patientCASE in hospital today."),
        ({"agreement": "particle"}, "old doctor heal AGR patient in hospital today."),
        ({"agreement": "fused"}, "old doctor healAGR patient in hospital today."),
    ],
)
def test_every_choice_of_a_grammar_shows_in_the_sentence(grammar, sentence):
    assert said(CLAUSE, **grammar) == sentence


@pytest.mark.parametrize(
    ("negation", "sentence"),
    [
        ("before", "doctor not heal patient today."),
        ("after", "doctor heal not patient today."),
        ("final", "doctor heal patient today not."),
    ],
)
def test_negation_stands_where_the_grammar_says(negation, sentence):
    clause = replace(CLAUSE.core(), time="today", negated=True)
    assert said(clause, negation=negation) == sentence


def test_being_is_said_or_left_out_and_agreement_is_for_persons_only():
    assert said(Clause(Phrase("ball"), "big")) == "ball be big."
    assert said(Clause(Phrase("ball"), "big"), copula="zero") == "ball big."
    assert said(Clause(Phrase("ball"), "fly"), agreement="fused") == "ball fly."
    assert said(Clause(Phrase("king"), "rest"), agreement="fused") == "king restAGR."


@pytest.mark.parametrize(
    ("asked", "fronted", "in_place"),
    [
        ("subject", "who heal patient in hospital today?", "who heal patient in hospital today?"),
        ("object", "what old doctor heal in hospital today?", "old doctor heal what in hospital today?"),
        ("place", "where old doctor heal patient today?", "old doctor heal patient where today?"),
    ],
)
def test_a_question_word_is_fronted_or_stays_in_place(asked, fronted, in_place):
    assert said(Question(CLAUSE, asked)) == fronted
    assert said(Question(CLAUSE, asked), question="in place") == in_place


def test_linked_clauses_have_their_connective_between_them():
    result = World().result(CLAUSE.core())
    assert said(Link(CLAUSE.core(), "so", result)) == "doctor heal patient so patient recover."


def test_a_language_can_say_nothing_that_is_not_in_its_list_of_words():
    random = Random(0)
    for language in FAMILY.languages:
        words = set(language.words())
        for _ in range(200):
            meaning = World().event(random)
            for token in [*language.say(meaning), *language.say(Question(meaning, "object"))]:
                assert token.tag == "PUNCT" or token.form in words


def test_order_distance_counts_the_pairs_that_are_turned_round():
    assert order_distance("SVO", "SVO") == 0
    assert order_distance("SVO", "SOV") == pytest.approx(1 / 3)  # V and O
    assert order_distance("SVO", "VOS") == pytest.approx(2 / 3)  # S and V, S and O
    assert order_distance("SVO", "OVS") == 1


def test_distance_is_zero_for_the_source_and_adds_up_the_stated_weights():
    source = FAMILY.source
    assert sum(DISTANCE_WEIGHTS.values()) == pytest.approx(1)
    assert distance(source, source) == 0
    far = Grammar("OVS", "after", "after", "after", "first", "in place", "fused", "fused", "zero")
    assert distance(replace(source, grammar=far, cognates=0.0), source) == pytest.approx(1)
    cased = replace(source, grammar=Grammar(case="particle"), cognates=0.5)
    assert distance(cased, source) == pytest.approx(0.5 * 0.5 + 0.07 / 2)


def test_there_are_ten_targets_or_more_from_near_to_far_in_order_and_no_code_is_a_real_languages():
    distances = [FAMILY.distance(language.code) for language in FAMILY.targets]
    assert len(distances) >= 10
    assert distances == sorted(distances)
    assert distances[0] < 0.1
    assert distances[-1] > 0.8
    assert not {language.code for language in FAMILY.languages} & {"en", "de", "es", "ar", "hi", "vi", "zh"}
