"""Few points, and nothing lost: every probe enters the mean of its bin."""

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis.figures.bands import band_over_runs, binned, drawable_as_log


def curves(**runs):
    parts = [
        pd.DataFrame({"run": name, "step": steps, "value": values}) for name, (steps, values) in runs.items()
    ]
    return pd.concat(parts, ignore_index=True)


def test_a_short_curve_is_drawn_as_it_is():
    frame = curves(a=([0, 10, 20], [1.0, 4.0, 2.0]), b=([0, 10, 20], [3.0, 8.0, 2.0]))
    band = band_over_runs(frame, log=False)
    assert band.steps.tolist() == [0, 10, 20]
    assert band.center.tolist() == [2.0, 6.0, 2.0]
    assert band.low.tolist() == [1.0, 4.0, 2.0]
    assert band.high.tolist() == [3.0, 8.0, 2.0]
    assert band.runs == 2


def test_on_a_logarithmic_axis_the_middle_is_the_geometric_mean():
    band = band_over_runs(curves(a=([0, 1], [1.0, 2.0]), b=([0, 1], [100.0, 8.0])), log=True)
    assert band.center == pytest.approx([10.0, 4.0], abs=1e-12)


def test_a_long_curve_is_binned_and_a_spike_of_one_probe_still_shows():
    steps = np.arange(10_000)
    values = np.ones(10_000)
    values[5_000] = 1_000.0
    wide = binned(curves(a=(steps, values)), log=False, points=100)
    assert len(wide) == 100
    assert wide["a"].max() == pytest.approx(1 + 999 / 100)
    assert wide.index[0] == 0
    assert wide.index[-1] == 9_999


def test_a_run_that_ends_early_or_probes_rarely_bends_nobody_elses_line():
    band = band_over_runs(curves(a=([0, 10, 20, 30], [1.0, 1, 1, 1]), b=([0, 20], [3.0, 5.0])), log=False)
    assert band.steps.tolist() == [0, 10, 20, 30]
    assert band.center.tolist() == [
        2.0,
        2.5,
        3.0,
        1.0,
    ]  # b is 4 halfway between its probes, and not there at 30


def test_lost_probes_are_bridged_and_zeros_left_out_of_logarithms():
    assert band_over_runs(curves(a=([0, 1, 2], [1.0, np.nan, 3.0])), log=False).center.tolist() == [1.0, 3.0]
    assert band_over_runs(curves(a=([0, 1], [0.0, 2.0])), log=True).steps.tolist() == [1]
    assert band_over_runs(curves(a=([0, 1], [np.nan, np.inf])), log=False) is None


def test_the_band_is_the_range_for_few_runs_and_percentiles_for_many():
    many = curves(**{f"r{i}": ([0, 1], [float(i), float(i)]) for i in range(101)})
    band = band_over_runs(many, log=False)
    assert (band.low[0], band.high[0]) == (10.0, 90.0)


def test_an_axis_is_logarithmic_only_where_nearly_all_values_are_positive():
    assert drawable_as_log(pd.Series([1e-6, 1.0, np.nan]))
    assert not drawable_as_log(pd.Series([0.0, 0.0, 1.0]))
    assert not drawable_as_log(pd.Series([np.nan]))
