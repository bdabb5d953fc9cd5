"""The page of the real study says what its runs say: its quick tables, made again from the exported runs."""

import sys
from pathlib import Path

import pandas as pd
import pytest

HERE = Path(__file__).parents[2] / "analysis" / "studies" / "real"


@pytest.fixture(scope="module")
def study():
    sys.path.insert(0, str(HERE))
    try:
        import confirmatory
        import hypotheses
        import tables
    finally:
        sys.path.remove(str(HERE))
    yield {
        "confirmatory": confirmatory,
        "tables": tables,
        "hypotheses": hypotheses,
        "nli": confirmatory.read("nli"),
    }
    for name in ("confirmatory", "tables", "hypotheses"):
        del sys.modules[name]


@pytest.mark.parametrize("name", ["nli seeds", "nli shares", "nli leads", "nli mediated", "nli paper"])
def test_the_page_has_the_table_that_the_runs_give(study, name):
    page = (HERE / "README.md").read_text(encoding="utf-8")
    _, table = study["tables"].TABLES[name]
    assert study["tables"].replaced(page, name, table(study["nli"])) == page


def test_every_table_of_the_page_is_made_by_the_command(study):
    page = (HERE / "README.md").read_text(encoding="utf-8")
    named = {line[5:-4] for line in page.splitlines() if line.startswith("<!-- ") and "<!-- /" not in line}
    assert named == set(study["tables"].TABLES)


def test_a_run_takes_off_where_its_score_passes_the_middle(study):
    scores = pd.Series({20: 33.0, 40: 49.0, 60: 51.0, 80: 66.0})
    assert study["confirmatory"].take_off(scores, "nli") == 60  # the middle of 33.3 and 66 is 49.7


def test_whether_a_run_diverged_is_the_librarys_rule(study):
    from fishlens.analysis import collapsed_runs

    task = study["nli"]
    states = collapsed_runs(task.runs).set_index("run")["state"]
    gone = set(task.table.loc[task.table["diverged"], "run"])
    assert gone == set(states.index[states == "diverged"]) and len(gone) == 3
    assert task.table.loc[task.table["diverged"], "take_off"].isna().all()


def test_the_difference_at_equal_source_scores_is_the_intercept(study):
    import numpy as np

    source = np.array([-1.0, 0.0, 1.0, 2.0])
    found = study["hypotheses"].at_equal_source(3 + 2 * source, source)
    assert found["adjusted"] == pytest.approx(3) and found["adjusted_high"] == pytest.approx(3)
