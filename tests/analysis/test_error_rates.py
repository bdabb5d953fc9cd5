"""The statistics keep their promises: 1,000 made-up studies each, in which the truth is known.

A nominal 5 % test should reject a true null in 5 % of studies; with 1,000 studies 3–7 % is within chance (±3 standard
errors). A 95 % interval should contain the truth in 95 %; 92–97 % is asked.
"""

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis.compare import equivalence, paired_difference
from fishlens.analysis.correlate.association import correlation
from fishlens.analysis.correlate.leadlag import lead_lag
from fishlens.analysis.correlate.repeated import repeated_measures
from fishlens.analysis.inference.reml import fit_reml
from fishlens.analysis.models import mixed_model
from scipy import stats

from fishlens.journal import Runs

STUDIES = 1000
RUNS, LANGUAGES = 16, 8
RUN, LANGUAGE = np.repeat(np.arange(RUNS), LANGUAGES), np.tile(np.arange(LANGUAGES), RUNS)


def scored_runs(rng, effect=0.0):
    """A feature per run, and scores per language that share their run's level: languages of one run are clustered."""
    feature = rng.standard_normal(RUNS)
    level = effect * feature + rng.standard_normal(RUNS)
    scores = (
        level[RUN]
        + 3 * rng.standard_normal(LANGUAGES)[LANGUAGE]
        + 0.7 * rng.standard_normal(RUNS * LANGUAGES)
    )
    return feature, scores


def in_band(share):
    return 0.03 <= share <= 0.07


def covers(share):
    return 0.92 <= share <= 0.97


@pytest.fixture(scope="module")
def null_studies():
    """Per study p and interval of: languages clustered by run, run averages, and the naive run × language Pearson."""
    rng = np.random.default_rng(20240601)
    found = {
        "clustered": [],
        "averages": [],
        "naive": [],
        "repeated, clustered": [],
        "repeated, published": [],
    }
    for study in range(STUDIES):
        feature, scores = scored_runs(rng)
        centred = scores - scores.reshape(RUNS, LANGUAGES).mean(axis=0)[LANGUAGE]
        options = {"resamples": 199, "seed": study}
        averages = scores.reshape(RUNS, LANGUAGES).mean(axis=1)
        found["averages"].append(correlation(feature, averages, method="spearman", **options))
        found["clustered"].append(correlation(feature[RUN], scores, method="pearson", cluster=RUN, **options))
        found["repeated, clustered"].append(
            repeated_measures(feature[RUN], scores, LANGUAGE, cluster=RUN, **options)
        )
        found["repeated, published"].append(repeated_measures(feature[RUN], scores, LANGUAGE))
        naive = stats.pearsonr(feature[RUN], centred)
        found["naive"].append((naive.pvalue, *naive.confidence_interval()))
    return found


def rejected(results):
    return np.mean([(r[0] if isinstance(r, tuple) else r.p) < 0.05 for r in results])


def covered(results, truth):
    return np.mean([r.low <= truth <= r.high for r in results])


@pytest.mark.parametrize("kind", ["clustered", "averages", "repeated, clustered"])
def test_a_true_null_is_rejected_in_five_studies_of_a_hundred(null_studies, kind):
    assert in_band(rejected(null_studies[kind]))


@pytest.mark.parametrize("kind", ["clustered", "averages", "repeated, clustered"])
def test_intervals_contain_a_truth_of_zero(null_studies, kind):
    assert covers(covered(null_studies[kind], 0.0))


@pytest.mark.parametrize("kind", ["naive", "repeated, published"])
def test_languages_of_one_run_taken_as_independent_reject_far_too_often(null_studies, kind):
    """Why clustering matters: with 8 languages each, most of the "evidence" is the same run counted again."""
    assert rejected(null_studies[kind]) > 0.25


def test_intervals_contain_a_truth_that_is_not_zero():
    """Languages clustered by run, effect 1: the correlation with the centred scores is 1 / sqrt(1 + 1 + 0.7²)."""
    rng = np.random.default_rng(7)
    truth = 1 / np.sqrt(2 + 0.7**2)
    hits = []
    for study in range(STUDIES):
        feature, scores = scored_runs(rng, effect=1.0)
        found = repeated_measures(feature[RUN], scores, LANGUAGE, cluster=RUN, resamples=9, seed=study)
        hits.append(found.low <= truth <= found.high)
    assert covers(np.mean(hits))


def schedules(rng, count=10, seeds=5, rho=0.0):
    """Feature and outcome of runs whose schedule shifts both: correlated `rho` between and within schedules."""

    def pair(n):
        x, noise = rng.standard_normal((2, n))
        return np.column_stack([x, rho * x + np.sqrt(1 - rho**2) * noise])

    schedule = np.repeat(np.arange(count), seeds)
    return pair(count)[schedule] + pair(count * seeds), schedule


@pytest.fixture(scope="module")
def few_schedules():
    rng = np.random.default_rng(11)
    found = {"by schedule": [], "by run": [], "rho 0.6": [], "bca": []}
    for study in range(STUDIES):
        columns, schedule = schedules(rng)
        options = {"method": "pearson", "resamples": 199, "seed": study}
        found["by schedule"].append(correlation(*columns.T, cluster=schedule, **options))
        found["by run"].append(correlation(*columns.T, **options))
        columns, schedule = schedules(rng, rho=0.6)
        options |= {"cluster": schedule}
        found["rho 0.6"].append(correlation(*columns.T, **options))
        found["bca"].append(correlation(*columns.T, interval="bca", **options))
    return found


def test_ten_schedules_reject_and_cover_as_promised(few_schedules):
    assert in_band(rejected(few_schedules["by schedule"]))
    assert covers(covered(few_schedules["by schedule"], 0.0))
    assert covers(covered(few_schedules["rho 0.6"], 0.6))


def test_seeds_of_a_schedule_taken_as_independent_reject_too_often(few_schedules):
    assert rejected(few_schedules["by run"]) > 0.09
    assert covered(few_schedules["by run"], 0.0) < 0.91


def test_the_bca_bootstrap_covers_less_with_ten_clusters(few_schedules):
    """Why it is offered and not the default."""
    assert covered(few_schedules["bca"], 0.6) < 0.92


def test_partial_coefficients_with_a_common_cause():
    rng = np.random.default_rng(13)
    p, hits = [], []
    for study in range(STUDIES):
        cause = rng.standard_normal(20)
        x, y = cause + rng.standard_normal((2, 20))
        found = correlation(x, y, method="pearson", controls=cause, resamples=199, seed=study)
        p.append(found.p)
        hits.append(found.low <= 0 <= found.high)
    assert in_band(np.mean(np.array(p) < 0.05))
    assert covers(np.mean(hits))


def test_paired_differences_of_eight_seeds():
    rng = np.random.default_rng(17)
    found = [paired_difference(rng.standard_normal(8)) for _ in range(STUDIES)]
    assert in_band(rejected(found))
    assert covers(covered(found, 0.0))


def test_equivalence_is_wrongly_claimed_in_five_of_a_hundred_at_the_margin():
    rng = np.random.default_rng(19)
    found = [equivalence(1.0 + 0.4 * rng.standard_normal(6), 1.0) for _ in range(STUDIES)]
    assert in_band(rejected(found))


def test_the_mixed_model_with_intercepts_of_runs_rejects_as_promised_and_without_them_does_not():
    rng = np.random.default_rng(23)
    seeds, count = 4, 5
    run, language = np.repeat(np.arange(count * seeds), 4), np.tile(np.arange(4), count * seeds)
    schedule = run // seeds
    with_runs, without = [], []
    for study in range(STUDIES):
        feature = rng.standard_normal(count * seeds)[run]
        scores = rng.standard_normal(4)[language] + rng.standard_normal(count)[schedule]
        scores = scores + rng.standard_normal(count * seeds)[run] + 0.5 * rng.standard_normal(len(run))
        design = np.column_stack([np.ones(len(run)), feature])
        for levels, freedom, kept in (
            ([language, schedule, run], count * seeds - count - 1, with_runs),
            ([language, schedule], len(run) - count - 4, without),
        ):
            if kept is without and study >= 200:
                continue  # how far it is off shows sooner
            fit = fit_reml(scores, design, levels)
            t = fit.coefficients[1] / np.sqrt(fit.covariance[1, 1])
            kept.append(2 * stats.t.sf(abs(t), freedom))
    assert in_band(np.mean(np.array(with_runs) < 0.05))
    assert np.mean(np.array(without) < 0.05) > 0.15


def test_within_schedules_rejects_as_promised_whatever_lies_between_them():
    """Six schedules that shift feature and score, six seeds each: only differences inside a schedule count."""
    rng = np.random.default_rng(29)
    schedule = np.repeat(np.arange(6), 6)
    p, hits, naive = [], [], []
    for study in range(STUDIES):
        x, y = 2 * rng.standard_normal((2, 6))[:, schedule] + rng.standard_normal((2, 36))
        found = correlation(x, y, strata=schedule, resamples=199, seed=study)
        p.append(found.p)
        hits.append(found.low <= 0 <= found.high)
        naive.append(stats.spearmanr(x, y).pvalue)
    assert in_band(np.mean(np.array(p) < 0.05))
    # six runs lose a sixth of their mean with each one left out: wider than need be, never narrower
    assert np.mean(hits) >= 0.92
    assert np.mean(np.array(naive) < 0.05) > 0.25


@pytest.mark.parametrize("between", [0.0, 0.9])
def test_the_mixed_model_rejects_as_promised_for_features_of_runs_and_of_schedules(between):
    """Degrees of freedom are those of the level at which the feature varies; 300 studies of 6 schedules, 4 seeds."""
    rng = np.random.default_rng(31)
    run, language = np.repeat(np.arange(24), 4), np.tile(np.arange(4), 24)
    schedule = run // 4
    p = []
    for _ in range(300):
        of_schedule, of_run = rng.standard_normal(6)[schedule], rng.standard_normal(24)[run]
        feature = np.sqrt(between) * of_schedule + np.sqrt(1 - between) * of_run
        value = rng.standard_normal(4)[language] + 2 * rng.standard_normal(6)[schedule]
        value = value + rng.standard_normal(24)[run] + 0.5 * rng.standard_normal(96)
        table = pd.DataFrame({"value": value, "feature": feature})
        table = table.assign(language=language, schedule=schedule, run=run)
        p.append(mixed_model(table, ["feature"]).fixed.set_index("term").loc["feature", "p"])
    assert np.mean(np.array(p) < 0.05) <= 0.08


def test_what_a_schedule_does_to_all_its_runs_is_no_lead_of_any_run():
    """Schedules with bumps of their own in both curves, unrelated to each other: within schedules nothing is found."""
    rng = np.random.default_rng(37)
    schedule, steps = np.repeat(np.arange(6), 4), 10 * np.arange(12)
    found = {"by run": [], "within": []}
    for _ in range(150):
        trace, score = (
            np.cumsum(3 * rng.standard_normal((6, 12))[schedule] + rng.standard_normal((24, 12)), axis=1)
            for _ in range(2)
        )
        runs = two_curves(schedule, steps, trace + 100, score)
        for name, within in (("by run", None), ("within", "schedule")):
            table = lead_lag(runs, max_lag=1, within=within, resamples=199)
            found[name].append(table.query("course == 'own'")["p_max"].min())
    assert np.mean(np.array(found["within"]) < 0.05) <= 0.1
    assert np.mean(np.array(found["by run"]) < 0.05) > 0.2


def two_curves(schedule, steps, trace, score):
    """`Runs` with one block's trace and a validation score for each run, `[runs, steps]`."""
    names = [f"run-{k}" for k in range(len(schedule))]
    at = {"run": np.repeat(names, len(steps)), "step": np.tile(steps, len(names))}
    fisher = pd.DataFrame({**at, "block": "layer.0", "trace": trace.ravel(), "trainable": True})
    scores = pd.DataFrame({**at, "value": score.ravel(), "split": "validation", "language": "en"})
    table = pd.DataFrame({"run": names, "schedule": schedule})
    nothing = pd.DataFrame({"run": []})
    return Runs(table, fisher, scores.assign(metric="accuracy", headline=True), nothing, nothing, nothing)
