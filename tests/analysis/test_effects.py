"""Effect sizes and summaries over tasks, against scipy, statsmodels and rliable's own functions."""

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis.effects import (
    interquartile_mean,
    low_data_curve,
    paired_d,
    performance_profile,
    probability_of_improvement,
    scores_by_task,
)
from fishlens.analysis.results import NotEnough
from scipy import stats

from fishlens.errors import InputError


def tasks(seed=0, shift=0.0, runs=10):
    rng = np.random.default_rng(seed)
    return {task: 60 + shift + 3 * rng.standard_normal(runs) for task in ("xnli", "xquad", "xcopa")}


def test_paired_d_is_the_mean_over_the_sd_and_its_interval_that_of_the_noncentral_t():
    values = np.random.default_rng(1).standard_normal(8) + 1
    found = paired_d(values)
    hedges = 1 - 3 / (4 * 7 - 1)
    t = stats.ttest_1samp(values, 0)
    assert found.estimate == pytest.approx(hedges * values.mean() / values.std(ddof=1), rel=1e-12)
    assert found.p == pytest.approx(t.pvalue, rel=1e-9)
    for end, share in ((found.low, 0.975), (found.high, 0.025)):
        assert stats.nct.cdf(t.statistic, 7, end / hedges * np.sqrt(8)) == pytest.approx(share, abs=1e-7)
    assert isinstance(paired_d(values[:2]), NotEnough)
    with pytest.raises(InputError, match="no standardised size"):
        paired_d([1.0, 1.0, 1.0])


def test_the_probability_of_improvement_is_mann_and_whitneys_u():
    x, y = tasks(1, shift=1), tasks(2)
    x["xnli"][0] = y["xnli"][0]  # a tie counts one half
    found = probability_of_improvement(x, y)
    expected = np.mean([stats.mannwhitneyu(x[t], y[t]).statistic / 100 for t in x])
    assert found.estimate == pytest.approx(expected, rel=1e-12)
    assert found.low < found.estimate < found.high


def test_the_interquartile_mean_is_the_trimmed_mean_of_all_runs():
    found = interquartile_mean(tasks())
    assert found.estimate == pytest.approx(
        stats.trim_mean(np.concatenate([*tasks().values()]), 0.25), rel=1e-12
    )
    assert found.low < found.estimate < found.high
    with pytest.raises(InputError, match="xnli: 10, xquad: 4"):
        interquartile_mean({"xnli": np.ones(10), "xquad": np.ones(4)})


def test_as_rliable_computes_them():
    metrics = pytest.importorskip("rliable.metrics")

    x, y = tasks(3, shift=1), tasks(4)
    a, b = (np.column_stack(list(part.values())) for part in (x, y))
    assert interquartile_mean(x).estimate == pytest.approx(metrics.aggregate_iqm(a), rel=1e-9)
    ours = probability_of_improvement(x, y).estimate
    assert ours == pytest.approx(metrics.probability_of_improvement(a, b), rel=1e-9)
    thresholds = np.linspace(50, 70, 7)  # rliable's own profile: the share of all scores above each threshold
    expected = [(a > threshold).mean() for threshold in thresholds]
    np.testing.assert_allclose(performance_profile(x, thresholds)["share"], expected, rtol=1e-9)


def test_a_performance_profile_falls_from_all_runs_to_none():
    found = performance_profile(tasks(), [0, 60, 100], resamples=99)
    assert found["share"].tolist()[::2] == [1, 0]
    assert (found["low"] <= found["share"]).all() and (found["share"] <= found["high"]).all()


def test_low_data_curves_and_scores_by_task_come_from_a_table_of_runs():
    rng = np.random.default_rng(5)
    table = pd.DataFrame({"schedule": np.repeat(["gu", "standard"], 8), "examples": np.tile([100, 1000], 8)})
    table = table.assign(average=60 + rng.standard_normal(16), task="xnli")
    curve = low_data_curve(table).set_index(["schedule", "examples"])
    own = table.query("schedule == 'gu' and examples == 100")["average"]
    low, high = stats.t.interval(0.95, 3, own.mean(), stats.sem(own))
    assert curve.loc[("gu", 100), ["mean", "low", "high"]].tolist() == pytest.approx([own.mean(), low, high])
    assert scores_by_task(table, where={"schedule": "gu"})["xnli"].shape == (8,)
    with pytest.raises(InputError, match="no column 'size'"):
        low_data_curve(table, size="size")
