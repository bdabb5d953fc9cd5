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
from statsmodels.stats.proportion import proportion_confint

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
    found = performance_profile(tasks(), [0, 60, 100])
    assert found["share"].tolist()[::2] == [1, 0]
    assert (found["low"] <= found["share"] + 1e-12).all() and (found["share"] <= found["high"] + 1e-12).all()


def test_the_interval_of_a_profile_is_wilsons_put_together_over_tasks():
    one, alike = {"a": np.arange(8.0)}, {"a": np.arange(8.0), "b": np.arange(8.0)}
    wilson = np.array(proportion_confint(3, 8, method="wilson"))
    for scores in (one, alike):  # a task that repeats another adds nothing
        found = performance_profile(scores, [4.5]).iloc[0]
        assert found["share"] == pytest.approx(3 / 8)
        assert found[["low", "high"]].tolist() == pytest.approx(wilson.tolist(), abs=1e-12)
    parts = {"a": np.arange(8.0), "b": np.arange(30.0)}
    found = performance_profile(parts, [4.5]).iloc[0]
    other = np.array(proportion_confint(25, 30, method="wilson"))
    off = np.sqrt((wilson - 3 / 8) ** 2 + (other - 25 / 30) ** 2) / 2
    middle = (3 / 8 + 25 / 30) / 2
    assert found[["low", "high"]].tolist() == pytest.approx([middle - off[0], middle + off[1]], abs=1e-12)


def test_the_interval_of_an_improvement_is_of_the_logit_with_delongs_error():
    rng = np.random.default_rng(6)
    x, y = 1 + rng.standard_normal((3, 7)), rng.standard_normal((3, 7))
    found = probability_of_improvement(dict(zip("abc", x, strict=True)), dict(zip("abc", y, strict=True)))
    each = np.zeros(
        7
    )  # what each seed adds: of its run in x the share of y below, of its run in y the share of x above
    for a, b in zip(x, y, strict=True):
        for seed in range(7):
            each[seed] += ((a[seed] > b).mean() + (a > b[seed]).mean()) / 3
    error = each.std(ddof=1) / np.sqrt(7)
    p = found.estimate
    reach = stats.t.ppf(0.975, 12) * error / (p * (1 - p))
    ends = [1 / (1 + np.exp(-(np.log(p / (1 - p)) + sign * reach))) for sign in (-1, 1)]
    assert [found.low, found.high] == pytest.approx(ends, rel=1e-9)


def test_sides_that_do_not_overlap_and_few_runs_have_no_interval():
    x, y = {"a": np.arange(6.0)}, {"a": np.arange(6.0) + 10}
    found = probability_of_improvement(x, y)
    assert found.estimate == 0 and np.isnan(found.low) and "every run of one side" in found.note
    few = probability_of_improvement({"a": np.arange(5.0)}, y)
    assert isinstance(few, NotEnough) and few.note == "5 runs of each task, at least 6 are needed"
    assert interquartile_mean({"a": np.arange(5.0)}).needed == 6


def test_the_interval_of_an_interquartile_mean_is_the_studentised_bootstrap_of_whole_seeds():
    """The same draws of seeds, set by set, with the error of a trimmed mean written out."""
    scores = np.random.default_rng(7).standard_normal((3, 8)) + np.array([[0.0], [4.0], [8.0]])
    found = interquartile_mean(dict(zip("abc", scores, strict=True)), resamples=199, seed=3)

    def with_error(table):
        ordered = np.sort(table.ravel())
        low, high = ordered[6], ordered[17]
        pulled = np.minimum(np.maximum(table, low), high)
        adds = sum((row - row.mean()) for row in pulled) / 12
        return stats.trim_mean(table.ravel(), 0.25), np.sqrt(8 / 7 * (adds**2).sum())

    value, error = with_error(scores)
    draws = np.random.default_rng(3).integers(8, size=(199, 8))
    t = np.sort([(m - value) / e for m, e in (with_error(scores[:, draw]) for draw in draws)])
    ends = np.quantile(t, [0.975, 0.025], method="closest_observation")
    assert [found.low, found.high] == pytest.approx(list(value - ends * error), rel=1e-9)


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
