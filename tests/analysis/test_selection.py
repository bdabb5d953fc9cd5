"""Which runs may stand in one table."""

from dataclasses import replace

import pytest
from fishlens.analysis.selection import only, select_runs, shown

from fishlens.errors import InputError
from fishlens.journal import JournalWriter, load_runs, read_run


@pytest.fixture
def load(run_writer, tmp_path):
    """Writes runs, (schedule, seed, changes) each, and loads them."""

    def write(*runs):
        for schedule, seed, changes in runs:
            run_writer(tmp_path, schedule, seed, **changes)
        return load_runs(tmp_path)

    return write


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("/data/models/mini-xlmr", "mini-xlmr"),
        ("/home/me/runs/encoder/model", "encoder"),
        ("/model", "model"),
        ("FacebookAI/xlm-roberta-base", "FacebookAI/xlm-roberta-base"),
    ],
)
def test_a_model_is_called_by_its_folder_or_by_the_run_that_made_it(model, name):
    assert shown(model) == name


def test_runs_of_one_study_are_one_group(study):
    chosen = select_runs(study)
    assert len(chosen.groups) == 1
    assert chosen.groups[0].names == [str(run) for run in study.runs["run"]]
    assert chosen.groups[0].label == "task=pairs, model=tiny, adapter=seq_bn, source=en"
    assert chosen.left_out == ()


def test_unfinished_runs_are_named_and_left_out_or_included(load):
    runs = load(("gu", 0, {}), ("gu", 1, {"status": "failed"}), ("gu", 2, {"status": "interrupted"}))
    chosen = select_runs(runs)
    assert chosen.groups[0].names == ["gu-0"]
    assert chosen.left_out == (("gu-1", "failed"), ("gu-2", "interrupted"))
    assert set(chosen.groups[0].runs.fisher["run"]) == {"gu-0"}
    everything = select_runs(runs, unfinished="include")
    assert everything.groups[0].names == ["gu-0", "gu-1", "gu-2"]
    assert everything.left_out == ()


def test_with_nothing_finished_there_is_nothing_to_analyse(load):
    runs = load(("gu", 0, {"status": "failed"}))
    with pytest.raises(InputError, match="no finished run to analyse: gu-0 is failed"):
        select_runs(runs)


@pytest.mark.parametrize("factor", ["task", "model", "adapter", "source"])
def test_mixed_runs_are_refused_with_the_list_or_grouped(load, factor):
    runs = load(("gu", 0, {}), ("gu", 1, {factor: "other"}), ("fun", 0, {}))
    with pytest.raises(InputError, match=rf"differ in {factor} .*fun-0, gu-0.*other: gu-1"):
        select_runs(runs)
    groups = select_runs(runs, mixed="group").groups
    assert [group.names for group in groups] == [["fun-0", "gu-0"], ["gu-1"]]
    assert groups[1].shared[factor] == "other"


def test_numbers_of_different_estimators_are_different_numbers(study):
    table = study.runs.copy()
    table.loc[3, "estimator_labels"] = "empirical"
    with pytest.raises(InputError, match="differ in estimator_labels"):
        select_runs(replace(study, runs=table))
    groups = select_runs(replace(study, runs=table), mixed="group").groups
    assert sorted(len(group.names) for group in groups) == [1, 15]
    table["estimator_labels"] = "exact"
    table["estimator_seed"] = range(16)  # another draw of the same number
    assert len(select_runs(replace(study, runs=table)).groups) == 1


def test_a_run_that_does_not_say_its_task_is_not_of_any_task(study):
    table = study.runs.copy()
    table.loc[0, "task"] = None
    with pytest.raises(InputError, match="differ in task"):
        select_runs(replace(study, runs=table))
    table["task"] = None  # and runs that all say nothing may stand together
    assert len(select_runs(replace(study, runs=table)).groups) == 1


def test_long_lists_are_cut(study):
    table = study.runs.copy()
    table.loc[0, "model"] = "large"
    with pytest.raises(InputError, match="and 7 more"):
        select_runs(replace(study, runs=table))


def test_only_keeps_the_rows_of_the_runs_named(study):
    part = only(study, ["fun-1", "gu-0"])
    assert [str(run) for run in part.runs["run"]] == ["fun-1", "gu-0"]
    for frame in (part.fisher, part.evaluation, part.training, part.unfreezing):
        assert set(frame["run"]) == {"fun-1", "gu-0"}
    assert len(part.fisher) == len(study.fisher) / 8


def test_options_are_checked(study):
    with pytest.raises(InputError, match="unfinished is 'keep'"):
        select_runs(study, unfinished="keep")
    with pytest.raises(InputError, match="mixed is 'merge'"):
        select_runs(study, mixed="merge")


def test_runs_trained_on_different_amounts_of_data_are_not_put_together(load):
    runs = load(("gu", 0, {"examples": 100}), ("fun", 0, {"examples": 5000}))
    with pytest.raises(InputError, match="differ in examples"):
        select_runs(runs)


def test_a_folder_is_called_by_its_name(load):
    runs = load(("gu", 0, {"model": "/home/somebody/models/mini-xlmr"}))
    assert "model=mini-xlmr" in select_runs(runs).groups[0].label


FIELDS = {"train.learning_rate": 0.002, "train.steps": 600, "train.batch_size": 32, "train.max_length": 64,
          "evaluate.every": 100, "tracking.every": 20, "train.precision": "bf16",
          "data.root": "/here/data"}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("train.learning_rate", 0.0005), ("train.steps", 1200), ("train.batch_size", 16), ("train.max_length", 128),
        ("evaluate.every", 50), ("tracking.every", 5), ("train.precision", "fp32"), ("data.root", "/here/data-2"),
    ],
)  # fmt: skip
def test_runs_of_other_settings_are_never_put_together_without_being_asked(load, field, other):
    runs = load(("gu", 0, FIELDS), ("gu", 1, {**FIELDS, field: other}))
    with pytest.raises(InputError, match=rf"differ in {field} .*gu-0.*--across {field}"):
        select_runs(runs)
    assert len(select_runs(runs, mixed="group").groups) == 2
    assert len(select_runs(runs, across=[field]).groups) == 1


@pytest.mark.parametrize(
    ("field", "other"),
    [("train.log_every", 7), ("checkpoint.keep", 3), ("data.root", "/there/data"), ("targets", ["th", "de"])],
)
def test_how_a_run_is_kept_is_not_what_it_is(load, field, other):
    same = {**FIELDS, "targets": ["de", "th"]}
    assert len(select_runs(load(("gu", 0, same), ("gu", 1, {**same, field: other}))).groups) == 1


def test_one_schedule_with_two_intervals_is_two_schedules_and_a_baseline_without_one_is_one(load):
    runs = load(
        *((name, seed, {"every": every, "schedule": name.split("-")[0]})
          for name, every in (("gu-a", 5), ("gu-b", 20), ("standard-a", 50), ("standard-b", 20)) for seed in (0, 1))
    )  # fmt: skip
    (group,) = select_runs(runs).groups
    named = dict(zip(group.names, group.runs.runs["schedule"], strict=True))
    assert {named[run] for run in named if run.startswith("gu-a")} == {"gu (every 5)"}
    assert {named[run] for run in named if run.startswith("gu-b")} == {"gu (every 20)"}
    assert {named[run] for run in named if run.startswith("standard")} == {"standard"}
    (together,) = select_runs(runs, across=["schedule.every"]).groups
    assert set(together.runs.runs["schedule"]) == {"gu", "standard"}


def test_options_of_a_schedule_are_part_of_its_name_where_they_differ(load):
    runs = load(
        ("fun-a", 0, {"schedule": "fun", "schedule_first": "select"}), ("fun-b", 0, {"schedule": "fun"})
    )
    assert sorted(select_runs(runs).groups[0].runs.runs["schedule"]) == ["fun", "fun (first select)"]


def test_the_interval_of_a_tracked_script_is_that_of_its_probes(load):
    with pytest.raises(InputError, match=r"differ in tracking\.every"):
        select_runs(
            load(("a", 0, {"schedule": None, "every": "5"}), ("b", 0, {"schedule": None, "every": "20"}))
        )


def test_a_field_that_no_run_has_cannot_be_passed_over(study):
    with pytest.raises(InputError, match="no run has a field 'speed'"):
        select_runs(study, across=["speed"])


def test_a_change_of_estimator_when_a_run_was_resumed_is_seen(tmp_path, run_writer):
    for seed in (0, 1):
        run_writer(tmp_path, "gu", seed, status=None)
    start = read_run(tmp_path / "gu-1").start
    for seed, labels in ((0, "exact"), (1, "mc")):
        again = {
            "factors": start["factors"] | {"seed": seed},
            "estimator": start["estimator"] | {"labels": labels},
        }
        with JournalWriter.open(tmp_path / f"gu-{seed}", again, resumed_from_step=500) as writer:
            writer.close("finished", step=510)
    runs = load_runs(tmp_path)
    assert runs.runs["estimator_labels"].tolist() == ["exact", "exact, then mc"]
    with pytest.raises(InputError, match=r"differ in estimator_labels.*exact, then mc: gu-1"):
        select_runs(runs)


def test_an_attempt_that_began_anew_supersedes_the_estimator_before_it(tmp_path, run_writer):
    run_writer(tmp_path, "gu", 0, status=None)
    start = read_run(tmp_path / "gu-0").start
    again = {"factors": start["factors"], "estimator": start["estimator"] | {"labels": "mc"}}
    with JournalWriter.open(tmp_path / "gu-0", again, resumed_from_step=0) as writer:
        writer.close("finished", step=510)
    assert load_runs(tmp_path).runs["estimator_labels"].tolist() == ["mc"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("/home/me/models/mini", "mini"),
        ("../models/mini", "mini"),
        ("~/runs/mini/model", "mini"),
        ("org/mini", "org/mini"),
        ("mini", "mini"),
    ],
)
def test_of_a_folder_on_somebodys_machine_its_name_is_shown(value, text):
    assert shown(value) == text
