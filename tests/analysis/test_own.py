"""A feature and an outcome of one's own, in tables, report and command line."""

import math
import statistics

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis import build_report, correlate, curves, features, own_features, run_outcomes
from fishlens.analysis.dynamics import CURVE_FEATURES, Feature, NoFeature
from fishlens.analysis.own import outcome_of
from fishlens.analysis.report.study import Study
from fishlens.analysis.selection import select_runs
from typer.testing import CliRunner

from fishlens.cli import app
from fishlens.errors import InputError


def median(curve):
    return np.median(curve.values)


def gap(scores, source):
    return scores[source] - statistics.fmean(v for language, v in scores.items() if language != source)


def table(report, name):
    return next(one for _, one in report.tables if one.name == name)


@pytest.fixture(scope="module")
def asked(study):
    with own_features([median]):
        return build_report(study, outcome=gap)


def test_the_coefficient_is_of_the_own_feature_and_the_own_outcome(asked, study):
    """Both computed here from the curves and scores, and put into the same statistic."""
    row = next(r for r in table(asked, "correlations-within").rows if r["feature"] == "median")
    values = curves(study, curve="normalised").dropna(subset="value").groupby("run", observed=True)["value"]
    frame = run_outcomes(study).assign(median=lambda t: t["run"].map(values.median().rename(str)))
    frame["gap"] = frame["source"] - frame["average"]
    frame = frame.merge(study.runs[["run", "schedule", "seed"]].astype({"run": str}), on="run")
    expected = correlate(frame, ["median"], ["gap"], strata="schedule", crossed=["seed"]).iloc[0]
    assert row["estimate"] == pytest.approx(expected["estimate"], abs=1e-9) and row["n"] == expected["n"]
    plain = correlate(frame, ["median"], ["average"], strata="schedule", crossed=["seed"]).iloc[0]
    assert row["estimate"] != pytest.approx(plain["estimate"], abs=1e-3)
    assert "median" not in CURVE_FEATURES


def test_schedules_are_compared_by_it_too_and_the_page_says_what_it_is_about(asked, study):
    differences = pd.DataFrame(table(asked, "differences").rows).set_index(["schedule", "outcome"])[
        "estimate"
    ]
    there = {outcome for _, outcome in differences.index}
    assert there == {"source", "average without source", "each run's own lowest", "gap"}
    for schedule in {schedule for schedule, _ in differences.index}:
        by_hand = differences[schedule, "source"] - differences[schedule, "average without source"]
        assert differences[schedule, "gap"] == pytest.approx(by_hand, abs=1e-9)
    assert "average transfer" not in " ".join(one.title for _, one in asked.tables)
    assert any("gap" in f"{said.claim} {said.evidence}" for said in asked.answer)


@pytest.mark.parametrize("outcome", ["lowest", "source"])
def test_an_outcome_that_there_is_can_be_asked_for_by_name(study, outcome):
    group = select_runs(study).groups[0]
    of = Study(group, outcome=outcome_of(outcome))
    expected = run_outcomes(group.runs).set_index("run")[outcome]
    assert of.run_table.set_index("run")[outcome].to_dict() == pytest.approx(expected.to_dict(), nan_ok=True)
    assert outcome not in of.evidence.baselines  # nothing is explained away by itself
    assert build_report(study, outcome=outcome, only=["prediction"]).tables


def test_a_run_that_lacks_a_language_has_no_own_outcome_either(study):
    lacking = study.evaluation["run"].astype(str) == str(study.runs["run"].iloc[0])
    of_one = study.evaluation[lacking & (study.evaluation["split"] == "test")]
    language = next(x for x in of_one["language"] if x != study.runs["source"].iloc[0])
    from dataclasses import replace

    cut = replace(study, evaluation=study.evaluation[~(lacking & (study.evaluation["language"] == language))])
    scored = Study(select_runs(cut).groups[0], outcome=outcome_of(gap)).scored.set_index("run")["gap"]
    assert math.isnan(scored[str(study.runs["run"].iloc[0])]) and scored.notna().sum() == len(scored) - 1


def none(curve):
    raise NoFeature("this curve has none")


def test_a_feature_that_a_curve_does_not_have_says_why(study):
    with own_features([none, Feature("twice", "tr(F)", "twice", 3, lambda c: 2 * c.values[0])]):
        found = features(study)
        assert found["none"].isna().all() and found["reason"].str.contains("none: this curve has none").all()
        assert found["twice"].notna().all()


def broken(*_):
    return "a lot"


def peak(curve):
    return 0.0


@pytest.mark.parametrize(
    ("feature", "outcome", "message"),
    [
        (
            broken,
            "average",
            r"the feature 'broken' of a curve of \d+ probes could not be computed: ValueError",
        ),
        (median, broken, r"the outcome 'broken' of the run .* could not be computed: ValueError"),
        (peak, "average", "a feature is called 'peak', which the report has already"),
        (median, peak, "an outcome is called 'peak', which the report has already"),
        (lambda curve: 0.0, "average", "a feature is called '<lambda>'; expected a name of letters"),
        (median, "best", "outcome is 'best'; expected one of average, lowest, source, or a function"),
        (3, "average", "a feature is 3; expected a function of a curve, or a Feature"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_nothing_stays_registered(study, feature, outcome, message):
    before = list(CURVE_FEATURES)
    with pytest.raises(InputError, match=message), own_features([feature]):
        build_report(study, outcome=outcome, only=["prediction"])
    assert list(CURVE_FEATURES) == before


def test_on_the_command_line_both_are_named(tmp_path, write, monkeypatch):
    for schedule in ("standard", "gu"):
        for seed in range(3):
            write(tmp_path / "runs", schedule, seed)
    (tmp_path / "theirs_of_own.py").write_text(
        "def median(curve):\n    return sorted(curve.values)[len(curve.values) // 2]\n"
        "def gap(scores, source):\n    return scores[source] - min(scores.values())\n"
    )
    monkeypatch.chdir(tmp_path)
    named = ["--feature", "theirs_of_own:median", "--outcome", "theirs_of_own:gap"]
    done = CliRunner().invoke(app, ["report", "runs", *named, "-o", "own.md"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "own.md").read_text(encoding="utf-8")
    assert "Outcome: gap, an outcome of one's own." in text and "| median |" in text
    with pytest.raises(InputError, match="--feature is 'median'; expected module:function, as mine:median"):
        CliRunner().invoke(app, ["report", "runs", "--feature", "median"], catch_exceptions=False)
