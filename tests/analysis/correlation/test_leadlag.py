"""Which moves first: planted lags are found, and a course that all runs share is not evidence."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis.correlation.leadlag import lagged, lead_lag, run_lags
from scipy import stats
from statsmodels.regression.linear_model import OLS

from fishlens.journal import Runs


def course_of(lead: int, runs=10, points=25, seed=0, shared=5.0) -> Runs:
    """Validation repeats a run's own changes of tr(F) `lead` probes later, on top of a course common to all runs."""
    rng = np.random.default_rng(seed)
    step = 100 * np.arange(points)
    fisher, evaluation, names = [], [], [f"run-{k}" for k in range(runs)]
    for name in names:
        change = rng.standard_normal(points + 20)
        trace = 50 + shared * np.exp(-step / 400) + np.cumsum(change[10 : 10 + points])
        own = np.cumsum(change[10 - lead : 10 - lead + points]) + 0.2 * rng.standard_normal(points)
        score = 60 + 3 * shared * (1 - np.exp(-step / 400)) + own
        fisher.append(
            pd.DataFrame({"run": name, "step": step, "block": "layer.0", "trace": trace, "trainable": True})
        )
        evaluation.append(pd.DataFrame({"run": name, "step": step, "value": score}))
    scores = pd.concat(evaluation, ignore_index=True).assign(
        split="validation", language="en", metric="accuracy", headline=True
    )
    table = pd.DataFrame({"run": names, "schedule": [f"s{k % 7}" for k in range(runs)]})
    nothing = pd.DataFrame({"run": []})
    return Runs(table, pd.concat(fisher, ignore_index=True), scores, nothing, nothing, nothing)


@pytest.mark.parametrize("lead", [-2, 0, 1])
def test_a_planted_lead_is_found(lead):
    found = lead_lag(course_of(lead), max_lag=3).query("course == 'own'").set_index("lag")
    assert found["estimate"].abs().idxmax() == lead
    assert found.loc[lead, "estimate"] > 0.8
    assert found.loc[lead, "p_max"] < 0.01
    others = found.drop(index=lead)
    assert (others["estimate"].abs() < 0.4).all()


def test_a_course_that_all_runs_share_is_no_evidence():
    """Unrelated runs that all rise and level off: the whole course correlates at every lag, their own does not."""
    runs = course_of(0, shared=60.0)
    shuffled = dict(
        zip([f"run-{k}" for k in range(10)], [f"run-{(k + 3) % 10}" for k in range(10)], strict=True)
    )
    mixed = replace(runs, evaluation=runs.evaluation.assign(run=runs.evaluation["run"].map(shuffled)))
    found = lead_lag(mixed, max_lag=2).set_index(["course", "lag"])
    assert found.loc[("whole", 0), "estimate"] < -0.8
    assert found.loc["whole", ["p", "p_max"]].isna().all().all()  # that all runs share a course needs no test
    assert (found.loc["own", "p_max"] > 0.1).all()


def test_one_run_worked_out():
    runs = course_of(1, runs=6)
    each = run_lags(runs, max_lag=1).set_index(["run", "lag"])
    trace = runs.fisher.query("run == 'run-2'")["trace"].to_numpy()
    score = runs.evaluation.query("run == 'run-2'")["value"].to_numpy()
    expected = np.corrcoef(np.diff(trace)[:-1], np.diff(score)[1:])[0, 1]
    assert each.loc[("run-2", 1), "r"] == pytest.approx(expected, abs=1e-12)
    assert each.loc[("run-2", 1), "interval"] == 100


def crossed_runs():
    """Three schedules × five seeds: runs, the two curves of each, its schedule and seed."""
    rng = np.random.default_rng(2)
    schedule, seed = (part.ravel() for part in np.indices((3, 5)))
    curves = [
        np.cumsum(rng.standard_normal((15, 9)) + rng.standard_normal((5, 9))[seed], axis=1) for _ in "xy"
    ]
    names = [f"run-{k:02d}" for k in range(15)]
    at = {"run": np.repeat(names, 9), "step": np.tile(10 * np.arange(9), 15)}
    fisher = pd.DataFrame({**at, "block": "layer.0", "trace": 90 + curves[0].ravel(), "trainable": True})
    scores = pd.DataFrame({**at, "value": curves[1].ravel(), "split": "validation", "language": "en"})
    nothing = pd.DataFrame({"run": []})
    table = pd.DataFrame({"run": names, "schedule": schedule, "seed": seed})
    runs = Runs(table, fisher, scores.assign(metric="accuracy", headline=True), nothing, nothing, nothing)
    return runs, curves, schedule, seed


def own_rates(curves, schedule, seed):
    """What is left of each rate when the levels of schedules and seeds are regressed out, interval by interval."""
    levels = np.column_stack([schedule[:, None] == np.arange(3), seed[:, None] == np.arange(1, 5)]).astype(
        float
    )
    return [np.column_stack([OLS(rate, levels).fit().resid for rate in np.diff(curve).T]) for curve in curves]


def test_what_runs_do_of_their_own_worked_out_by_regressions_and_every_exchange_of_seeds():
    runs, *laid_out = crossed_runs()
    found = lead_lag(runs, max_lag=1).query("course == 'own'").set_index("lag").loc[1]
    x, y = own_rates(*laid_out)
    z = np.arctanh([[np.corrcoef(a[:-1], b[1:])[0, 1] for b in y] for a in x]).reshape(3, 5, 3, 5)
    of_seeds = np.einsum("skst->kt", z) / 3  # tr(F) of seed k beside scores of seed t, in the same schedule
    means = [np.mean([of_seeds[k, o[k]] for k in range(5)]) for o in itertools.permutations(range(5))]
    assert found["estimate"] == pytest.approx(np.tanh(means[0]), abs=1e-9)
    assert found["p"] == pytest.approx(np.mean(np.abs(means) >= abs(means[0]) - 1e-12), abs=1e-12)
    ends = stats.ttest_1samp(np.diag(of_seeds), 0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.tanh(ends)), abs=1e-9)


def test_p_over_all_lags_is_that_of_the_smallest_p_of_every_exchange_of_seeds():
    """Westfall and Young's step-down minP, arrangement by arrangement: one that reaches the smallest p of the lags that
    are left as seldom as by chance counts against it."""
    runs, *laid_out = crossed_runs()
    found = lead_lag(runs, max_lag=1).query("course == 'own'").set_index("lag")
    x, y = own_rates(*laid_out)
    _, schedule, seed = laid_out
    orders = list(itertools.permutations(range(5)))
    sizes = {lag: [] for lag in (-1, 0, 1)}
    for order in orders:
        for lag in sizes:
            of_runs = []
            for i in range(15):  # tr(F) of run i beside the score of the run that its seed was given
                j = int(np.flatnonzero((schedule == schedule[i]) & (seed == order[seed[i]]))[0])
                a, b = (x[i, : 8 - lag], y[j, lag:]) if lag >= 0 else (x[i, -lag:], y[j, : 8 + lag])
                of_runs.append(np.arctanh(np.corrcoef(a, b)[0, 1]))
            sizes[lag].append(abs(np.mean(of_runs)))
    p = {lag: [np.mean([o >= s - 1e-9 for o in all_of]) for s in all_of] for lag, all_of in sizes.items()}
    remaining, running = sorted(sizes, key=lambda lag: p[lag][0]), 0.0
    while remaining:
        lag = remaining[0]
        reach = [min(p[other][k] for other in remaining) <= p[lag][0] + 1e-12 for k in range(len(orders))]
        running = max(running, float(np.mean(reach)))
        assert found.loc[lag, "p_max"] == pytest.approx(running, abs=1e-12)
        remaining = remaining[1:]


def test_evaluations_between_probes_use_the_line_between_them():
    runs = course_of(0, runs=6)
    halves = replace(runs, evaluation=runs.evaluation.assign(step=runs.evaluation["step"] + 50))
    each = run_lags(halves, max_lag=0).set_index("run")
    trace = runs.fisher.query("run == 'run-0'")["trace"].to_numpy()
    score = runs.evaluation.query("run == 'run-0'")["value"].to_numpy()
    middle = (trace[1:] + trace[:-1]) / 2  # the last evaluation has no probe after it: no rate
    assert each.loc["run-0", "r"] == pytest.approx(
        np.corrcoef(np.diff(middle), np.diff(score)[:-1])[0, 1], abs=1e-9
    )


def test_clusters_are_counted_not_runs():
    found = lead_lag(course_of(0, runs=21), max_lag=1, cluster="schedule")
    assert (found["clusters"] == 7).all()
    assert (found["n"] == 21).all()
    assert found["method"].str.contains("schedules").all()


def test_few_runs_or_short_ones_say_so():
    few = lead_lag(course_of(0, runs=4), max_lag=1)
    assert few["estimate"].isna().all()
    assert (few["needed"] == 6).all()
    short = lead_lag(course_of(0, points=4), max_lag=1)
    assert short["note"].str.startswith("0 runs").all()
    none = replace(course_of(0), evaluation=course_of(0).evaluation.assign(split="test"))
    assert lead_lag(none)["estimate"].isna().all()


def test_lagged_pairs():
    x = np.arange(8.0) ** 2
    y = np.r_[9.0, x[:-1]]  # y follows one later
    assert lagged(x, y, 1) == pytest.approx(1)
    assert lagged(y, x, -1) == pytest.approx(1)
    assert np.isnan(lagged(x, y, 4))  # four pairs
    assert np.isnan(lagged(np.ones(8), y, 0))
