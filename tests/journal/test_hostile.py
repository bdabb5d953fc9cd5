"""Files that were made to take all memory, all time or the terminal of whoever reads them."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from fishlens import InputError, load_runs
from fishlens.journal import JournalWriter, ends, export_runs, lease, provenance, read_run, reader
from fishlens.journal.follow import Follower
from fishlens.tracking.overview import Overview


@pytest.fixture
def run(tmp_path):
    with JournalWriter.open(tmp_path / "run", {"factors": {"task": "t"}, "blocks": {"a": 1}}) as journal:
        journal.write("train", 1, loss=0.5)
        journal.write("note", 1, level="info", text="fine")
        journal.close("finished", step=1)
    return tmp_path / "run"


def put_into(run, middle):
    journal = run / "journal-1.jsonl"
    start, *rest = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(start + middle + b"".join(rest))


def test_a_line_longer_than_any_record_costs_that_line_and_no_more_memory(run, monkeypatch):
    for module in (ends, reader, sys.modules["fishlens.journal.follow"]):
        if hasattr(module, "LONGEST"):
            monkeypatch.setattr(module, "LONGEST", 1000)
    put_into(run, b'{"kind":"train","step":1,"loss":' + b"9" * 12_345 + b"}\n")
    assert [one["kind"] for one in read_run(run).records] == ["train", "note", "end"]
    assert len(read_run(run).damaged) == 1 and read_run(run).status == "finished"
    assert Follower(run, lambda: Overview(run)).look().status == "finished"
    (run / "journal-1.jsonl").write_bytes(b"x" * 5000)
    with pytest.raises(InputError, match="line 1: expected the start record"):
        read_run(run)


def test_of_a_hundred_thousand_lines_that_are_no_records_a_thousand_are_named_and_all_counted(run):
    put_into(run, b"\n" * 50_000 + b'{"kind":"strange"}\n' * 50_000)
    read = read_run(run)
    assert len(read.damaged) == reader.MOST_DAMAGED and read.status == "finished"
    loaded = load_runs(run)
    assert loaded.runs.damaged.tolist() == [100_000]
    assert len(loaded.notes) == reader.MOST_DAMAGED + 2
    assert "99000 more lines cannot be read" in set(loaded.notes.text)


def test_a_million_kinds_of_a_newer_version_are_passed_over(run):
    journal = run / "journal-1.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"minor":2', b'"minor":3'))
    put_into(run, b"".join(b'{"kind":"k%d"}\n' % number for number in range(200_000)))
    assert read_run(run).damaged == [] and load_runs(run).runs.damaged.tolist() == [0]


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 200_000, '{"kind":"train","step":1,"x":' + "[" * 100_000]
)
def test_nesting_without_end_costs_a_line(run, text):
    put_into(run, text.encode() + b"\n")
    assert len(read_run(run).damaged) == 1


def test_more_settings_than_a_table_has_columns_are_refused(run):
    journal = run / "journal-1.jsonl"
    start, *rest = journal.read_text().splitlines(keepends=True)
    many = {**json.loads(start), "factors": {f"f{number}": number for number in range(20_000)}}
    journal.write_text(json.dumps(many) + "\n" + "".join(rest))
    with pytest.raises(InputError, match="'start' record whose factors is"):
        load_runs(run)


def test_a_recipe_beside_an_old_journal_cannot_stand_for_more_than_it_says(run):
    lines = ["a0: &a0 {}"] + [f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}}}" for n in range(1, 60)]
    (run / "recipe.yaml").write_text("\n".join(lines))
    assert load_runs(run).runs.run.tolist() == ["run"]
    (run / "recipe.yaml").write_text("[" * 100_000)
    assert load_runs(run).runs.run.tolist() == ["run"]


def test_a_sign_of_life_is_a_small_file_and_nothing_else(run, tmp_path):
    journal = run / "journal-1.jsonl"
    os.mkfifo(lease.alive_file(journal))
    assert lease.signs(journal)[0] == b""
    lease.Heartbeat(journal).stop()
    lease.alive_file(journal).unlink(missing_ok=True)
    lease.alive_file(journal).symlink_to("/dev/zero")
    assert lease.signs(journal)[0] == b""
    lease.alive_file(journal).unlink()
    (tmp_path / "precious").write_text("mine")
    lease.alive_file(journal).symlink_to(tmp_path / "precious")
    lease.Heartbeat(journal).beat(1)
    assert (tmp_path / "precious").read_text() == "mine"


def test_an_export_that_says_it_is_larger_than_it_is_is_refused(run, tmp_path):
    export_runs(load_runs(run), tmp_path / "data")
    rows = 10_000_000
    names = [*parquet.read_schema(tmp_path / "data" / "training.parquet").names]
    same = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array(["run"]))
    table = pa.table(dict.fromkeys(names, same))
    parquet.write_table(table, tmp_path / "data" / "training.parquet", compression="zstd")
    assert (tmp_path / "data" / "training.parquet").stat().st_size < 1_000_000
    with pytest.raises(
        InputError, match=r"training\.parquet has \d+ bytes and says that it is 10000000 rows"
    ):
        load_runs(tmp_path / "data")


def test_a_long_text_that_stands_in_more_rows_than_there_is_memory_is_refused(run, tmp_path, monkeypatch):
    export_runs(load_runs(run), tmp_path / "data")
    file = tmp_path / "data" / "notes.parquet"
    table = parquet.read_table(file).take([0] * 20_000)
    text = pa.array(["x" * 10_000]).take(pa.array(np.zeros(len(table), np.int64)))
    table = table.set_column(table.column_names.index("text"), "text", text)
    parquet.write_table(table, file)
    assert file.stat().st_size < 100_000
    assert len(load_runs(tmp_path / "data").notes) == 20_000
    monkeypatch.setattr("fishlens.journal.parquet._UNPACKED", 2**27)
    with pytest.raises(InputError, match="the texts of column 'text' take 200000000 bytes"):
        load_runs(tmp_path / "data")


@pytest.mark.parametrize("name", ["runs.parquet", "fisher.parquet"])
def test_an_export_with_a_pipe_in_it_is_not_waited_for(run, tmp_path, name):
    export_runs(load_runs(run), tmp_path / "data")
    (tmp_path / "data" / name).unlink()
    os.mkfifo(tmp_path / "data" / name)
    with pytest.raises(InputError, match=r"holds no run|not a regular file"):
        load_runs(tmp_path / "data")


def test_no_name_out_of_an_export_carries_a_control_sequence(tmp_path):
    evil = "\x1b]0;PWNED\x07\u202e12"
    with JournalWriter.open(
        tmp_path / "run", {"factors": {"task": "plain"}, "blocks": {"block": 1}}
    ) as journal:
        journal.write("eval", 1, split="test", language="lang", metric="metric", value=1.0, headline=True)
        journal.write("note", 1, level="info", text="text")
        journal.close("failed", error="why")
    loaded = load_runs(tmp_path / "run")
    for table in ("runs", "evaluation", "notes"):
        frame = getattr(loaded, table)
        for column in frame.columns:
            if frame[column].dtype == object and column not in ("path", "id"):
                frame[column] = frame[column].map(
                    lambda value: f"{value}{evil}" if isinstance(value, str) else value
                )
            elif isinstance(frame[column].dtype, pd.CategoricalDtype):
                frame[column] = frame[column].cat.rename_categories(lambda value: f"{value}{evil}")
    loaded.runs[f"factor{evil}"] = "x"
    export_runs(loaded, tmp_path / "data")
    again = load_runs(tmp_path / "data")
    for table in ("runs", "evaluation", "notes"):
        text = getattr(again, table).to_csv()
        assert "PWNED" in text and not {"\x1b", "\x07", "\u202e"} & set(text)


def test_a_stranger_s_repository_runs_nothing_when_its_commit_is_asked_for(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-c", "user.email=a@b", "-c", "user.name=a", *words], cwd=tmp_path, check=True)

    git("init", "-q")
    (tmp_path / ".gitattributes").write_text("*.txt filter=evil\n")
    (tmp_path / "a.txt").write_text("a")
    git("add", "-A")
    git("commit", "-qm", "x")
    run_it = f"touch {tmp_path / 'SPRUNG'}; cat"
    for name in ("filter.evil.clean", "core.fsmonitor", "filter.evil.process", "core.sshCommand"):
        git("config", name, run_it)
    (tmp_path / "a.txt").write_text("b")
    provenance._state_of.cache_clear()
    found = provenance._state_of(str(tmp_path))
    assert found is not None and found["changed"] is True and len(found["commit"]) == 40
    assert not (tmp_path / "SPRUNG").exists()
