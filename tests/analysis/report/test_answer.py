"""The answer says no more than the numbers do, and stands before everything else."""

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis.correlation.table import correlate
from fishlens.analysis.dynamics import CURVE_FEATURES, RUN_FEATURES
from fishlens.analysis.report import Picture, Table, build_report, to_html, to_markdown
from fishlens.analysis.report.answer import about_features, about_schedules
from fishlens.analysis.report.comparison import comparison
from fishlens.analysis.report.evidence import Evidence
from scipy import stats

from fishlens.errors import InputError
from fishlens.journal import load_runs


def table_of(average, *, source=None, schedules=5, seeds=6, groups=None):
    """Runs whose features are noise but for `early_area`, which runs from 0 to 1 within each schedule."""
    rng = np.random.default_rng(4)
    rows = []
    for group in range(groups or 1):
        for schedule in range(schedules):
            for seed in range(seeds):
                row = {"run": f"{group}-{schedule}-{seed}", "schedule": f"way{schedule}", "seed": seed}
                row |= dict.fromkeys([*CURVE_FEATURES, *RUN_FEATURES], np.nan)
                row |= {
                    name: rng.standard_normal() for name in ("peak", "width", "early_area", "depth_centroid")
                }
                noise = rng.standard_normal(3)
                row["source"] = noise[0] if source is None else source(row, noise[0])
                row |= {
                    "final_loss": noise[1],
                    "gradient_norm": np.nan,
                    "average": average(row, noise[2], group),
                }
                rows.append(row | ({"group": f"g{group}"} if groups else {}))
    return pd.DataFrame(rows)


def said(table):
    return about_features(Evidence(table))


def test_a_feature_that_goes_with_transfer_is_named_with_its_coefficient():
    answer = said(table_of(lambda row, noise, _: 60 + 2 * row["early_area"] + 0.5 * noise))
    assert answer.claim == "Early area goes with more transfer within schedules, also given the baselines."
    assert answer.evidence.startswith(
        "Early area, ρ = 0.98 [0.92, 0.99] within schedules (30 runs), p = 0.001, 0.0"
    )


def test_a_feature_that_only_repeats_a_baseline_is_said_to():
    table = table_of(
        lambda row, noise, _: 60 + 2 * row["source"] + noise,
        source=lambda row, noise: row["early_area"] + 0.3 * noise,
        seeds=8,
    )
    assert said(table).claim.endswith("within schedules; this was not shown beyond the baselines.")


def test_features_that_go_the_other_way_are_not_said_to_go_along():
    table = table_of(lambda row, noise, _: 60 + 2 * row["early_area"] + 0.5 * noise)
    table["peak"] = -table["early_area"]
    assert said(table).claim.startswith(
        "Early area goes with more transfer, peak goes with less transfer within"
    )


def with_failures(average, fail):
    table = table_of(average, seeds=8)
    return table.assign(diverged=[fail(row) for _, row in table.iterrows()])


def test_a_correlation_of_runs_that_learnt_nothing_is_said_to_be_one():
    """Runs that did not learn have a flat curve and no transfer; among the others there is nothing."""
    table = with_failures(
        lambda row, noise, _: 60 + noise, lambda row: row["seed"] == int(row["schedule"][3])
    )
    table.loc[table["diverged"], ["early_area", "average"]] = [-9.0, 33.0]
    answer = said(table)
    assert (
        "Early area goes with more transfer within schedules; this was not shown without the 5 runs"
        in answer.claim
    )
    learnt = table[~table["diverged"]]
    alone = correlate(learnt, ["early_area"], strata="schedule").iloc[0]
    assert (
        f"Without the 5 runs that did not learn the source: ρ = {alone['estimate']:.2f}".replace("-", "−")
        in answer.evidence
    )


def test_over_schedules_a_schedule_is_not_the_worse_for_the_seeds_that_it_lacks():
    """Coefficients are of the levels of schedules in the additive fit of schedules and seeds, not of means of runs."""
    table = table_of(lambda row, noise, _: 0.3 * noise, schedules=8, seeds=6)
    of_schedule, of_seed = table["schedule"].str[3].astype(int), table["seed"].astype(int)
    table["average"] += 60 + 2 * of_schedule + 20 * of_seed
    table["early_area"] += 3 * ((5 * of_schedule) % 8)
    table = table[(of_seed < 4) | (of_schedule % 2 == 0)]  # every other schedule lacks the two best seeds
    evidence = Evidence(table)
    (over,) = (level for level in evidence.levels if level.cluster)
    found = evidence.plain[over].set_index("feature").loc["early_area", "estimate"]
    design = pd.get_dummies(table[["schedule", "seed"]].astype(str)).to_numpy(dtype=float)
    levels = [
        np.linalg.lstsq(design, table[name] - table[name].mean(), rcond=None)[0][:8]
        for name in ("early_area", "average")
    ]
    means = table.groupby("schedule")[["early_area", "average"]].mean()
    assert found == pytest.approx(stats.spearmanr(*levels).statistic, abs=1e-12)
    assert found != pytest.approx(means.corr("spearman").iloc[0, 1], abs=0.05)


def test_a_correlation_that_holds_without_such_runs_is_not_doubted():
    table = with_failures(
        lambda row, noise, _: 60 + 2 * row["early_area"] + 0.3 * noise, lambda row: row["run"] == "0-0-0"
    )
    answer = said(table)
    assert (
        "not shown" not in answer.claim
        and "Without the 1 run that did not learn the source: ρ = 0.9" in answer.evidence
    )


def test_a_difference_that_one_failed_run_makes_is_said_to_be_one():
    fine = dict(enumerate([50.0, 52.0, 49.0, 51.0, 53.0, 50.5, 48.0]))
    table = scored(
        standard={**fine, 3: 14.0},
        gu={seed: value + (0.2 if seed % 2 else -0.1) for seed, value in fine.items()},
    )
    answer = about_schedules(comparison(table, ["standard", "gu"], "standard", None, diverged={"standard-3"}))
    assert answer.claim == "No schedule was shown to differ from standard."
    assert "Without runs that did not learn the source: 0.00 points [−0.16, 0.16]" in answer.evidence
    assert "over 6 shared seeds" in answer.evidence


def test_what_less_than_half_of_the_runs_have_is_no_finding():
    table = table_of(lambda row, noise, _: 60 + 2 * row["early_area"] + 0.3 * noise, seeds=10)
    table.loc[table["seed"] > 3, "early_area"] = np.nan
    answer = said(table)
    assert answer.claim.startswith("No feature")
    assert "less than half of the runs have it" in answer.evidence
    table = table_of(lambda row, noise, _: 60 + 2 * row["early_area"] + 0.3 * noise, seeds=10)
    table.loc[table["seed"] > 5, "early_area"] = np.nan
    assert said(table).claim.startswith("Early area goes with more transfer")


def test_where_nothing_can_be_said_it_is_said_in_the_words_of_a_report():
    table = table_of(lambda row, noise, _: 60.0, schedules=3, seeds=2)
    assert "stratum" not in said(table).evidence and "early_area" not in said(table).evidence


def test_notes_are_in_the_words_of_a_report():
    """A statistic knows rows and strata; a reader runs and schedules, and features by their labels."""
    evidence = Evidence(table_of(lambda row, noise, _: noise))
    over, within = evidence.levels
    note = "1 row left out: no value; 4 rows left out: in their stratum nothing varies"
    said = "1 run left out: no value; 4 runs left out: in their schedule the feature or score does not vary"
    assert evidence.remark(note, within) == said
    assert evidence.remark("schedules cannot be told apart by early_area", over).endswith("by early area")


def test_held_out_prediction_is_said_from_where_to_where():
    """A gain of a model that is worse than the mean of the others is no success."""
    answer = said(table_of(lambda row, noise, _: 60 + noise))
    found = Evidence(table_of(lambda row, noise, _: 60 + noise)).held_out.set_index("model")["estimate"]
    before, after = (f"{found[name]:.2f}".replace("-", "−") for name in ("baselines", "baselines + features"))
    assert f"R² of schedules left out: {before} by the baselines, {after} with features" in answer.evidence


def test_of_several_tasks_nothing_is_predicted_since_tasks_differ_by_themselves():
    assert Evidence(table_of(lambda row, noise, group: 30 * group + noise, groups=3)).held_out.empty


def test_where_nothing_is_found_it_says_what_could_have_been():
    answer = said(table_of(lambda row, noise, _: 60 + noise))
    assert answer.claim == "No feature of the Fisher curve was shown to go with transfer."
    assert "a smaller one remains possible" in answer.evidence


def test_the_smallest_correlation_that_could_be_seen_is_seen_that_often():
    """Held against simulation: a correlation of that size is found, corrected, in about four of five studies."""
    table = table_of(lambda row, noise, _: noise, schedules=1, seeds=30).drop(columns="seed")
    evidence = Evidence(table)
    rho = evidence.smallest(evidence.main)
    rng, found = np.random.default_rng(0), 0
    r = 2 * np.sin(np.pi * rho / 6)  # Pearson's, of normal values with this Spearman's
    for _ in range(2000):
        x = rng.standard_normal(30)
        ranks = [pd.Series(v).rank() for v in (x, r * x + np.sqrt(1 - r**2) * rng.standard_normal(30))]
        z = np.arctanh(np.corrcoef(*ranks)[0, 1]) / np.sqrt(1.06 / 27)
        found += abs(z) > 2.4977  # of a two-sided p of 0.05 / 4
    assert found / 2000 == pytest.approx(0.8, abs=0.04)


def test_groups_are_strata_of_the_pooled_answer():
    """Between the groups both go up together; within them there is nothing."""
    table = table_of(lambda row, noise, group: 30 * group + noise, groups=3, schedules=3, seeds=4)
    table["early_area"] += 100 * table["group"].str[1:].astype(int)
    assert said(table).claim.startswith("No feature")
    one = table.drop(columns="group").assign(schedule="one", seed=range(len(table)))
    assert said(one).claim.startswith("Early area goes with more transfer")


def test_few_runs_that_agree_perfectly_are_no_finding():
    table = table_of(lambda row, noise, _: 0.0, schedules=3, seeds=2)
    table["early_area"], table["average"] = [1, 2, 1, 2, 1, 2], [1.0, 2, 3, 5, 2, 7]
    assert not said(table).claim.startswith("Early area")


def scored(**by_schedule):
    return pd.DataFrame(
        {
            "run": f"{name}-{seed}",
            "schedule": name,
            "seed": seed,
            "source": value,
            "average": value,
            "lowest": value,
        }
        for name, values in by_schedule.items()
        for seed, value in values.items()
    )


def answer_of(**by_schedule):
    return about_schedules(comparison(scored(**by_schedule), list(by_schedule), "standard", None))


def test_a_schedule_that_differs_is_named_with_how_much():
    base = dict(enumerate([50.0, 52.0, 49.0, 51.0, 53.0, 50.5, 48.0]))
    better = {seed: value + 3 + 0.1 * seed for seed, value in base.items()}
    answer = answer_of(standard=base, gu=better)
    assert answer.claim == "gu is above standard by 3.30 points [3.10, 3.50]."


def test_schedules_are_compared_on_the_seeds_that_they_share():
    """fun has the better mean because it was not run with the bad seed; on shared seeds it is the worse one."""
    answer = answer_of(standard={0: 60.0, 1: 58.0, 2: 40.0}, fun={0: 59.0, 1: 57.0})
    assert answer.claim == "Whether a schedule differs from standard cannot be said:"
    assert "fun 58.0 against 59.0 (2)" in answer.evidence


def test_the_table_shows_the_means_on_shared_seeds_where_the_seeds_differ(tmp_path, write):
    for schedule, seeds in (("standard", range(3)), ("fun", range(2))):
        for seed in seeds:
            write(tmp_path, schedule, seed)
    runs = load_runs(tmp_path)
    (table,) = (table for _, table in build_report(runs).tables if table.name == "table-1")
    fun = next(row for row in table.rows if row["schedule"] == "fun")
    rows = runs.evaluation[(runs.evaluation["split"] == "test") & (runs.evaluation["language"] != "en")]
    both = rows[rows["run"].isin(["standard-0", "standard-1"])]["value"].mean()
    assert (fun["pairs"], fun["baseline"]) == (2, pytest.approx(both))
    assert "compare them on those they share" in table.note


def test_with_equal_seeds_no_column_is_added(report):
    (table,) = (table for _, table in report.tables if table.name == "table-1")
    assert "pairs" not in [column.key for column in table.columns]


@pytest.fixture(scope="module")
def two_tasks(tmp_path_factory, write):
    folder = tmp_path_factory.mktemp("two")
    for task in ("one", "two"):
        for schedule in ("standard", "gu"):
            for seed in range(3):
                write(folder / task, schedule, seed, task=task)
    return build_report(load_runs(folder), group=True)


def test_one_table_is_over_tasks_and_its_last_row_over_all(two_tasks):
    report = two_tasks
    table = next(table for _, table in report.tables if table.name == "overview")
    assert [row["group"].split(",")[0] for row in table.rows] == ["one", "two", "average over groups"]
    one, two, both = table.rows
    assert both["mean gu"] == pytest.approx((one["mean gu"] + two["mean gu"]) / 2)
    differences = next(table for _, table in report.tables if table.name == "overview-differences")
    (gu,) = differences.rows
    assert gu["n"] == 3 and gu["estimate"] == pytest.approx(both["mean gu"] - both["mean standard"])


def test_the_answer_stands_before_contents_and_sections_and_definitions_once(two_tasks):
    for text in (to_html(report := two_tasks), to_markdown(report)):
        first = text.index(report.answer[0].claim)
        assert first < text.index("Average over the target languages, without the source, in points")
        assert text.count("Fisher information. F = 1/N") == 1
        for group in report.groups:
            assert group.answer[1].claim in text


def test_of_many_groups_only_the_main_figures_are_drawn(tmp_path, write):
    for number in range(9):
        write(tmp_path / str(number), "gu", 0, task=f"task{number}")
    report = build_report(load_runs(tmp_path), group=True)
    assert {picture.name for _, picture in report.pictures} == {"trace"}
    assert "report this one alone (--where)" in to_markdown(report)


def test_only_the_sections_asked_for(study):
    report = build_report(study, only=["transfer"])
    assert [section.name for section in report.groups[0].sections] == ["transfer"]
    with pytest.raises(InputError, match="no section 'weather'; expected some of prediction, transfer"):
        build_report(study, only=["weather"])


def test_another_metric_than_the_headline_can_be_asked_for(study, report):
    with pytest.raises(InputError, match="no run has the metric 'f1'"):
        build_report(study, metric="f1")
    assert build_report(study, metric="accuracy").answer == report.answer


def test_figures_are_drawn_when_they_are_asked_for(study, monkeypatch):
    from fishlens.analysis.figures import traces

    monkeypatch.setattr(traces, "band_over_runs", lambda *_, **__: pytest.fail("drawn"))
    report = build_report(study)
    assert to_markdown(report) and any(isinstance(item, Picture | Table) for _, item in report.pictures)
