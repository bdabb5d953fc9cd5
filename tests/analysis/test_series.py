"""Curves: what is summed over which blocks, what is smoothed, and what a lost value does."""

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis.series import block_curves, curves, moving_average

from fishlens.errors import InputError


def probes(rows, order=("a", "b", "c", "head")):
    """`rows`: (run, step, block, trace, trainable[, examples])."""
    frame = pd.DataFrame(
        [(*row, 8)[:6] for row in rows], columns=["run", "step", "block", "trace", "trainable", "examples"]
    )
    return frame.assign(block=pd.Categorical(frame["block"], categories=order))


ROWS = [
    ("r", 0, "a", 1.0, False), ("r", 0, "b", 2.0, False), ("r", 0, "c", 4.0, True), ("r", 0, "head", 9.0, True),
    ("r", 5, "a", 2.0, False), ("r", 5, "b", 3.0, True), ("r", 5, "c", 5.0, True), ("r", 5, "head", 9.0, True),
]  # fmt: skip


def test_three_ways_to_make_one_curve():
    (one,) = block_curves(probes(ROWS))
    assert one.blocks == ("a", "b", "c")
    assert one.series("all").tolist() == [7, 10]
    assert one.series("trainable").tolist() == [4, 8]
    assert one.series("normalised").tolist() == [4, 4]
    with pytest.raises(InputError, match="no curve 'raw'"):
        one.series("raw")


def test_the_head_counts_only_when_asked_for():
    (one,) = block_curves(probes(ROWS), head=True)
    assert one.blocks == ("a", "b", "c", "head")
    assert one.series("normalised").tolist() == [6.5, 17 / 3]


def test_rows_come_in_any_order_and_blocks_stay_bottom_to_top():
    shuffled = probes(ROWS).sample(frac=1, random_state=1)
    (one,), (same,) = block_curves(probes(ROWS)), block_curves(shuffled)
    assert one.blocks == same.blocks
    np.testing.assert_array_equal(one.trace, same.trace)
    np.testing.assert_array_equal(one.steps, [0, 5])


def test_with_nothing_thawed_the_normalised_curve_is_not_zero_but_absent():
    (one,) = block_curves(probes([(*row[:4], False) for row in ROWS]))
    assert np.isnan(one.series("normalised")).all()
    assert (one.series("trainable") == 0).all()


def test_a_lost_block_makes_the_sum_that_needs_it_nan():
    lost = [(*row[:3], np.nan, row[4]) if row[:3] == ("r", 5, "c") else row for row in ROWS]
    (one,) = block_curves(probes(lost))
    for curve in ("all", "trainable", "normalised"):
        assert np.isnan(one.series(curve)[1])
    infinite = [(*row[:3], np.inf, row[4]) if row[:3] == ("r", 5, "c") else row for row in ROWS]
    assert np.isnan(next(block_curves(probes(infinite))).series("all")[1])


def test_a_block_that_a_probe_does_not_mention_is_lost_too():
    """It was trainable at the probe before, so the sum over trainable blocks misses it."""
    (one,) = block_curves(probes([row for row in ROWS if row[:3] != ("r", 5, "c")]))
    assert np.isnan(one.series("normalised")[1])
    (one,) = block_curves(probes([row for row in ROWS if row[:3] != ("r", 5, "a")]))  # this one was frozen
    assert one.series("normalised").tolist() == [4, 4]
    assert np.isnan(one.series("all")[1])


def test_of_two_probes_at_one_step_the_one_over_more_examples_counts():
    twice = [("r", 0, "a", 1.0, True, 8), ("r", 0, "a", 7.0, True, 64), ("r", 0, "a", 3.0, True, 16)]
    for rows in (twice, twice[::-1]):
        (one,) = block_curves(probes(rows))
        assert one.trace.tolist() == [[7.0]]


def test_many_runs_each_with_its_own_blocks():
    rows = [*ROWS, ("other", 3, "b", 5.0, True)]
    one, other = block_curves(probes(rows))
    assert (one.run, other.run) == ("r", "other")
    assert other.blocks == ("b",)
    assert list(block_curves(probes([]))) == []


def test_a_moving_average_worked_out():
    steps, values = np.array([0, 10, 20, 50, 60]), np.array([1.0, 3.0, np.nan, 7.0, 9.0])
    np.testing.assert_allclose(moving_average(steps, values, 20), [2, 2, np.nan, 8, 8])
    np.testing.assert_array_equal(moving_average(steps, values, 0), values)
    np.testing.assert_allclose(moving_average(steps, values, 1000), [5, 5, np.nan, 5, 5])
    assert len(moving_average([], [], 10)) == 0
    with pytest.raises(InputError, match="-1 steps"):
        moving_average(steps, values, -1)


def test_the_window_is_in_steps_so_that_dense_probes_are_smoothed_alike():
    dense, sparse = np.arange(0, 101, 5.0), np.arange(0, 101, 10.0)
    wave = np.sin(dense / 30)
    on_dense = moving_average(dense, wave, 40)[::2]
    on_sparse = moving_average(sparse, wave[::2], 40)
    assert np.abs(on_dense - on_sparse)[3:-3].max() < 0.05


def test_curves_of_a_study_are_tidy(study):
    table = curves(study, window=100)
    assert list(table) == ["run", "step", "value", "smoothed", "trainable_blocks"]
    assert table["run"].nunique() == 16
    gu = table[table["run"] == "gu-0"]
    assert gu["trainable_blocks"].tolist() == [1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4]
    of_fisher = study.fisher.query("run == 'gu-0' and step == 100 and trainable and block != 'head'")[
        "trace"
    ].mean()
    assert gu.set_index("step")["value"][100] == pytest.approx(of_fisher)
