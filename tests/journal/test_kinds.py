"""Kinds of records: one declaration, from which checks, reader, frames and the page of docs are made."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from fishlens import load_runs
from fishlens.journal import KINDS, JournalWriter, read_run
from fishlens.journal.kinds import MINOR, describe
from fishlens.journal.runs import COLUMNS, TABLES, Runs

PAGE = Path(__file__).parents[2] / "docs" / "journal.md"


def test_the_page_of_the_docs_is_printed_from_the_declaration():
    """Print it anew with `python -c "from fishlens.journal.kinds import describe; print(describe())"`."""
    shown = PAGE.read_text(encoding="utf-8").partition("<!-- kinds -->")[2].partition("<!-- /kinds -->")[0]
    assert shown.strip() == describe().strip()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_tells_records_apart_and_what_frames_show_are_fields(kind):
    assert set(kind.identity) <= set(kind.fields)
    assert kind.each is None or kind.each in kind.fields
    if kind.table:
        assert {one.field for one in COLUMNS[kind.table] if one.field} <= set(kind.fields)


def test_named_series_and_other_languages_never_stand_in_the_tracked_series(tmp_path):
    with JournalWriter.open(tmp_path / "a", {"blocks": {"low": 1, "head": 1}}) as journal:
        for language, series in ((None, None), ("de", None), (None, "after"), ("de", "after")):
            journal.write("fisher", 4, trace={"low": 1.0, "head": 2.0}, language=language, series=series)
    runs = load_runs(tmp_path)
    assert len(runs.fisher) == 2
    others = runs.fisher_series[["language", "series"]].astype(object).fillna("-").drop_duplicates()
    assert others.to_numpy().tolist() == [["de", "-"], ["-", "after"], ["de", "after"]]


def test_a_probe_of_another_language_is_another_record_when_a_run_is_resumed(tmp_path):
    for resumed, languages in ((None, (None, "de")), (4, (None,))):
        with JournalWriter.open(tmp_path / "a", {}, resumed_from_step=resumed) as journal:
            for language in languages:
                journal.write("fisher", 4, trace={"low": float(resumed or 0)}, language=language)
    kept = {r.get("language"): r["trace"]["low"] for r in read_run(tmp_path / "a").records}
    assert kept == {None: 4.0, "de": 0.0}


def test_fields_and_kinds_of_a_newer_minor_version_are_kept_and_ignored(tmp_path):
    with JournalWriter.open(tmp_path / "a", {"factors": {"seed": 1}}) as journal:
        journal.write("train", 1, loss=0.5)
    start, train = map(json.loads, journal.path.read_text().splitlines())
    newer = [
        start | {"minor": MINOR + 1, "weather": "rain"},
        train | {"humidity": 0.8},
        {"kind": "storm", "step": 1, "time": 1.0},
    ]
    journal.path.write_text("".join(json.dumps(record) + "\n" for record in newer))
    run = read_run(tmp_path / "a", strict=True)
    assert run.records[0]["humidity"] == 0.8 and len(run.records) == 1
    newer[0]["minor"] = MINOR  # of this very version, an unknown kind is damage
    journal.path.write_text("".join(json.dumps(record) + "\n" for record in newer))
    assert len(read_run(tmp_path / "a").damaged) == 1


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("train", {"loss": "low"}, "loss is 'low'; expected a number"),
        ("fisher", {"trace": [1.0]}, r"trace is \[1.0\]; expected a number for each block"),
        ("fisher", {"trace": {"low": "x"}}, "expected a number for each block"),
        (
            "fisher",
            {"trace": {"low": 1.0}, "examples": -1},
            "examples is -1; expected a whole number, 0 or more",
        ),
        ("fisher", {"purpose": "track"}, "without trace and lost"),
        ("eval", {"metric": "f1", "headline": 1}, "headline is 1; expected true or false"),
        ("unfreeze", {"event": 0}, "without chosen"),
        ("note", {"level": "info"}, "without text"),
        (
            "eval",
            {"metric": "f1", "value": 150.0},
            "value is 150.0; expected a number from -100 to 100 points",
        ),
        (
            "eval",
            {"metric": "f1", "value": math.inf},
            "value is 'Infinity'; expected a number from -100 to 100",
        ),
        ("fisher", {"trace": {"low": 1.0, "head": -1.0}}, "trace is -1.0; expected 0 or more"),
        ("fisher", {"trace": {"low": 1.0}, "atc": 101}, "atc is 101; expected a number from 0 to 100 points"),
    ],
)
def test_a_field_of_the_wrong_type_cannot_be_written(tmp_path, kind, fields, said):
    journal = JournalWriter.open(tmp_path / "a", {})
    with pytest.raises(TypeError, match=said):
        journal.write(kind, 1, **fields)
    journal.close()
    assert len(journal.path.read_text().splitlines()) == 1


def test_a_score_in_another_unit_has_no_limits_and_rounding_is_no_error(tmp_path):
    with JournalWriter.open(tmp_path / "a", {}) as journal:
        journal.write("eval", 1, metric="perplexity", value=1500.0, unit="as the script computed it")
        journal.write("eval", 1, metric="f1", value=100.0 + 1e-9)
        journal.write("eval", 2, metric="f1", value=math.nan)
        journal.write("eval", 3, metric="f1", value=None)
        journal.write("fisher", 1, trace={"low": 1.0}, overlap={"low": 1.0 + 1e-9})
    assert not read_run(tmp_path / "a").damaged
    values = load_runs(tmp_path).evaluation["value"]
    assert values.iloc[:2].tolist() == [1500.0, 100.0 + 1e-9] and values.iloc[2:].isna().all()


def test_a_frame_of_a_further_kind_is_a_table_like_the_others():
    runs = pd.DataFrame({"run": ["a", "b"]})
    joules = pd.DataFrame({"run": ["a", "b"], "step": [1, 1], "joules": [3.0, 5.0]})
    frames = {name: pd.DataFrame(columns=["run"]) for name in TABLES}
    made = Runs.of({"runs": runs, **frames, "energy": joules})
    assert made.energy is joules
    fewer = made.with_frames({"runs": runs[:1], "energy": joules[:1]})
    assert fewer.energy["joules"].tolist() == [3.0] and list(fewer.runs["run"]) == ["a"]
    with pytest.raises(AttributeError, match="runs have no table 'weather'"):
        made.weather  # noqa: B018
