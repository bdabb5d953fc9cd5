"""What a run achieved, and what else could explain it."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis.outcomes import language_scores, run_baselines, run_outcomes

from fishlens.errors import InputError
from fishlens.journal import JournalWriter, load_runs


def test_summaries_worked_out(study):
    table = run_outcomes(study).set_index("run")
    rows = study.evaluation.query("run == 'gu-1' and split == 'test'").set_index("language")["value"]
    one = table.loc["gu-1"]
    assert one["source"] == rows["en"]
    assert one["average"] == pytest.approx((rows["de"] + rows["sw"] + rows["th"]) / 3)
    assert one["lowest"] == rows[["de", "sw", "th"]].min()
    assert one["lowest_language"] == rows[["de", "sw", "th"]].idxmin()
    assert one["languages"] == 3
    assert (table["reason"] == "").all()


def test_the_last_score_of_a_language_counts(study):
    again = study.evaluation.query("run == 'gu-1' and split == 'test' and language == 'de'").assign(
        value=11.0
    )
    more = replace(study, evaluation=pd.concat([study.evaluation, again], ignore_index=True))
    scores = language_scores(more).set_index(["run", "language"])["value"]
    assert scores["gu-1", "de"] == 11
    assert len(scores) == 16 * 4


def test_another_metric_must_be_named_and_known(study):
    exact = study.evaluation.query("split == 'test'").assign(metric="exact", headline=False, value=1.0)
    both = replace(study, evaluation=pd.concat([study.evaluation, exact], ignore_index=True))
    assert (language_scores(both)["metric"] == "accuracy").all()
    assert (language_scores(both, metric="exact")["value"] == 1).all()
    with pytest.raises(
        InputError, match="no run has the metric 'f1' on test; expected one of accuracy, exact"
    ):
        language_scores(both, metric="f1")


def test_means_over_different_languages_are_not_compared(study):
    gone = (study.evaluation["run"] == "gu-1") & (study.evaluation["language"] == "sw")
    table = run_outcomes(replace(study, evaluation=study.evaluation[~gone])).set_index("run")
    assert math.isnan(table.loc["gu-1", "average"])
    assert table.loc["gu-1", "reason"] == "average, lowest: no score in sw"
    assert math.isfinite(table.loc["gu-1", "source"])
    assert table["average"].notna().sum() == 15


def test_runs_without_scores_or_source_say_so(study):
    evaluation = study.evaluation[study.evaluation["run"] != "gu-1"]
    evaluation = evaluation[~((evaluation["run"] == "gu-2") & (evaluation["language"] == "en"))]
    table = run_outcomes(replace(study, evaluation=evaluation)).set_index("run")
    assert table.loc["gu-1", "reason"] == "no scores"
    assert table.loc["gu-2", "reason"] == "source: no score in en"
    unknown = run_outcomes(replace(study, runs=study.runs.drop(columns="source"))).set_index("run")
    assert unknown["reason"].str.contains("does not say which language it was trained on").all()
    # then the source is one language among others
    assert (unknown["languages"] == 4).all()


def test_baselines_worked_out(study):
    table = run_baselines(study).set_index("run")
    training = study.training.query("run == 'fun-3'")
    late = training[training["step"] >= 450]
    assert len(late) == 2
    assert table.loc["fun-3", "final_loss"] == pytest.approx(late["loss"].mean())
    assert table.loc["fun-3", "gradient_norm"] == pytest.approx(training["gradient_norm"].mean())
    assert table.loc["fun-3", "source"] == run_outcomes(study).set_index("run").loc["fun-3", "source"]


def test_without_a_test_score_the_best_validation_score_stands_for_the_source(study):
    test_en = (study.evaluation["run"] == "fun-3") & (study.evaluation["split"] == "test")
    table = run_baselines(replace(study, evaluation=study.evaluation[~test_en])).set_index("run")
    best = study.evaluation.query("run == 'fun-3' and split == 'validation'")["value"].max()
    assert table.loc["fun-3", "source"] == best


def test_no_training_records_leave_nan(study):
    table = run_baselines(replace(study, training=study.training.iloc[:0]))
    assert np.isnan(table["final_loss"]).all()
    assert table["source"].notna().all()


def test_an_accuracy_and_an_f1_are_not_averaged(study):
    other = study.evaluation["run"].eq("gu-1") & study.evaluation["language"].eq("sw")
    evaluation = study.evaluation.astype({"metric": object})
    evaluation.loc[other, "metric"] = "f1"
    mixed = replace(study, evaluation=evaluation)
    with pytest.raises(
        InputError, match=r"headline metrics differ: accuracy \(as .*\), f1 \(as gu-1\); name the one"
    ):
        run_outcomes(mixed)
    table = run_outcomes(mixed, metric="accuracy").set_index("run")
    assert table.loc["gu-1", "reason"] == "average, lowest: no score in sw"


def test_fractions_are_not_averaged_with_points(study):
    mine = study.evaluation["run"].eq("gu-1")
    fractions = study.evaluation.assign(
        value=study.evaluation["value"].where(~mine, study.evaluation["value"] / 100)
    )
    with pytest.raises(
        InputError, match=r"accuracy is a fraction in gu-1 \(0\.\d+ at most\) and in points in "
    ):
        run_outcomes(replace(study, evaluation=fractions))


def test_languages_tested_at_different_steps_have_no_average(study):
    later = study.evaluation["run"].eq("gu-1") & study.evaluation["language"].eq("sw")
    steps = study.evaluation["step"].where(~later, 300)
    one = (
        run_outcomes(replace(study, evaluation=study.evaluation.assign(step=steps)))
        .set_index("run")
        .loc["gu-1"]
    )
    assert math.isnan(one["average"]) and math.isnan(one["lowest"]) and math.isfinite(one["source"])
    assert one["reason"] == "average, lowest: tested at different steps, sw at 300 and de at 500"


def test_runs_that_were_never_tested_have_no_outcome(tmp_path):
    with JournalWriter.open(
        tmp_path / "a", {"factors": {"source": "en"}, "blocks": {"layer.0": 1}}
    ) as writer:
        writer.close("finished", step=0)
    found = run_outcomes(load_runs(tmp_path))
    assert found["reason"].tolist() == ["no scores"] and found["average"].isna().all()
