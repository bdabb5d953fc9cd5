"""Exported runs are read back as the journals themselves would be."""

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from fishlens import InputError, load_runs
from fishlens.journal import JournalWriter, export_runs
from fishlens.journal.runs import COLUMNS, TABLES


def write_run(run_dir, schedule, blocks=("low", "middle", "high", "head"), **factors):
    start = {
        "factors": {"task": "toy", "schedule": schedule, **factors},
        "blocks": dict.fromkeys(blocks, 10),
        "estimator": {"labels": "exact", "examples": 32},
    }
    with JournalWriter.open(run_dir, start) as journal:
        for step in range(3):
            journal.write(
                "fisher", step, purpose="track", examples=32,
                trace={block: step + i / 10 for i, block in enumerate(blocks)},
                stderr=dict.fromkeys(blocks, 0.1),
                trainable={block: block == "head" for block in blocks},
            )  # fmt: skip
        journal.write("unfreeze", 1, event=0, chosen=["high", "low"], runner_up="middle", trainable=["head"])
        journal.write("train", 2, loss=0.5, learning_rate=1e-3, gradient_norm=1.0, epoch=0.1, seconds=2.0)
        journal.write("eval", 2, split="test", language="de", metric="f1", value=50.0, headline=True)
        journal.write("note", 2, level="info", text="a note, with <markup>")
        journal.close("finished", step=2, best_step=2)


@pytest.fixture
def runs_dir(tmp_path):
    write_run(tmp_path / "runs" / "a", "gu", confident=True)
    write_run(tmp_path / "runs" / "b", "fun", seed="three")
    return tmp_path / "runs"


def test_what_is_read_back_is_what_the_journals_say(runs_dir, tmp_path):
    loaded = load_runs(runs_dir)
    counts = export_runs(loaded, tmp_path / "data")
    again = load_runs(tmp_path / "data")
    assert counts["fisher"] == 2 * 3 * 4
    for table in TABLES:
        pd.testing.assert_frame_equal(getattr(again, table), getattr(loaded, table))
    same = [name for name in loaded.runs if name != "confident"]
    pd.testing.assert_frame_equal(again.runs[same], loaded.runs[same], check_dtype=False)


def test_a_factor_that_only_some_runs_have_stays_absent_in_the_others(runs_dir, tmp_path):
    """`confident` is true in one run and unknown in the other: text, but never the text "nan"."""
    export_runs(load_runs(runs_dir), tmp_path / "data")
    there = load_runs(tmp_path / "data").runs.set_index("run")
    assert there.confident["a"] == "True" and pd.isna(there.confident["b"])


def test_blocks_keep_their_order_from_bottom_to_top(runs_dir, tmp_path):
    """Parquet knows categories only in the order in which they occur: `high` is thawed before `low`."""
    export_runs(load_runs(runs_dir), tmp_path / "data")
    again = load_runs(tmp_path / "data")
    assert list(again.unfreezing.block.cat.categories) == ["low", "middle", "high", "head"]
    assert list(again.unfreezing.block) == ["high", "low"] * 2


def test_frames_that_are_not_wanted_are_empty(runs_dir, tmp_path):
    export_runs(load_runs(runs_dir), tmp_path / "data")
    again = load_runs(tmp_path / "data", tables=["evaluation"])
    assert len(again.evaluation) == 2 and not len(again.fisher) and list(again.fisher)


@pytest.mark.parametrize("content", [None, b"", b"not parquet at all"])
def test_a_missing_or_broken_file_is_named(runs_dir, tmp_path, content):
    export_runs(load_runs(runs_dir), tmp_path / "data")
    there = tmp_path / "data" / "fisher.parquet"
    there.unlink() if content is None else there.write_bytes(content)
    with pytest.raises(InputError, match=r"fisher\.parquet is (missing|no Parquet file)"):
        load_runs(tmp_path / "data")


def test_a_file_that_cannot_be_written_leaves_the_old_one(runs_dir, tmp_path, monkeypatch):
    loaded = load_runs(runs_dir)
    export_runs(loaded, tmp_path / "data")
    before = (tmp_path / "data" / "runs.parquet").read_bytes()

    def full(table, path, **options):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet, "write_table", full)
    with pytest.raises(InputError, match=r"runs\.parquet cannot be written: No space left on device"):
        export_runs(loaded, tmp_path / "data")
    assert (tmp_path / "data" / "runs.parquet").read_bytes() == before
    assert not list((tmp_path / "data").glob(".*"))


@pytest.mark.parametrize(
    ("table", "column", "value", "said"),
    [
        ("evaluation", "value", 150.0, r"row 2: value is 150; expected a number from -100 to 100"),
        ("evaluation", "value", float("inf"), r"row 2: value is inf; expected a number from -100 to 100"),
        ("fisher", "trace", -1.0, r"row 2: trace is -1; expected 0 or more"),
        ("training", "step", -5, r"row 2: step is -5; expected a whole number, 0 or more"),
    ],
)
def test_a_number_that_cannot_be_is_refused_before_it_is_exported_and_when_it_is_read(
    runs_dir, tmp_path, table, column, value, said
):
    loaded = load_runs(runs_dir)
    export_runs(loaded, tmp_path / "data")
    frame = getattr(loaded, table)
    frame.loc[frame.index[1], column] = value
    with pytest.raises(InputError, match=rf"{table} cannot be exported: {said}"):
        export_runs(loaded, tmp_path / "new")
    assert not (tmp_path / "new").exists()

    there = tmp_path / "data" / f"{table}.parquet"
    stored = parquet.read_table(there)
    at = stored.column_names.index(column)
    changed = stored.column(column).to_pylist()
    changed[1] = value
    parquet.write_table(
        stored.set_column(at, stored.schema.field(at), pa.array(changed, stored.schema.field(at).type)), there
    )
    with pytest.raises(InputError, match=rf"{table}\.parquet, {said}"):
        load_runs(tmp_path / "data")


def test_two_runs_of_one_name_in_an_export_are_refused(runs_dir, tmp_path):
    export_runs(load_runs(runs_dir), tmp_path / "data")
    there = tmp_path / "data" / "runs.parquet"
    stored = parquet.read_table(there)
    parquet.write_table(pa.concat_tables([stored, stored.slice(0, 1)]), there)
    with pytest.raises(InputError, match=r"runs\.parquet has two runs called 'a'"):
        load_runs(tmp_path / "data")


def test_an_export_without_a_column_is_refused_with_its_name(runs_dir, tmp_path):
    export_runs(load_runs(runs_dir), tmp_path / "data")
    last = [(name, COLUMNS[name][-1].name) for name in TABLES]
    for name, column in (
        *last,
        ("runs", "status"),
        ("training", "step"),
        ("fisher", "run"),
        ("notes", "time"),
    ):
        there = tmp_path / "data" / f"{name}.parquet"
        whole = parquet.read_table(there)
        parquet.write_table(whole.drop_columns([column]), there)
        with pytest.raises(InputError, match=rf"{name}\.parquet has no column '{column}'"):
            load_runs(tmp_path / "data")
        parquet.write_table(whole, there)


def test_tables_of_others_are_not_overwritten_and_exports_of_ours_are(tmp_path):
    write_run(tmp_path / "runs" / "a", "gu")
    runs, folder = load_runs(tmp_path / "runs"), tmp_path / "data"
    folder.mkdir()
    theirs = pd.DataFrame({"mine": [1, 2]})
    theirs.to_parquet(folder / "evaluation.parquet")
    with pytest.raises(InputError, match=r"evaluation\.parquet is not an export of fishlens"):
        export_runs(runs, folder)
    assert [path.name for path in folder.iterdir()] == ["evaluation.parquet"]
    assert pd.read_parquet(folder / "evaluation.parquet").equals(theirs)
    (folder / "evaluation.parquet").unlink()
    assert export_runs(runs, folder) == export_runs(runs, folder)


def test_an_export_that_fails_leaves_the_one_before_as_it_was(tmp_path, monkeypatch):
    write_run(tmp_path / "runs" / "a", "gu")
    runs, folder = load_runs(tmp_path / "runs"), tmp_path / "data"
    export_runs(runs, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write, written = parquet.write_table, []

    def full_at_the_third(*arguments, **options):
        written.append(1)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        write(*arguments, **options)

    monkeypatch.setattr(parquet, "write_table", full_at_the_third)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        export_runs(runs, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
