"""Raw text says what the world says, in one language at a time."""

from dataclasses import replace
from itertools import islice
from random import Random

from fishlens.pocket.languages import make_family
from fishlens.pocket.meanings import CONCEPTS, OPPOSITES, RESULTS, TOPICS, Clause, Phrase, World, gloss
from fishlens.pocket.text import documents, parallel_lines, raw_lines

FAMILY, WORLD = make_family(), World()


def test_every_word_of_a_text_is_a_word_of_its_language():
    for language in FAMILY.languages:
        words = set(language.words())
        for line in raw_lines(WORLD, language, 100, seed=0):
            assert set(line.replace(".", " ").replace("?", " ").split()) <= words


def test_texts_of_two_languages_are_drawn_apart_and_parallel_lines_say_the_same():
    twin = replace(FAMILY.source, code="zz")
    assert raw_lines(WORLD, FAMILY.source, 50, 0) != raw_lines(WORLD, twin, 50, 0)
    aligned = parallel_lines(WORLD, [FAMILY.source, twin], 50, 0)
    assert aligned["mu"] == aligned["zz"]
    assert aligned["mu"] == parallel_lines(WORLD, [FAMILY.source], 50, 0)["mu"]


def test_the_same_seed_writes_the_same_text():
    assert raw_lines(World(), make_family()["tu"], 50, 3) == raw_lines(WORLD, FAMILY["tu"], 50, 3)
    assert raw_lines(WORLD, FAMILY["tu"], 50, 4) != raw_lines(WORLD, FAMILY["tu"], 50, 3)


def test_every_concept_comes_up():
    said = set()
    for language in FAMILY.languages[:1]:
        back = {form: name for name, form in language.lexicon.items()}
        for line in raw_lines(WORLD, language, 6000, seed=0):
            said |= {back[word] for word in line.replace(".", " ").replace("?", " ").split()}
    assert said == set(CONCEPTS)


def test_an_event_stays_mostly_with_its_topic_and_nobody_does_something_to_himself():
    random = Random(0)
    for topic in TOPICS:
        events = [WORLD.event(random, topic) for _ in range(300)]
        assert all(CONCEPTS[event.subject.noun].topic == topic for event in events)
        assert sum(CONCEPTS[event.object.noun].topic == topic for event in events) > 0.85 * 300
        assert all(event.subject.noun != event.object.noun for event in events)


def test_opposites_are_mutual_and_have_different_results():
    assert all(OPPOSITES[OPPOSITES[name]] == name for name in OPPOSITES)
    assert all(RESULTS[name] != RESULTS[OPPOSITES[name]] for name in RESULTS)


def test_a_document_has_at_most_four_sentences():
    for document in islice(documents(WORLD, Random(0)), 500):
        assert 1 <= len(document) <= 4


def test_a_gloss_is_readable():
    clause = Clause(Phrase("ball", "big"), "throw", Phrase("dog"), Phrase("pool"), "today", negated=True)
    assert gloss(clause) == "the big ball (not) throw the dog in the pool today"
