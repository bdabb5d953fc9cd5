"""Making schedules: names, options, a user's own class, and what is refused."""

import json

import pytest

from fishlens.errors import InputError
from fishlens.schedules import Event, Schedule, State, budget_warning, make_schedule
from fishlens.schedules.permutations import SAMPLED_12, sample_permutations
from fishlens.schedules.registry import check_options

BLOCKS = [f"layer.{i}" for i in range(4)]


class OutsideIn(Schedule):
    """A user's own: both ends at once."""

    name = "outside-in"

    def choose(self, step, state, scores):
        frozen = self.frozen(state)
        return Event(step, tuple(dict.fromkeys(frozen[:1] + frozen[-1:])))


def test_a_users_class_is_named_as_module_and_class():
    schedule = make_schedule(f"{__name__}:OutsideIn", every=3, blocks=BLOCKS)
    state = State()
    for step in (0, 3):
        state = state.after(schedule.select(step, state))
    assert state.thawed == ("layer.0", "layer.3", "layer.1", "layer.2")


def test_a_state_survives_json():
    state = State(("layer.3", "layer.1"), ("layer.1",), 2, 50, {"layer.0": 0.25})
    assert State.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_the_ten_permutations_are_what_the_stated_seed_draws():
    assert sample_permutations(12) == SAMPLED_12
    assert len(set(SAMPLED_12)) == 10
    assert all(sorted(order) == list(range(12)) for order in SAMPLED_12)


def test_few_blocks_have_few_permutations():
    assert sorted(sample_permutations(3)) == sorted(
        [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    )
    assert sample_permutations(6) == sample_permutations(6)


def test_a_permutation_is_the_order_of_thawing():
    blocks = [str(i) for i in range(12)]
    schedule = make_schedule("fixed", every=1, blocks=blocks, permutation=4)
    state = State()
    for step in range(12):
        state = state.after(schedule.select(step, state))
    assert [int(b) for b in state.thawed] == list(SAMPLED_12[4])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gradual", {}, "schedule.name is 'gradual'; expected one of standard, gu"),
        (
            "gu",
            {"order": [1]},
            "schedule.order is not an option of the schedule 'gu', which has patience, scores, tolerance, until",
        ),
        (
            "fun",
            {"frist": "top"},
            "schedule.frist is not an option .* confident, first, margin, max_examples",
        ),
        ("fun", {"first": "bottom"}, "schedule.first is 'bottom'"),
        ("fun", {"margin": "wide"}, "cannot be made with"),
        ("gu", {"every": 0}, "schedule.every is 0; expected a whole number"),
        ("fixed", {}, "needs either schedule.order or schedule.permutation"),
        ("fixed", {"order": [0, 1, 2]}, "leaves out layer.3"),
        ("fixed", {"order": [0, 1, 2, 2]}, "names a block twice"),
        ("fixed", {"order": [0, 1, 2, 4]}, "names block 4; expected a number below 4"),
        ("fixed", {"permutation": 10}, "schedule.permutation is 10; expected a whole number from 0 to 9"),
        ("surgical", {}, "needs schedule.subset"),
        ("surgical", {"subset": ["layer.9"]}, "names block 'layer.9'"),
        ("no_such_module:Mine", {}, "cannot be imported"),
        (f"{__name__}:BLOCKS", {}, "expected a subclass"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_sentence(name, options, message):
    with pytest.raises(InputError, match=message):
        make_schedule(name, **{"every": 5, "blocks": BLOCKS, **options})


class Weighs(Schedule):
    name = "weighs"

    def choose(self, step, state, scores):
        return Event(step, (), learning_rate_weights={"a": 0.5})


def test_a_schedule_that_weighs_learning_rates_declares_it():
    with pytest.raises(
        InputError, match=r"'weighs' gives learning-rate weights .* sets_learning_rates = True"
    ):
        Weighs(every=1, blocks=("a",)).select(0, State())

    class Declares(Weighs):
        sets_learning_rates = True

    assert Declares(every=1, blocks=("a",)).select(0, State()).learning_rate_weights == {"a": 0.5}


@pytest.mark.parametrize("blocks", [[], ["a", "a"], ["a", "head"]])
def test_blocks_without_sense_are_refused(blocks):
    with pytest.raises(InputError):
        make_schedule("gu", every=5, blocks=blocks)


def test_an_interval_that_is_too_long_for_the_run_is_reported_with_the_numbers():
    schedule = make_schedule("gu", every=50, blocks=BLOCKS)
    warning = budget_warning(schedule, 150)
    assert "every=50" in warning and "at step 150" in warning and "after 150 steps (3 events)" in warning
    assert "at most 49" in warning
    assert budget_warning(make_schedule("gu", every=49, blocks=BLOCKS), 150) is None
    assert budget_warning(schedule, 151) is None
    assert budget_warning(make_schedule("lpft", every=50, blocks=BLOCKS), 50) is not None
    assert budget_warning(make_schedule("lpft", every=50, blocks=BLOCKS), 51) is None
    assert budget_warning(make_schedule("standard", every=50, blocks=BLOCKS), 1) is None


def test_a_step_off_the_grid_is_no_event():
    schedule = make_schedule("gu", every=5, blocks=BLOCKS)
    with pytest.raises(ValueError, match="not an event"):
        schedule.select(7, State())


@pytest.mark.parametrize("option", ["every", "blocks", "seed"])
def test_what_every_schedule_has_is_no_option(option):
    with pytest.raises(InputError, match=f"{option} is not a schedule option"):
        check_options({option: 3})


def test_a_users_module_that_raises_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "broken_schedule.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="cannot be imported: ZeroDivisionError"):
        make_schedule("broken_schedule:Mine", every=1, blocks=["a"])


def test_advice_on_a_short_run_is_advice_that_helps():
    plan = make_schedule("gu", every=3, blocks=["a", "b", "c", "d"])
    assert "use an interval of at most 2, or train for more than 9 steps" in budget_warning(plan, 8)
    assert budget_warning(plan, 2).endswith("some blocks never train; train for more than 9 steps")
