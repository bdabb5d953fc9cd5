"""Exports of several machines, and journals beside them, are read together; every run counts once."""

import os
import shutil

import pandas as pd
import pytest
from pyarrow import parquet

from fishlens import InputError, load_runs
from fishlens.journal import JournalWriter, export_runs
from fishlens.journal.runs import TABLES

BLOCKS = ("low", "high", "head")


def write_run(place, seed=0, steps=2, blocks=BLOCKS, **factors):
    start = {"factors": {"task": "topic", "seed": seed, **factors}, "blocks": dict.fromkeys(blocks, 3)}
    with JournalWriter.open(place, start) as journal:
        for step in range(1, steps + 1):
            journal.write(
                "fisher", step, trace=dict.fromkeys(blocks, step + seed / 10), purpose="track",
                stderr=dict.fromkeys(blocks, 0.1), trainable=dict.fromkeys(blocks, True),
            )  # fmt: skip
            journal.write("train", step, loss=1 / step)
            journal.write("eval", step, split="test", language=f"l{seed}", metric="f1", value=50.0)
        journal.write("note", steps, level="info", text=f"of {seed}")
        journal.close("finished", step=steps)


@pytest.fixture
def three(tmp_path):
    """One study in three places: an export of a machine, an export of another, and journals here."""
    for seed in range(4):
        write_run(tmp_path / "runs" / f"r{seed}", seed)
    for name, some in (("here", (0, 1)), ("there", (1, 2))):
        export_runs(load_runs([tmp_path / "runs" / f"r{seed}" for seed in some]), tmp_path / "data" / name)
    whole = load_runs(tmp_path / "runs")
    for seed in (0, 1, 2):
        shutil.rmtree(tmp_path / "runs" / f"r{seed}")
    return tmp_path, whole


def _plain(frame):
    """Its rows run by run, nothing as None."""
    rows = frame.astype(object).sort_values("run", kind="stable").reset_index(drop=True)
    return rows.where(rows.notna(), None)


def test_exports_and_journals_are_read_as_if_all_lay_in_one_folder(three):
    place, whole = three
    loaded = load_runs([place / "runs", place / "data"])
    assert sorted(loaded.runs.run) == ["r0", "r1", "r2", "r3"]
    assert [one.path for one in loaded.left_out] == [place / "data" / "there" / "runs.parquet"]
    assert (
        loaded.left_out[0].reason == f"1 of its runs are counted once: r1 as {place / 'data' / 'here' / 'r1'}"
    )
    for table in ("runs", *TABLES):
        expected, found = (_plain(getattr(some, table)) for some in (whole, loaded))
        pd.testing.assert_frame_equal(found, expected, check_like=True, check_dtype=False)
    assert list(loaded.fisher.block.cat.categories) == list(BLOCKS)
    assert loaded.fisher.trainable.dtype == bool and loaded.fisher.step.dtype == "int64"
    assert len(load_runs(place / "data", copies=True).runs) == 4


def test_a_column_that_one_export_has_empty_is_the_others(tmp_path):
    """One machine measured target languages, the other did not; one scored nothing."""
    write_run(tmp_path / "runs" / "r0", 0)
    write_run(tmp_path / "runs" / "r1", 1)
    with JournalWriter.open(
        tmp_path / "runs" / "r2", {"factors": {"seed": 2}, "blocks": {"low": 3}}
    ) as journal:
        for language in (None, "de"):
            journal.write(
                "fisher", 1, trace={"low": 1.0}, stderr={"low": 0.1}, trainable={"low": True}, purpose="track",
                **({"language": language} if language else {}),
            )  # fmt: skip
        journal.close("finished", step=1)
    for orders in (["r0", "r2"], ["r2", "r0"]):
        for name in orders:
            export_runs(load_runs(tmp_path / "runs" / name), tmp_path / "data" / name)
        loaded = load_runs([tmp_path / "data" / name for name in orders])
        whole = load_runs([tmp_path / "runs" / name for name in orders])
        for table in TABLES:
            found, expected = (_plain(getattr(some, table)) for some in (loaded, whole))
            pd.testing.assert_frame_equal(found, expected, check_like=True, check_dtype=False)
        assert loaded.fisher_series["language"].tolist() == ["de"]


def test_of_copies_the_one_that_got_furthest_is_read(three, tmp_path):
    place, _ = three
    journal = JournalWriter.open(place / "runs" / "r3", {"factors": {"seed": 3}}, resumed_from_step=2)
    export_runs(load_runs(place / "runs"), place / "old")
    journal.write("train", 3, loss=0.1)
    journal.close("finished", step=3)
    for order in ([place / "runs", place / "old"], [place / "old", place / "runs"]):
        loaded = load_runs(order)
        assert loaded.runs.steps.tolist() == [3] and loaded.training.step.max() == 3


def test_two_runs_of_one_name_are_called_by_their_exports(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        write_run(tmp_path / name / "run", seed)
        export_runs(load_runs(tmp_path / name), tmp_path / "data" / name)
    loaded = load_runs(tmp_path / "data")
    assert sorted(loaded.runs.run) == [f"{tmp_path}/data/a/run", f"{tmp_path}/data/b/run"]
    assert dict(zip(loaded.runs.run, loaded.runs.seed, strict=True))[f"{tmp_path}/data/b/run"] == 2


def without_ids(folder):
    """As exports were before they held ids."""
    for file in folder.glob("*.parquet"):
        table = parquet.read_table(file)
        about = table.schema.metadata[b"fishlens.export"].replace(b'"minor": 2', b'"minor": 1')
        if "id" in table.column_names:
            table = table.drop_columns(["id"])
        parquet.write_table(
            table.replace_schema_metadata({**table.schema.metadata, b"fishlens.export": about}), file
        )


def test_exports_without_ids_are_told_by_when_a_run_began(three):
    place, _ = three
    for name in ("here", "there"):
        without_ids(place / "data" / name)
    loaded = load_runs(place / "data")
    assert sorted(loaded.runs.run) == ["r0", "r1", "r2"] and loaded.runs.id.isna().all()
    assert len(load_runs(place / "data" / "here").runs) == 2


def test_one_bad_export_is_named_and_the_others_are_read(three):
    place, _ = three
    (place / "data" / "here" / "fisher.parquet").write_bytes(b"PAR1")
    loaded = load_runs(place / "data")
    assert sorted(loaded.runs.run) == ["r1", "r2"]
    assert "fisher.parquet is no Parquet file" in loaded.left_out[0].reason
    with pytest.raises(InputError, match="no Parquet file"):
        load_runs(place / "data", strict=True)
    (place / "data" / "there" / "runs.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="none of 2 exports can be read"):
        load_runs(place / "data")


@pytest.mark.parametrize("instead", ["nothing", "a pipe", "a folder"])
def test_an_export_without_its_list_of_runs_is_named(three, instead):
    place, _ = three
    (listed := place / "data" / "here" / "runs.parquet").unlink()
    if instead == "a pipe":
        os.mkfifo(listed)
    elif instead == "a folder":
        listed.mkdir()
    loaded = load_runs(place / "data")
    assert sorted(loaded.runs.run) == ["r1", "r2"]
    assert [one.path for one in loaded.left_out] == [place / "data" / "here"]
    with pytest.raises(InputError, match=r"runs\.parquet"):
        load_runs(place / "data", strict=True)


def test_runs_with_other_fields_and_blocks_stand_together(tmp_path):
    write_run(tmp_path / "runs" / "a", 1, rate=0.5)
    write_run(tmp_path / "old" / "b", 2, blocks=("embeddings", "low"), layers=[1, 2])
    export_runs(load_runs(tmp_path / "old"), tmp_path / "data")
    loaded = load_runs([tmp_path / "runs", tmp_path / "data"])
    rows = loaded.runs.set_index("run")
    assert rows.rate["a"] == 0.5 and pd.isna(rows.rate["b"]) and rows.layers["b"] == "1,2"
    assert list(loaded.fisher.block.cat.categories) == [*BLOCKS, "embeddings"]
