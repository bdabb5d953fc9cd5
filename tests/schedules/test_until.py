"""A schedule that ends before its last block: at a step, or where tr(F) no longer changes."""

import pytest

from fishlens.errors import InputError
from fishlens.schedules import Scores, State, make_schedule

BLOCKS = ("a", "b", "c", "d", "e", "f")
NAMES = ("gu", "gu-reverse", "random", "fun")


def walk(schedule, totals=None):
    """Step → blocks thawed, the blocks' scores adding up to each of `totals` in turn; and the last event."""
    state, thawed, ended = State(), {}, None
    for number, step in enumerate(range(0, schedule.every * len(BLOCKS) + 1, schedule.every)):
        if not schedule.frozen(state):
            break
        scores = None
        if schedule.needs_scores(step, state):
            share = totals[number] / len(BLOCKS) if totals else 1.0
            scores = Scores(trace=dict.fromkeys(BLOCKS, share), stderr=dict.fromkeys(BLOCKS, 0.1), examples=8)
        event = schedule.select(step, state, scores)
        state = State.from_json(state.after(event).to_json())
        thawed[step], ended = event.chosen, event.ended or ended
    return thawed, ended


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("until", "at"), [(0, 0), (20, 20), (21, 30)])
def test_at_the_first_event_from_a_step_on_everything_left_is_thawed(name, until, at):
    schedule = make_schedule(name, every=10, blocks=BLOCKS, until=until)
    thawed, ended = walk(schedule)
    assert max(thawed) == at == schedule.complete_at
    assert ended == f"step {until}"
    assert [len(blocks) for blocks in thawed.values()] == [1] * (at // 10) + [6 - at // 10]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_that_comes_too_late_changes_nothing(name):
    plain = walk(make_schedule(name, every=10, blocks=BLOCKS))
    assert walk(make_schedule(name, every=10, blocks=BLOCKS, until=1000)) == plain


@pytest.mark.parametrize("name", NAMES)
def test_a_plateau_is_two_small_changes_in_a_row(name):
    schedule = make_schedule(name, every=10, blocks=BLOCKS, until="plateau", tolerance=0.1)
    # changes as shares of the largest so far: 1/2, 0.05, 0.2, 0.1, 0.1
    thawed, ended = walk(schedule, [10.0, 20.0, 19.0, 15.0, 17.0, 19.0, 19.0])
    assert list(thawed) == [0, 10, 20, 30, 40, 50]
    assert ended == "plateau of tr(F), source: 2 changes of at most 0.1"
    early, _ = walk(schedule, [10.0, 10.5, 10.0, 10.0])
    assert list(early) == [0, 10, 20] and len(early[20]) == 4
    never, none = walk(schedule, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    assert all(len(blocks) == 1 for blocks in never.values()) and none is None


def test_the_event_keeps_what_the_rule_saw_and_fun_its_own_choice():
    schedule = make_schedule("fun", every=10, blocks=BLOCKS, until="plateau", scores="targets")
    assert schedule.scored_on == "targets" and schedule.needs_scores(0, State())
    trace = dict(zip(BLOCKS, (1.0, 5.0, 2.0, 0.5, 0.1, 9.0), strict=True))
    first = schedule.select(0, State(), Scores(trace=trace))
    assert first.chosen == ("f",) and first.total == sum(trace.values()) and first.scores == trace
    event = schedule.select(10, State().after(first), Scores(trace=trace, stderr=dict.fromkeys(BLOCKS, 1.0)))
    assert event.chosen == ("b",) and event.runner_up == "c"


def test_a_checkpoint_of_before_has_no_totals():
    old = State(thawed=("f",), events=1, last_step=0).to_json()
    del old["totals"]
    assert State.from_json(old).totals == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"until": "soon"}, "schedule.until is 'soon'; expected a number of updates or 'plateau'"),
        ({"until": -1}, "schedule.until is -1"),
        ({"until": True}, "schedule.until is True"),
        ({"until": "plateau", "tolerance": 1.0}, "schedule.tolerance is 1.0"),
        ({"until": "plateau", "patience": 0}, "schedule.patience is 0"),
        ({"scores": "targets"}, "looks at scores only with schedule.until=plateau"),
        ({"until": "plateau", "scores": "both"}, "schedule.scores is 'both'"),
    ],
)
def test_what_cannot_be_is_said(options, said):
    with pytest.raises(InputError, match=said):
        make_schedule("gu", every=10, blocks=BLOCKS, **options)


def test_a_score_that_is_not_finite_is_no_plateau():
    schedule = make_schedule("gu", every=10, blocks=BLOCKS, until="plateau")
    with pytest.raises(InputError, match="'a' has the score nan"):
        schedule.select(0, State(), Scores(trace=dict.fromkeys(BLOCKS, float("nan"))))


def test_standard_has_no_such_option():
    with pytest.raises(InputError, match=r"schedule\.until is not an option"):
        make_schedule("standard", every=10, blocks=BLOCKS, until=3)
