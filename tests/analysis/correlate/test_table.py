"""The feature × outcome table: every row as the one coefficient, p-values corrected over their family."""

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis.correlate.association import correlation
from fishlens.analysis.correlate.table import correlate
from statsmodels.stats.multitest import multipletests

from fishlens.errors import InputError


def study():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        rng.standard_normal((24, 5)), columns=["peak", "area", "source", "average", "lowest"]
    )
    table["average"] += table["peak"]
    return table.assign(
        schedule=np.repeat([f"s{k}" for k in range(8)], 3), task=np.repeat(["xnli", "xquad"], 12)
    )


def test_every_row_is_the_one_coefficient():
    table = study()
    found = correlate(
        table, ["peak", "area"], ["average", "lowest"], methods=("pearson", "kendall"), controls=()
    )
    assert len(found) == 8
    row = found.query("feature == 'area' and outcome == 'lowest' and coefficient == 'kendall'").iloc[0]
    alone = correlation(table["area"], table["lowest"], method="kendall")
    assert (row["estimate"], row["low"], row["high"], row["p"]) == (
        alone.estimate,
        alone.low,
        alone.high,
        alone.p,
    )


def test_p_values_are_corrected_within_a_method():
    found = correlate(study(), ["peak", "area"], ["average", "lowest"], methods=("pearson", "spearman"))
    for _, rows in found.groupby("coefficient"):
        np.testing.assert_allclose(rows["p_holm"], multipletests(rows["p"], method="holm")[1])
        np.testing.assert_allclose(rows["p_bh"], multipletests(rows["p"], method="fdr_bh")[1])


def test_clusters_and_strata_reach_the_coefficient():
    table = study()
    found = correlate(table, ["peak"], ["average"], cluster="schedule", strata="task").iloc[0]
    assert found["clusters"] == 8
    assert "schedules" in found["method"]
    alone = correlation(
        table["peak"], table["average"], cluster=table["schedule"].to_numpy(), strata=table["task"].to_numpy()
    )
    assert found["estimate"] == pytest.approx(alone.estimate)
    assert found["p"] == alone.p


def test_one_schedule_in_two_tasks_is_two_clusters():
    table = study().assign(schedule=np.tile([f"s{k}" for k in range(4)], 6))
    assert correlate(table, ["peak"], ["average"], cluster="schedule", strata="task").iloc[0]["clusters"] == 8


def test_a_control_is_not_held_against_itself():
    found = correlate(study(), ["peak"], ["average", "source"], controls=["source"]).set_index("outcome")
    assert found.loc["average", "given"] == "source"
    assert found.loc["average", "quantity"] == "partial spearman"
    assert found.loc["source", "given"] == ""


def test_rows_without_enough_runs_stay_and_say_so():
    found = correlate(study().head(4), ["peak"], ["average"]).iloc[0]
    assert np.isnan(found["estimate"])
    assert found["needed"] == 6
    assert np.isnan(found["p_holm"])


def test_an_unknown_column_is_named():
    with pytest.raises(InputError, match="no column 'width'"):
        correlate(study(), ["width"])
    assert correlate(study(), []).empty
