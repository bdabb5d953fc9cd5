"""The statistics keep their promises: small made-up studies in which the truth is known.

A nominal 5 % test should reject a true null in 5 % of studies. Here are a hundred or two hundred of each, in wide bands
(four standard errors and more); `benchmarks/error_rates.py` has the thousands.
"""

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis.correlation.leadlag import lead_lag
from fishlens.analysis.correlation.pair import correlation
from fishlens.analysis.correlation.prediction import predict
from fishlens.analysis.correlation.repeated import repeated_measures
from fishlens.analysis.correlation.table import correlate
from fishlens.analysis.models import mixed_model
from fishlens.analysis.paired import equivalence, paired_difference
from scipy import stats

from fishlens.journal import Runs

STUDIES = 200
RUNS, LANGUAGES = 16, 8
RUN, LANGUAGE = np.repeat(np.arange(RUNS), LANGUAGES), np.tile(np.arange(LANGUAGES), RUNS)


def rejected(p):
    return np.mean(np.array(p) < 0.05)


def in_band(share):
    """Within chance of 5 %, for 200 studies."""
    return share <= 0.115


def covers(hits):
    return 0.88 <= np.mean(hits) <= 0.995


def crossed_study(rng, schedules=6, seeds=6, share=0.8, columns=2, missing=0.0):
    """Columns of runs that schedule and seed shift; the seed's share of the variance inside a schedule is `share`."""
    schedule, seed = (part.ravel() for part in np.indices((schedules, seeds)))
    keep = rng.random(len(schedule)) >= missing
    schedule, seed = schedule[keep], seed[keep]
    of_seed, of_schedule = rng.standard_normal((columns, seeds)), rng.standard_normal((columns, schedules))
    own = rng.standard_normal((columns, len(schedule)))
    values = np.sqrt(share) * of_seed[:, seed] + 2 * of_schedule[:, schedule] + np.sqrt(1 - share) * own
    return values, schedule, seed


@pytest.mark.parametrize("method", ["spearman", "pearson"])
@pytest.mark.parametrize("shape", [{}, {"missing": 0.2}, {"seeds": 4}])
def test_within_schedules_seeds_that_all_schedules_share_are_no_evidence(method, shape):
    rng = np.random.default_rng(1)
    found, careless = [], []
    for _ in range(STUDIES):
        (x, y), schedule, seed = crossed_study(rng, **shape)
        options = {"method": method, "strata": schedule, "resamples": 119}
        found.append(correlation(x, y, crossed=seed, **options))
        if not shape:
            careless.append(correlation(x, y, **options).p)
    assert in_band(rejected([one.p for one in found]))
    assert covers([one.low <= 0 <= one.high for one in found])
    assert not careless or rejected(careless) > 0.15


def test_four_seeds_that_shift_some_schedules_more_than_others_are_no_evidence():
    rng = np.random.default_rng(12)
    found = []
    for _ in range(STUDIES):
        (x, y), schedule, seed = crossed_study(rng, seeds=4, share=0.3)
        more = np.exp(0.7 * rng.standard_normal(6))[schedule]
        x, y = (part + 1.5 * more * rng.standard_normal(4)[seed] for part in (x, y))
        found.append(correlation(x, y, strata=schedule, crossed=seed, resamples=119))
    assert in_band(rejected([one.p for one in found]))
    assert covers([one.low <= 0 <= one.high for one in found])


def test_within_schedules_intervals_contain_a_truth_that_is_not_zero():
    rng = np.random.default_rng(2)
    hits = []
    for _ in range(STUDIES):
        (x, y), schedule, seed = crossed_study(rng, share=1.0)  # schedules and seeds alone
        own = rng.standard_normal(36)
        x, y = x + own, y + 0.6 * own + 0.8 * rng.standard_normal(36)
        found = correlation(x, y, method="pearson", strata=schedule, crossed=seed, resamples=9)
        hits.append(found.low <= 0.6 <= found.high)
    assert covers(hits)


def test_over_schedules_counts_schedules_however_alike_their_runs_are():
    """Schedules uncorrelated, runs of one schedule correlated 0.8."""
    rng = np.random.default_rng(3)
    p = []
    for _ in range(STUDIES // 2):
        (x, y), schedule, seed = crossed_study(rng, share=0.0)
        own = rng.standard_normal(36)
        table = pd.DataFrame({"peak": x + own, "average": y + own, "schedule": schedule, "seed": seed})
        p.append(correlate(table, ["peak"], cluster="schedule", resamples=119).loc[0, "p"])
    assert in_band(rejected(p))


def test_the_smallest_of_eight_features_that_are_near_copies():
    rng = np.random.default_rng(4)
    found = {"p_max": [], "p_holm": []}
    for _ in range(50):
        values, schedule, seed = crossed_study(rng, columns=10)
        names = [f"f{k}" for k in range(8)]
        table = pd.DataFrame(values[:8].T + 2 * values[8][:, None], columns=names)
        table = table.assign(average=values[9], schedule=schedule, seed=seed)
        rows = correlate(table, names, strata="schedule", resamples=99)
        for name, kept in found.items():
            kept.append(rows[name].min())
    assert rejected(found["p_max"]) <= 0.18
    assert np.median(found["p_max"]) <= np.median(found["p_holm"])  # Holm pays for each copy


def test_three_schedules_of_two_seeds_are_not_enough():
    rng = np.random.default_rng(5)
    (x, y), schedule, seed = crossed_study(rng, schedules=3, seeds=2)
    assert not correlation(x, y, strata=schedule, crossed=seed).enough


@pytest.mark.parametrize("slopes", [0.0, 1.0])
def test_the_mixed_model_rejects_as_promised_with_shared_seeds_and_slopes_by_language(slopes):
    rng = np.random.default_rng(6)
    p, hits = [], []
    for _ in range(40):
        (x, y), schedule, seed = crossed_study(rng, schedules=4, seeds=4)
        run, language = np.repeat(np.arange(16), 4), np.tile(np.arange(4), 16)
        value = y[run] + (3 * rng.standard_normal(4))[language] + 0.5 * rng.standard_normal(64)
        value += slopes * rng.standard_normal(4)[language] * x[run]
        table = pd.DataFrame({"value": value, "feature": x[run], "language": language, "run": run})
        found = mixed_model(table.assign(schedule=schedule[run], seed=seed[run]), ["feature"])
        p.append(found.fixed.loc[1, "p"])
        hits.append(found.fixed.loc[1, "low"] <= 0 <= found.fixed.loc[1, "high"])
    assert rejected(p) <= 0.2
    assert np.mean(hits) >= 0.8


def test_held_out_prediction_rejects_as_promised_where_seeds_are_shared():
    rng = np.random.default_rng(7)
    p = []
    for _ in range(80):
        values, schedule, seed = crossed_study(rng, columns=3)
        table = pd.DataFrame(values.T, columns=["average", "peak", "area"])
        table = table.assign(schedule=schedule, seed=seed)
        p.append(predict(table, "average", ["peak", "area"], resamples=59).loc[0, "p"])
    assert rejected(p) <= 0.15


def test_what_a_schedule_or_a_seed_does_to_all_its_runs_is_no_lead_of_any_run():
    """Schedules and seeds with bumps of their own in both curves, unrelated to each other."""
    rng = np.random.default_rng(8)
    schedule, seed = (part.ravel() for part in np.indices((4, 5)))
    found = {"crossed": [], "by run": []}
    for _ in range(25):
        trace, score = (
            np.cumsum(
                6 * rng.standard_normal((4, 10))[schedule]
                + 4 * rng.standard_normal((5, 10))[seed]
                + rng.standard_normal((20, 10)),
                axis=1,
            )
            for _ in range(2)
        )
        runs = two_curves(schedule, seed, 10 * np.arange(10), trace + 100, score)
        for name, how in (("crossed", {}), ("by run", {"within": None, "crossed": None})):
            table = lead_lag(runs, max_lag=1, resamples=119, **how)
            found[name].append(table.query("course == 'own'")["p_max"].min())
    assert rejected(found["crossed"]) <= 0.25
    assert rejected(found["by run"]) >= 0.15


def two_curves(schedule, seed, steps, trace, score):
    """`Runs` with one block's trace and a validation score for each run, `[runs, steps]`."""
    names = [f"run-{k}" for k in range(len(schedule))]
    at = {"run": np.repeat(names, len(steps)), "step": np.tile(steps, len(names))}
    fisher = pd.DataFrame({**at, "block": "layer.0", "trace": trace.ravel(), "trainable": True})
    scores = pd.DataFrame({**at, "value": score.ravel(), "split": "validation", "language": "en"})
    table = pd.DataFrame({"run": names, "schedule": schedule, "seed": seed})
    nothing = pd.DataFrame({"run": []})
    return Runs(table, fisher, scores.assign(metric="accuracy", headline=True), nothing, nothing, nothing)


def scored_runs(rng, effect=0.0):
    """A feature per run, and scores per language that share their run's level: languages of one run are clustered."""
    feature = rng.standard_normal(RUNS)
    level = effect * feature + rng.standard_normal(RUNS)
    noise = 3 * rng.standard_normal(LANGUAGES)[LANGUAGE] + 0.7 * rng.standard_normal(RUNS * LANGUAGES)
    return feature, level[RUN] + noise


def test_languages_of_one_run_are_no_independent_evidence():
    rng = np.random.default_rng(9)
    found = {"clustered": [], "repeated": [], "published": [], "naive": []}
    for study in range(STUDIES):
        feature, scores = scored_runs(rng)
        x, options = feature[RUN], {"resamples": 99, "seed": study}
        found["clustered"].append(correlation(x, scores, method="pearson", cluster=RUN, **options).p)
        found["repeated"].append(repeated_measures(x, scores, LANGUAGE, cluster=RUN, **options).p)
        found["published"].append(repeated_measures(x, scores, LANGUAGE).p)
        centred = scores - scores.reshape(RUNS, LANGUAGES).mean(axis=0)[LANGUAGE]
        found["naive"].append(stats.pearsonr(x, centred).pvalue)
    assert in_band(rejected(found["clustered"])) and in_band(rejected(found["repeated"]))
    assert rejected(found["published"]) > 0.25 and rejected(found["naive"]) > 0.25


def test_repeated_measures_intervals_contain_a_truth_that_is_not_zero():
    """Languages clustered by run, effect 1: the correlation with the centred scores is 1 / sqrt(1 + 1 + 0.7²)."""
    rng = np.random.default_rng(10)
    truth = 1 / np.sqrt(2 + 0.7**2)
    hits = []
    for study in range(STUDIES):
        feature, scores = scored_runs(rng, effect=1.0)
        found = repeated_measures(feature[RUN], scores, LANGUAGE, cluster=RUN, resamples=9, seed=study)
        hits.append(found.low <= truth <= found.high)
    assert covers(hits)


def test_paired_differences_and_equivalence_keep_their_levels():
    rng = np.random.default_rng(11)
    pairs = [paired_difference(rng.standard_normal(8)) for _ in range(STUDIES)]
    assert in_band(rejected([one.p for one in pairs])) and covers([one.low <= 0 <= one.high for one in pairs])
    claimed = [equivalence(1 + 0.4 * rng.standard_normal(6), 1.0).p for _ in range(4 * STUDIES)]
    assert 0.02 <= rejected(claimed) <= 0.08
