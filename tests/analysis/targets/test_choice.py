"""Choosing without labels: what each criterion would have cost, by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis.targets import agreement, choose_schedules, choose_steps

from fishlens.errors import InputError
from fishlens.journal import JournalWriter, load_runs

FEW = {"source validation": ("source", 1), "smallest entropy": ("entropy", -1), "largest tr(F)": ("trace", 1)}


@pytest.fixture
def by_hand():
    """Six seeds, three steps: the source says step 10, entropy step 20 (the best), tr(F) step 30."""
    rows = []
    for seed in range(6):
        for step, source, entropy, trace, score in [
            (10, 3.0, 0.9, 1.0, 50.0),
            (20, 2.0, 0.1, 2.0, 60.0),
            (30, 1.0, 0.5, 3.0, 55.0),
        ]:
            for language, more in (("de", 5.0), ("sw", -5.0)):
                rows.append([f"r{seed}", seed, "gu", step, language, source, entropy, trace, score + more])
    names = ["run", "seed", "schedule", "step", "language", "source", "entropy", "trace", "score"]
    return pd.DataFrame(rows, columns=names)


def test_regret_is_what_the_chosen_step_lacks_to_the_best(by_hand):
    found = choose_steps(by_hand, FEW).set_index("criterion")
    assert found["estimate"].to_dict() == pytest.approx(
        {
            "source validation": 10,
            "smallest entropy": 0,
            "largest tr(F)": 5,
            "the last step": 5,
            "any of them": 5,
        }
    )
    alike = found.loc["smallest entropy"]
    assert alike["gain"] == 10 and np.isnan(
        alike["low_gain"]
    )  # five seeds of one value have no spread to resample
    assert found["clusters"].eq(6).all()


def test_all_criteria_choose_among_the_same_steps(by_hand):
    """A step at which one criterion is missing is a candidate for none."""
    by_hand.loc[by_hand["step"] == 20, "entropy"] = np.nan
    found = choose_steps(by_hand, FEW).set_index("criterion")["estimate"]
    assert found["smallest entropy"] == 0 and found["source validation"] == 5


def test_a_criterion_that_no_run_has_is_said_to_be_missing(by_hand):
    found = choose_steps(by_hand.assign(cka=np.nan), {**FEW, "largest CKA": ("cka", 1)}).set_index(
        "criterion"
    )
    assert (
        np.isnan(found.loc["largest CKA", "estimate"])
        and "runs in which it was measured" in found.loc["largest CKA", "note"]
    )
    assert found.loc["smallest entropy", "estimate"] == 0


def test_of_schedules_each_is_taken_at_its_best_step_on_the_source(by_hand):
    other = by_hand.assign(
        run="s" + by_hand["run"], schedule="standard", score=by_hand["score"] + 7, trace=0.0
    )
    found = choose_schedules(pd.concat([by_hand, other]), FEW).set_index("criterion")["estimate"]
    assert found.to_dict() == pytest.approx(
        {"source validation": 7, "smallest entropy": 7, "largest tr(F)": 7, "any of them": 3.5}
    )
    surer = other.assign(entropy=other["entropy"] - 0.5)
    assert (
        choose_schedules(pd.concat([by_hand, surer]), FEW).set_index("criterion")["estimate"][
            "smallest entropy"
        ]
        == 0
    )
    with pytest.raises(InputError, match="choosing a schedule needs the seed of every run"):
        choose_schedules(by_hand.drop(columns="seed"), FEW)


def test_intervals_are_over_seeds(make_points):
    found = choose_steps(make_points(steps=(10, 20, 30)), FEW).set_index("criterion")
    row = found.loc["source validation"]
    assert row["low"] < row["estimate"] < row["high"] and row["clusters"] == 12 and row["n"] == 24


def test_agreement_is_the_share_of_equal_predictions(tmp_path):
    predicted = {"one": ["a", "b", "c", "d"], "two": ["a", "b", "c", "x"], "other": ["x", "x", "x", "x"]}
    for name, values in predicted.items():
        schedule = "gu" if name != "other" else "lpft"
        JournalWriter.open(tmp_path / name, start={"run": name, "factors": {"schedule": schedule}}).close(
            "finished"
        )
        folder = tmp_path / name / "predictions"
        folder.mkdir()
        lines = [
            json.dumps({"id": str(i), "gold": "?", "predicted": value}) for i, value in enumerate(values)
        ]
        (folder / "de.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = agreement(load_runs(tmp_path))
    assert found.to_dict("records") == [
        {"run": "one", "other": "two", "schedule": "gu", "language": "de", "agreement": 75.0}
    ]
    (tmp_path / "one" / "predictions" / "de.jsonl").write_text("[1]\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"de.jsonl is not a table of predictions"):
        agreement(load_runs(tmp_path))
