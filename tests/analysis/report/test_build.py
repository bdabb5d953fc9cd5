"""A report says what was measured, on how many runs, and what it cannot say."""

import json
import math
import re
import shutil
from dataclasses import replace
from uuid import uuid4

import pytest
from fishlens.analysis.report import (
    Missing,
    Picture,
    Table,
    build_report,
    to_csv,
    to_html,
    to_latex,
    to_markdown,
)

from fishlens.errors import InputError
from fishlens.journal import JournalWriter, load_runs


def items(report, kind):
    return {
        getattr(item, "name", getattr(item, "title", "")): item
        for group in report.groups
        for section in group.sections
        for item in section.items
        if isinstance(item, kind)
    }


def section(report, name):
    return next(one for one in report.groups[0].sections if one.name == name)


def every_format(report):
    return [to_html(report), to_markdown(report), to_latex(report), *to_csv(report).values()]


def test_it_states_runs_schedules_and_estimator(report):
    text = section(report, "measured").text
    assert "16 runs" in text
    assert "standard (4), gu (4), gu-reverse (4), fun (4)" in text
    assert "Probes a run: 11, each of 4 blocks and the head." in text
    assert "labels exact, granularity example, examples 32, mode eval" in text


def test_it_says_where_two_schedules_made_the_same_run(tmp_path, write):
    for schedule in ("standard", "fun"):
        for seed in range(3):
            write(tmp_path, schedule, seed)
    assert "same run" not in section(build_report(load_runs(tmp_path)), "transfer").text
    for seed in (0, 2):
        shutil.copytree(tmp_path / f"fun-{seed}", tmp_path / f"gu-{seed}")
        (journal,) = (tmp_path / f"gu-{seed}").glob("journal-*.jsonl")
        text = journal.read_text().replace(f"fun-{seed}", f"gu-{seed}").replace('"fun"', '"gu"')
        journal.write_text(
            re.sub('"id":"[^"]+"', f'"id":"{uuid4().hex}"', text)
        )  # else it is a copy of one run
    write(tmp_path, "gu", 1)
    text = section(build_report(load_runs(tmp_path)), "transfer").text
    assert "gu and fun made the same run with 2 seeds (0, 2): the same score in every language" in text


def test_every_figure_family_and_every_table_is_there(report):
    assert set(items(report, Picture)) == {
        "trace", "validation", "blocks-map", "order", "top-down", "relative", "languages", "scatter-early-area",
        "scatter-peak", "forest", "blocks-end",
    }  # fmt: skip
    assert set(items(report, Table)) == {
        "runs", "estimator", "features", "block-features", "run-features", "orders", "table-1", "differences",
        "seeds-needed", "language-scores", "run-scores", "correlations-within", "held-out", "mixed-model", "lead-lag",
    }  # fmt: skip


def test_scores_by_schedule_are_means_over_its_runs(study, report):
    rows = {row["schedule"]: row for row in items(report, Table)["table-1"].rows}
    test = study.evaluation[(study.evaluation["split"] == "test") & (study.evaluation["language"] != "en")]
    mine = test[test["run"].astype(str).str.fullmatch(r"gu-\d")]
    by_run = mine.groupby(mine["run"].astype(str))["value"].mean()
    assert rows["gu"]["average"] == pytest.approx(by_run.mean(), abs=1e-9)
    assert rows["gu"]["average_sd"] == pytest.approx(by_run.std(ddof=1), abs=1e-9)
    assert rows["gu"]["runs"] == 4


def test_every_row_of_a_table_by_schedule_names_that_schedules_runs(report):
    for name in ("features", "table-1"):
        table = items(report, Table)[name]
        for row in table.rows:
            assert table.source_runs[row["schedule"]] == tuple(
                f"{row['schedule']}-{seed}" for seed in range(4)
            )


def test_schedules_that_thaw_everything_at_once_have_no_order(report):
    for name in ("order", "top-down"):
        assert list(items(report, Picture)[name].source_runs) == ["gu", "gu-reverse", "fun"]
    assert {row["schedule"] for row in items(report, Table)["orders"].rows} == {"gu", "gu-reverse", "fun"}
    text = next(section.text for section in report.groups[0].sections if section.name == "unfreezing")
    assert text.endswith("(all blocks at once, or none): standard.")


def test_unfinished_runs_are_named_and_left_out_or_let_in(tmp_path, write):
    for seed in range(3):
        write(tmp_path, "gu", seed)
    write(tmp_path, "gu", 9, status="failed")
    runs = load_runs(tmp_path)
    report = build_report(runs)
    assert report.left_out == {"gu-9": "failed, not finished"}
    assert "gu-9" in to_html(report)
    assert not any("gu-9" in text for text in to_csv(report).values())
    assert "4 runs" in section(build_report(runs, unfinished=True), "measured").text


def test_mixed_tasks_are_refused_with_the_list_or_grouped(tmp_path, write):
    write(tmp_path, "gu", 0)
    write(tmp_path, "fun", 0, task="other")
    runs = load_runs(tmp_path)
    with pytest.raises(InputError, match=r"differ in task.*gu-0.*fun-0|differ in task.*fun-0.*gu-0"):
        build_report(runs)
    report = build_report(runs, group=True)
    assert [group.title for group in report.groups] == ["other, tiny, seq_bn, en", "pairs, tiny, seq_bn, en"]
    assert len({group.name for group in report.groups}) == 2
    for text in every_format(report):
        assert text
    names = [table.name for _, table in report.tables]
    assert len(to_csv(report)) == len(names) == 2 * (len(set(names)) - 1) + 1  # the overview is of both


def test_groups_that_differ_only_in_how_they_were_measured_have_titles_that_say_it(tmp_path, write):
    write(tmp_path, "gu", 0)
    write(tmp_path, "fun", 0)
    runs = load_runs(tmp_path)
    labels = runs.runs["run"].map({"gu-0": "exact", "fun-0": "mc"})
    report = build_report(replace(runs, runs=runs.runs.assign(estimator_labels=labels)), group=True)
    assert sorted(group.title for group in report.groups) == [
        "pairs, tiny, seq_bn, en, labels exact",
        "pairs, tiny, seq_bn, en, labels mc",
    ]
    presets = runs.runs["run"].map({"gu-0": None, "fun-0": "published"})
    both = runs.runs.assign(estimator_labels=labels, estimator_preset=presets)
    report = build_report(replace(runs, runs=both), group=True)
    assert sorted(group.title for group in report.groups) == [
        "pairs, tiny, seq_bn, en, preset published",
        "pairs, tiny, seq_bn, en, without preset",
    ]


def test_one_seed_only_gives_no_coefficient_and_no_interval(tmp_path, write):
    for schedule in ("standard", "gu", "fun"):
        write(tmp_path, schedule, 0)
    report = build_report(load_runs(tmp_path))
    missing = {m.title: m.reason for m in items(report, Missing).values()}
    assert "at least 3 are needed" in missing["Not enough runs for differences between schedules:"]
    assert "3 runs, at least 6 are needed" in missing["No coefficient over runs:"]
    assert not {"differences", "correlations"} & set(items(report, Table))
    assert all(math.isnan(row["average_sd"]) for row in items(report, Table)["table-1"].rows)
    assert "nan" not in to_markdown(report).lower().replace("finance", "")


def test_constant_scores_give_no_coefficient_and_say_why(tmp_path, write):
    for seed in range(8):
        write(tmp_path, "gu", seed)
        journal = tmp_path / f"gu-{seed}" / "journal-1.jsonl"
        lines = journal.read_text().splitlines()
        flat = [_with_value(line, 50.0) if '"split":"test"' in line else line for line in lines]
        journal.write_text("\n".join(flat) + "\n")
    report = build_report(load_runs(tmp_path))
    reasons = " ".join(m.title + m.reason for m in items(report, Missing).values())
    assert "constant" in reasons
    every_format(report)


def _with_value(line: str, value: float) -> str:
    return json.dumps({**json.loads(line), "value": value}, separators=(",", ":"))


@pytest.mark.parametrize("lost", ["one", "all"])
def test_traces_that_are_not_numbers_are_counted_and_break_nothing(tmp_path, write, lost):
    for seed in range(3):
        write(tmp_path, "gu", seed)
    journal = tmp_path / "gu-0" / "journal-1.jsonl"
    lines = journal.read_text().splitlines()
    bad = [i for i, line in enumerate(lines) if '"kind":"fisher"' in line]
    for i in bad[2:3] if lost == "one" else bad:
        lines[i] = _with_trace(lines[i])
    journal.write_text("\n".join(lines) + "\n")
    report = build_report(load_runs(tmp_path))
    rows = {row["run"]: row for row in items(report, Table)["runs"].rows}
    assert (rows["gu-0"]["probes"], rows["gu-0"]["lost"]) == ((10, 1) if lost == "one" else (0, 11))
    assert (rows["gu-1"]["probes"], rows["gu-1"]["lost"]) == (11, 0)
    every_format(report)


def _with_trace(line: str) -> str:
    record = json.loads(line)
    record["trace"] = dict.fromkeys(record["trace"], "NaN")
    return json.dumps(record, separators=(",", ":"))


def test_a_script_that_was_only_tracked_still_gets_its_curves(tmp_path):
    with JournalWriter.open(tmp_path / "script", {"blocks": {"a": 1, "b": 1}}) as writer:
        for step in range(0, 50, 10):
            writer.write(
                "fisher", step, trace={"a": 1.0 + step, "b": 2.0}, stderr={}, trainable={"a": True, "b": True}
            )
        writer.close("finished", step=50)
    report = build_report(load_runs(tmp_path))
    assert {"trace", "blocks-map"} <= set(items(report, Picture))
    titles = set(items(report, Missing))
    assert {"No validation curve:", "No order:", "No scores:"} <= titles
    every_format(report)


def test_a_run_without_a_probe_is_reported_without_a_curve(tmp_path):
    with JournalWriter.open(tmp_path / "bare", {"blocks": {"a": 1}, "factors": {"schedule": "gu"}}) as writer:
        writer.write("train", 1, loss=1.0)
        writer.close("finished", step=1)
    report = build_report(load_runs(tmp_path))
    assert "No curve:" in items(report, Missing)
    every_format(report)


def test_published_results_stand_beside_ours_where_the_data_set_is_the_papers(tmp_path, write):
    for schedule in ("standard", "gu"):
        for seed in range(3):
            write(tmp_path, schedule, seed, task="xnli", model="xlm-roberta-base")
    table = items(build_report(load_runs(tmp_path)), Table)["published-accuracy"]
    cell = ("published, gu", "xlm-r", "mad-x")
    printed = next(row for row in table.rows if (row["method"], row["model"], row["adapter"]) == cell)
    assert (printed["average"], printed["sd"], printed["from"]) == (73.44, 0.24, "Table 1")
    ours = next(row for row in table.rows if row["method"] == "ours, gu")
    assert ours["runs"] == 3
    assert table.source_runs["ours, gu"] == ("gu-0", "gu-1", "gu-2")
    assert printed["shared_languages"] == "de,sw,th"


@pytest.mark.parametrize(
    ("task", "number", "averages"), [("xnli", 18, (74.09, 73.54)), ("xcopa", 17, (57.32, 57.99))]
)
def test_the_papers_mdeberta_stands_beside_ours(task, number, averages, tmp_path, write):
    for schedule in ("standard", "gu"):
        write(tmp_path, schedule, 0, task=task, model="microsoft/mdeberta-v3-base", recipe=f"{task}-mdeberta")
    table = items(build_report(load_runs(tmp_path)), Table)["published-accuracy"]
    printed = [row for row in table.rows if row["model"] == "mdeberta"]
    assert [(row["method"], row["from"], row["average"]) for row in printed] == [
        ("published, standard", f"Table {number}", averages[0]),
        ("published, gu", f"Table {number}", averages[1]),
    ]
    assert "none of the paper's" not in table.note


def test_the_average_over_shared_languages_is_over_those_alone_on_our_side_too(tmp_path, write):
    for seed in range(3):
        write(tmp_path, "gu", seed, task="xnli", model="xlm-roberta-base")
        journal = tmp_path / f"gu-{seed}" / "journal-1.jsonl"
        journal.write_text(journal.read_text().replace('"language":"th"', '"language":"pocket"'))
    runs = load_runs(tmp_path)
    table = items(build_report(runs), Table)["published-accuracy"]
    ours = next(row for row in table.rows if row["method"] == "ours, gu")
    test = runs.evaluation[
        (runs.evaluation["split"] == "test") & runs.evaluation["language"].isin(["de", "sw"])
    ]
    assert ours["shared_languages"] == "de,sw" and ours["shared"] == pytest.approx(test["value"].mean())
    assert ours["average"] < ours["shared"]


def test_seeds_of_a_schedule_are_no_independent_evidence(tmp_path, write):
    """Coefficients over schedules count schedules; those within schedules compare runs of one schedule only."""
    for number in range(6):
        for seed in range(4):
            write(tmp_path, f"way{number}", seed, stronger=number / 2)
    found = items(build_report(load_runs(tmp_path), baseline="way0"), Table)
    over, within = found["correlations"], found["correlations-within"]
    assert {(row["n"], row["clusters"]) for row in over.rows if row["estimate"] == row["estimate"]} == {
        (24, 6)
    }
    assert "over schedules" in over.title and "jackknife over schedules" in over.note
    assert "within schedules" in within.title and "jackknife over runs" in within.note
    assert "6 schedules, at least 8 are needed" in over.note  # given two baselines
    lag = found["lead-lag"]
    assert all(row["p"] != row["p"] for row in lag.rows if row["course"] == "whole")


def test_schedules_that_score_alike_have_no_coefficient_over_schedules(tmp_path, write):
    for number in range(6):
        for seed in range(4):
            write(tmp_path, f"way{number}", seed)
    said = [str(item) for item in items(build_report(load_runs(tmp_path), baseline="way0"), Missing).values()]
    assert any(
        "over schedules" in one and "schedules cannot be told apart by the average" in one for one in said
    )


def test_three_seeds_have_no_coefficient_within_schedules_and_the_report_says_how_many_have(tmp_path, write):
    for number in range(6):
        for seed in range(3):
            write(tmp_path, f"way{number}", seed)
    said = [str(item) for item in items(build_report(load_runs(tmp_path), baseline="way0"), Missing).values()]
    assert any(
        "within schedules" in one and "3 seeds that cross, at least 4 are needed" in one for one in said
    )


def test_a_data_set_of_the_paper_in_other_languages_is_not_put_beside_it(tmp_path, write):
    write(
        tmp_path, "gu", 0, recipe="xcopa-made-up"
    )  # German is no language of XCOPA, but Swahili and Thai are
    assert "published-accuracy" in items(build_report(load_runs(tmp_path)), Table)
    write(tmp_path, "fun", 0, recipe="xcopa-made-up")
    for name in ("gu-0", "fun-0"):
        journal = tmp_path / name / "journal-1.jsonl"
        text = journal.read_text()
        for tongue in ("sw", "th"):
            text = text.replace(f'"language":"{tongue}"', f'"language":"pocket-{tongue}"')
        journal.write_text(text)
    reason = items(build_report(load_runs(tmp_path)), Missing)["Nothing to put beside:"].reason
    assert reason.endswith("in none of the languages of these runs: de, pocket-sw, pocket-th")


def test_nothing_published_stands_beside_another_task(report):
    assert "xquad, mlqa, xcopa, xnli" in items(report, Missing)["Nothing to put beside:"].reason


def test_copies_of_one_run_are_counted_once_and_named(tmp_path, write):
    write(tmp_path, "gu", 0)
    shutil.copytree(tmp_path / "gu-0", tmp_path / "z copy")
    loaded = load_runs(tmp_path)
    assert loaded.runs.run.tolist() == ["gu-0"]
    ((place, reason),) = build_report(loaded).left_out.items()
    assert place.endswith("z copy") and "the same run as" in reason


@pytest.mark.parametrize(("examples", "said"), [(1000, "1000 examples"), ("a tenth", "a tenth examples")])
def test_the_amount_of_training_data_stands_in_the_title_whatever_a_script_calls_it(
    tmp_path, write, examples, said
):
    write(tmp_path, "gu", 0, examples=examples)
    title = build_report(load_runs(tmp_path)).groups[0].title.replace(",", "")
    assert title.endswith(said)
