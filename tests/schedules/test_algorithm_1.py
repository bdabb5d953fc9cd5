"""Every schedule thaws, at every step, what a hand-written Algorithm 1 thaws."""

import math
import random

import pytest

from fishlens.schedules import SCHEDULES, Scores, State, make_schedule

L = 12
NAMES = tuple(f"layer.{i}" for i in range(L))
ORDER = [7, 0, 11, 3, 4, 10, 1, 2, 9, 8, 6, 5]


def algorithm_1(select, blocks: int, k: int, steps: int) -> dict[int, list[int]]:
    """Algorithm 1, written a second time from the paper's text, with plain integers and nothing of ours.

    {step: blocks thawed by then, bottom to top}, for every step. `select(step, frozen, thawed)` -> blocks.
    """
    thawed: list[int] = []
    by_step = {}
    for i in range(steps):
        if i % k == 0 and i <= k * blocks:
            frozen = [b for b in range(blocks) if b not in thawed]
            thawed += select(i, frozen, thawed)
        by_step[i] = sorted(thawed)
    return by_step


def traces_at(step: int) -> list[float]:
    """Made-up tr(F) of twelve blocks that changes from step to step."""
    generator = random.Random(step)
    return [generator.uniform(0.1, 5.0) for _ in range(L)]


def scores_at(step: int) -> Scores:
    values = traces_at(step)
    return Scores(
        trace=dict(zip(NAMES, values, strict=True)),
        stderr=dict.fromkeys(NAMES, 0.1),
        examples=16,
        relative_gradient=dict(zip(NAMES, values, strict=True)),
    )


def largest(step, frozen):
    values = traces_at(step)
    return max(frozen, key=lambda b: values[b])


# the rule of each schedule, in plain integers
RULES = {
    "standard": ({}, lambda i, frozen, thawed: frozen if i == 0 else []),
    "full": ({}, lambda i, frozen, thawed: frozen if i == 0 else []),
    "auto-rgn": ({}, lambda i, frozen, thawed: frozen if i == 0 else []),
    "gu": ({}, lambda i, frozen, thawed: [max(frozen)] if frozen else []),
    "gu-reverse": ({}, lambda i, frozen, thawed: [min(frozen)] if frozen else []),
    "lpft": ({}, lambda i, frozen, thawed: [] if i == 0 else frozen),
    "fixed": ({"order": ORDER}, lambda i, frozen, thawed: ORDER[len(thawed) : len(thawed) + 1]),
    "surgical": ({"subset": [0, 5, -1]}, lambda i, frozen, thawed: [0, 5, 11] if i == 0 else []),
    "fun": (
        {},
        lambda i, frozen, thawed: [11] if not thawed else [largest(i, frozen)] if frozen else [],
    ),
    "fun-select": (
        {"first": "select"},
        lambda i, frozen, thawed: [largest(i, frozen)] if frozen else [],
    ),
}


def run(schedule, steps: int) -> dict[int, list[int]]:
    state, by_step = State(), {}
    for step in range(steps):
        if schedule.is_event(step):
            scores = scores_at(step) if schedule.needs_scores(step, state) else None
            state = State.from_json(state.to_json()).after(schedule.select(step, state, scores))
        by_step[step] = sorted(NAMES.index(name) for name in state.thawed)
    return by_step


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("case", RULES)
def test_a_schedule_thaws_at_every_step_what_algorithm_1_thaws(case, k):
    options, rule = RULES[case]
    schedule = make_schedule(case.removesuffix("-select"), every=k, blocks=NAMES, **options)
    steps = k * (L + 3)
    assert run(schedule, steps) == algorithm_1(rule, L, k, steps)


def test_no_schedule_is_missing_from_these_tests():
    covered = {case.removesuffix("-select") for case in RULES} | {"random"}
    assert covered == set(SCHEDULES)


@pytest.mark.parametrize("seed", range(5))
def test_random_thaws_one_frozen_block_per_event_until_none_is_left(seed):
    by_step = run(make_schedule("random", every=4, blocks=NAMES, seed=seed), 4 * (L + 2))
    for step, thawed in by_step.items():
        assert len(thawed) == min(step // 4 + 1, L)
        assert set(by_step.get(step - 1, [])) <= set(thawed)


def test_random_draws_every_block_first_about_equally_often():
    firsts = [run(make_schedule("random", every=1, blocks=NAMES, seed=s), 1)[0][0] for s in range(1200)]
    counts = [firsts.count(b) for b in range(L)]
    # chi-square with 11 degrees of freedom: above 31.3 once in a thousand
    assert sum((c - 100) ** 2 / 100 for c in counts) < 31.3


def test_random_draws_all_orders_about_equally_often():
    blocks = ("a", "b", "c")
    orders: dict[tuple[str, ...], int] = {}
    for seed in range(1200):
        schedule, state = make_schedule("random", every=1, blocks=blocks, seed=seed), State()
        for step in range(3):
            state = state.after(schedule.select(step, state))
        orders[state.thawed] = orders.get(state.thawed, 0) + 1
    assert len(orders) == 6
    # chi-square with 5 degrees of freedom: above 20.5 once in a thousand
    assert sum((n - 200) ** 2 / 200 for n in orders.values()) < 20.5


def test_random_resumed_in_the_middle_goes_on_as_if_nothing_had_happened():
    schedule = make_schedule("random", every=1, blocks=NAMES, seed=3)
    whole = run(schedule, L)[L - 1]
    state = State()
    order = []
    for step in range(L):
        fresh = make_schedule("random", every=1, blocks=NAMES, seed=3)  # a new process
        state = State.from_json(state.to_json()).after(fresh.select(step, state))
        order = list(state.thawed)
    assert sorted(NAMES.index(n) for n in order) == whole
    straight = State()
    for step in range(L):
        straight = straight.after(schedule.select(step, straight))
    assert order == list(straight.thawed)


def test_only_fun_and_auto_rgn_ever_ask_for_scores_and_fun_not_for_its_given_first_block():
    for name in SCHEDULES:
        options = {"order": ORDER} if name == "fixed" else {"subset": [1]} if name == "surgical" else {}
        schedule = make_schedule(name, every=5, blocks=NAMES, **options)
        state, asked = State(), []
        for step in range(5 * (L + 3)):
            if schedule.needs_scores(step, state):
                asked.append(step)
            if schedule.is_event(step):
                state = state.after(schedule.select(step, state, scores_at(step)))
        expected = {
            "fun": [5 * n for n in range(1, L)],  # eleven choices: the first block is given
            "auto-rgn": [5 * n for n in range(L + 3)],
        }
        assert asked == expected.get(name, []), name


def test_the_events_of_algorithm_1_end_at_k_times_l():
    schedule = make_schedule("gu", every=10, blocks=NAMES)
    assert [s for s in range(300) if schedule.is_event(s)] == list(range(0, 121, 10))


def test_auto_rgn_weights_are_relative_gradient_norms_over_the_largest():
    event = make_schedule("auto-rgn", every=5, blocks=NAMES).select(35, State(thawed=NAMES), scores_at(35))
    values = traces_at(35)
    for name, value in zip(NAMES, values, strict=True):
        assert math.isclose(event.learning_rate_weights[name], value / max(values))
    assert max(event.learning_rate_weights.values()) == 1.0
