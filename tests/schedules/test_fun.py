"""`fun` keeps the grounds of its choice: all scores, the runner-up, the margin in standard errors."""

import math
import statistics

import pytest

from fishlens.errors import InputError
from fishlens.schedules import Scores, State, make_schedule

BLOCKS = ("a", "b", "c", "d")


def fun(**options):
    return make_schedule("fun", every=2, blocks=BLOCKS, **options)


def test_it_records_every_score_the_runner_up_and_the_margin():
    scores = Scores(
        trace={"a": 1.0, "b": 4.0, "c": 3.0, "d": 9.0},
        stderr={"a": 0.1, "b": 0.3, "c": 0.4, "d": 0.1},
        examples=64,
    )
    event = fun().select(2, State(thawed=("d",), events=1, last_step=0), scores)
    assert event.chosen == ("b",)  # d leads, but it is thawed
    assert event.runner_up == "c"
    assert event.margin == pytest.approx((4.0 - 3.0) / math.sqrt(0.3**2 + 0.4**2))
    assert event.scores == scores.trace  # the thawed one too
    assert event.examples == 64


def test_with_traces_per_example_the_margin_is_that_of_the_paired_difference():
    a, b = [1.0, 5.0, 9.0, 2.0], [0.5, 4.7, 8.2, 1.9]
    scores = Scores(
        trace={"a": statistics.mean(a), "b": statistics.mean(b)},
        stderr={"a": 1.0, "b": 1.0},
        per_example={"a": a, "b": b},
        examples=4,
    )
    differences = [x - y for x, y in zip(a, b, strict=True)]
    expected = statistics.mean(differences) / (statistics.stdev(differences) / 2)
    assert scores.margin("a", "b") == pytest.approx(expected)
    assert scores.margin("b", "a") == pytest.approx(-expected)


def test_of_equal_scores_the_block_nearer_the_top_is_thawed():
    scores = Scores(trace=dict.fromkeys(BLOCKS, 1.0))
    event = fun(first="select").select(0, State(), scores)
    assert event.chosen == ("d",)
    assert event.margin is None  # nothing is known about the error


def test_the_last_frozen_block_has_no_runner_up():
    scores = Scores(trace=dict.fromkeys(BLOCKS, 1.0), stderr=dict.fromkeys(BLOCKS, 0.1))
    event = fun().select(6, State(thawed=("d", "c", "b")), scores)
    assert (event.chosen, event.runner_up, event.margin) == (("a",), None, None)


def test_confident_asks_for_more_examples_until_the_leader_leads_clearly_or_the_cap_is_reached():
    state = State(thawed=("d",))
    near = Scores(trace={"a": 1.0, "b": 1.1, "c": 0.5}, stderr=dict.fromkeys("abc", 0.2), examples=32)
    clear = Scores(trace={"a": 1.0, "b": 2.1, "c": 0.5}, stderr=dict.fromkeys("abc", 0.2), examples=32)
    capped = Scores(trace=near.trace, stderr=near.stderr, examples=100)
    schedule = fun(confident=True, margin=3.0, max_examples=100)
    assert schedule.wants_more(2, state, near)
    assert not schedule.wants_more(2, state, clear)
    assert not schedule.wants_more(2, state, capped)
    assert not fun().wants_more(2, state, near)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_refused_by_the_blocks_name(bad):
    scores = Scores(trace={"a": 1.0, "b": bad, "c": 1.0, "d": 1.0})
    with pytest.raises(InputError, match="'b' has the score"):
        fun().select(2, State(thawed=("d",)), scores)
    # a thawed block is not chosen among, so its score does not matter
    assert fun().select(2, State(thawed=("b",)), scores).chosen == ("d",)


def test_without_scores_where_they_are_needed_it_says_so():
    with pytest.raises(InputError, match="needs the scores"):
        fun().select(2, State(thawed=("d",)))
