"""Runs that score as guessing does are told from those that learnt, and counted with Wilson's interval."""

import math

import pandas as pd
import pytest
from fishlens.analysis.collapse import collapse_shares, collapsed_runs
from fishlens.analysis.report import build_report, to_html

from fishlens.errors import InputError
from fishlens.journal import JournalWriter, load_runs

LOST = {("standard", 0), ("standard", 1), ("gu", 3)}  # keep English, lose the targets


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collapse")
    for schedule in ("standard", "gu"):
        for seed in range(6):
            lost, dead = (schedule, seed) in LOST, (schedule, seed) == ("gu", 5)
            source = 34.0 if dead else 66.0 + seed
            target = 36.0 if lost or dead else 52.0 + seed
            write(
                folder / f"{schedule}-{seed}", schedule, seed, {"en": source, "de": target, "sw": target - 1}
            )
    return load_runs(folder)


def write(folder, schedule, seed, scores, loss=0.9, task="nli", **record):
    factors = {"task": task, "schedule": schedule, "seed": seed, "source": "en"}
    with JournalWriter.open(folder, {"factors": factors, "blocks": {"layer.0": 1}}) as writer:
        for step in range(4):
            writer.write("fisher", step, trace={"layer.0": 1.0 + step + seed}, trainable={"layer.0": True})
            writer.write("train", step, loss=1.0 if step < 3 else loss, gradient_norm=1.0 + seed)
        for language, value in scores.items():
            told = {"metric": "accuracy", "headline": True, "examples": 500} | record
            writer.write("eval", 3, split="test", language=language, value=value, **told)
        writer.close("finished", step=3)


def test_the_limit_is_two_standard_errors_above_guessing(runs):
    found = collapsed_runs(runs).set_index("run")
    assert found["limit"].iloc[0] == pytest.approx(100 / 3 + 2 * 100 * math.sqrt(1 / 3 * 2 / 3 / 500))
    told = found["state"].to_dict()
    assert told["gu-5"] == "diverged"
    assert {run for run, state in told.items() if state == "collapsed in the targets"} == {
        "standard-0", "standard-1", "gu-3",
    }  # fmt: skip
    assert list(told.values()).count("trained") == 8
    strict = collapsed_runs(runs, guess=60.0).set_index("run")["state"]
    assert strict["gu-4"] == "collapsed in the targets"


def test_shares_are_of_the_runs_that_did_not_diverge_with_wilsons_interval(runs):
    shares = collapse_shares(collapsed_runs(runs)).set_index("schedule")
    gu = shares.loc["gu"]
    assert (gu["runs"], gu["diverged"], gu["collapsed"]) == (6, 1, 1)
    z, n, p = 1.959963984540054, 5, 1 / 5
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (gu["low"], gu["high"]) == pytest.approx((centre - reach, centre + reach), rel=1e-9)


def test_a_loss_that_stops_being_a_number_is_divergence(tmp_path):
    write(tmp_path / "a", "gu", 0, {"en": 70.0, "de": 60.0}, loss=math.nan)
    assert collapsed_runs(load_runs(tmp_path))["state"].tolist() == ["diverged"]


@pytest.mark.parametrize("unlike", [{"metric": "f1"}, {"task": "ner"}, {"examples": None}])
def test_what_is_not_known_is_not_claimed(tmp_path, unlike):
    write(tmp_path / "a", "gu", 0, {"en": 34.0, "de": 34.0}, **unlike)
    found = collapsed_runs(load_runs(tmp_path))
    assert found["state"].tolist() == ["not known"]
    assert collapse_shares(found).empty


def test_the_report_says_so_before_any_table(runs):
    report = build_report(runs, only=["transfer"])
    answer = report.answer[-1]
    assert report.groups[0].answer[-1] == answer
    assert answer.claim.startswith("Some runs score as guessing does, and stand in every mean here")
    assert "3 of 12 runs kept the source and lost the targets (standard 2 of 6, gu 1 of 5)" in answer.evidence
    assert "1 of 12 runs did not learn the source (gu 1 of 6)" in answer.evidence
    table = next(table for _, table in report.tables if table.name == "collapsed")
    assert [row["collapsed"] for row in table.rows] == [2, 1]
    page = to_html(report)
    assert page.index("kept the source and lost the targets (") < page.index(
        "Runs that lost every target language"
    )
    fine = build_report(runs, guess=10.0, only=["transfer"])
    assert fine.groups[0].answer[-1].claim == "No run collapsed."
    assert "collapsed" not in {table.name for _, table in fine.tables}
    with pytest.raises(InputError, match="guessing scores 140 points"):
        build_report(runs, guess=140.0)


def test_shares_by_another_factor():
    table = pd.DataFrame({"state": ["trained", "collapsed in the targets"], "adapter": ["lora", "lora"]})
    assert collapse_shares(table, by="adapter")["share"].tolist() == [0.5]
