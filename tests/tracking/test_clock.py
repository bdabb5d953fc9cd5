"""When to probe: every k steps, at given steps, or within a share of the training time."""

import pytest

from fishlens import InputError
from fishlens.tracking.clock import At, Budget, Every, Spent, make_clock


def steps_probed(clock, count, seconds_per_step=1.0, seconds_per_probe=0.5):
    """Which of `count` steps are probed by a clock when time goes by like this."""
    probed, probes = [], 0.0
    for step in range(count):
        last = seconds_per_probe if probed else 0.0
        if clock.due(step, Spent(probes=probes, last_probe=last, training=step * seconds_per_step)):
            probed.append(step)
            probes += seconds_per_probe
    return probed


def test_every_k_steps_begins_with_step_zero():
    assert steps_probed(Every(4), 10) == [0, 4, 8]


def test_given_steps_and_no_others():
    assert steps_probed(At(frozenset({1, 7})), 10) == [1, 7]


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_a_budget_is_never_exceeded_after_the_first_probe_is_paid_off(share):
    clock, cost = Budget(share), 0.5
    probed = steps_probed(clock, 2000, seconds_per_probe=cost)
    assert probed[0] == 0
    for number, step in enumerate(probed[1:], start=2):
        assert number * cost <= share * step + 1e-9
    assert len(probed) * cost > 0.9 * share * 2000  # and it is used


def test_how_a_clock_is_written():
    assert make_clock(50) == make_clock("50") == Every(50)
    assert make_clock("2%") == Budget(0.02)
    assert make_clock([0, 10]) == make_clock("0,10") == At(frozenset({0, 10}))
    assert make_clock(Every(3)) == Every(3)


@pytest.mark.parametrize("wrong", [0, -1, True, "x", "0%", "100%", "", [], [-1], 1.5, None, "1,,2"])
def test_what_is_no_clock_is_refused_by_name(wrong):
    with pytest.raises(InputError, match="every is "):
        make_clock(wrong)


def test_a_list_of_steps_is_read_as_the_documentation_writes_it():
    assert make_clock("[0, 10, 100]") == make_clock([0, 10, 100]) == make_clock("0,10,100")
    assert make_clock("[7]") == make_clock([7])
