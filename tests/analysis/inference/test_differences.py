"""Whether schedules can be told apart by their runs, against statsmodels, pingouin and simulated seeds."""

import numpy as np
import pandas as pd
import pingouin
import pytest
from fishlens.analysis.inference.differences import p_of_differences
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import AnovaRM, anova_lm


def crossed(groups: int, units: int) -> tuple[np.ndarray, np.ndarray]:
    group, unit = (part.ravel() for part in np.indices((groups, units)))
    return group, unit


@pytest.mark.parametrize(("groups", "units"), [(4, 6), (6, 4), (8, 3)])
def test_with_seeds_as_repeated_measures_with_huynh_and_feldts_correction(groups, units):
    group, unit = crossed(groups, units)
    values = np.random.default_rng(groups).standard_normal(len(group)) * (1 + group) + 2 * unit + 0.8 * group
    frame = pd.DataFrame({"value": values, "group": group, "unit": unit})
    f = AnovaRM(frame, "value", "unit", within=["group"]).fit().anova_table.iloc[0]
    epsilon = pingouin.epsilon(frame.pivot(index="unit", columns="group", values="value"), correction="hf")
    theirs = stats.f.sf(f["F Value"], f["Num DF"] * epsilon, f["Den DF"] * epsilon)
    assert p_of_differences(values, group, unit) == pytest.approx(theirs, rel=1e-9)


def test_without_seeds_as_one_way_analysis_of_variance():
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(4), [3, 5, 2, 6])
    values = rng.standard_normal(16) + 0.5 * group
    theirs = stats.f_oneway(*(values[group == g] for g in range(4))).pvalue
    assert p_of_differences(values, group) == pytest.approx(theirs, rel=1e-9)


def test_only_differences_inside_a_task_count():
    rng = np.random.default_rng(2)
    group = np.repeat(np.arange(6), 4)
    task = group // 3
    values = 10 * task + rng.standard_normal(24) + 0.4 * group
    model = ols("v ~ C(task) + C(group)", pd.DataFrame({"v": values, "task": task, "group": group})).fit()
    smaller = ols("v ~ C(task)", pd.DataFrame({"v": values, "task": task})).fit()
    theirs = anova_lm(smaller, model)["Pr(>F)"].iloc[1]
    assert p_of_differences(values, group, strata=task) == pytest.approx(theirs, rel=1e-9)


def test_seeds_that_move_some_schedules_more_than_others_seldom_tell_them_apart():
    rng = np.random.default_rng(3)
    group, unit = crossed(8, 5)
    p = []
    for _ in range(400):
        scale = np.exp(0.7 * rng.standard_normal(8))
        p.append(
            p_of_differences(
                scale[group] * rng.standard_normal(5)[unit] + rng.standard_normal(40) / 2, group, unit
            )
        )
    assert np.mean(np.array(p) <= 0.05) < 0.09  # without ε 0.17 to 0.2


def test_where_nothing_is_left_to_compare_with_there_is_no_p():
    assert np.isnan(p_of_differences(np.arange(5.0), np.arange(5)))
    assert np.isnan(p_of_differences(np.ones(12), *crossed(4, 3)))
    assert p_of_differences(np.repeat([1.0, 2.0], 3), np.repeat([0, 1], 3)) == 0.0
