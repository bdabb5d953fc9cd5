"""Runs that strangers made or a disk has damaged: each is read by itself, and nothing is left out in silence."""

import io
import json
import os
import shutil

import pytest
from rich.console import Console

from fishlens import InputError, load_runs
from fishlens.journal import JournalWriter, export_runs, find_runs, read_run
from fishlens.sweep.plan import state_of
from fishlens.tracking.watch import watch

ESCAPE = "\x1b]0;PWNED\x07\x1b[2J"


def write_run(place, seed=0, **factors):
    start = {
        "factors": {"task": "topic", "schedule": "gu", "seed": seed, **factors},
        "blocks": {"low": 4, "head": 2},
    }
    start |= {"estimator": {"labels": "exact", "examples": 8}, "seeds": {"run": seed}, "device": "cpu"}
    with JournalWriter.open(place, start) as journal:
        for step in (0, 10):
            journal.write(
                "fisher", step, trace={"low": 2.0, "head": 1.0}, stderr={"low": 0.1, "head": 0.1}, examples=8,
                trainable={"low": False, "head": True}, purpose="track", seconds=0.1, overhead=0.02, weight_norm=None,
            )  # fmt: skip
            journal.write(
                "unfreeze", step, event=step // 10, chosen=["low"], trainable=["head"], scores={"low": 1.0},
                stderr={"low": 0.1}, runner_up="low", margin=1.5, examples=8,
            )  # fmt: skip
            journal.write(
                "train", step, loss=0.5, learning_rate=1e-3, gradient_norm=1.0, epoch=0.1, seconds=1.0
            )
            journal.write(
                "eval",
                step,
                split="test",
                language="de",
                metric="f1",
                value=50.0,
                headline=True,
                examples=9,
                best=True,
            )
        journal.write("note", 10, level="warning", text="a note")
        journal.close("finished", step=10, best_step=10)
    return place


@pytest.fixture
def runs(tmp_path):
    for seed in range(3):
        write_run(tmp_path / "runs" / f"gu-{seed}", seed)
    return tmp_path / "runs"


def names(loaded):
    return sorted(loaded.runs.run.astype(str))


def damage_empty(place):
    place.mkdir()
    (place / "journal-1.jsonl").touch()


def damage_torn(place):
    place.mkdir()
    (place / "journal-1.jsonl").write_text('{"kind":"start","format":1,"att')


def damage_newer(place):
    place.mkdir()
    (place / "journal-1.jsonl").write_text('{"kind":"start","format":99,"attempt":1}\n')


def damage_pipe(place):
    place.mkdir()
    os.mkfifo(place / "journal-1.jsonl")


def damage_folder(place):
    (place / "journal-1.jsonl").mkdir(parents=True)


@pytest.mark.parametrize("damage", [damage_empty, damage_torn, damage_newer, damage_pipe, damage_folder])
def test_one_bad_run_is_named_and_the_others_are_loaded(runs, damage):
    damage(runs / "bad")
    loaded = load_runs(runs)
    assert names(loaded) == ["gu-0", "gu-1", "gu-2"]
    ((path, reason),) = [(one.path, one.reason) for one in loaded.left_out]
    assert path == runs / "bad" and "journal" in reason
    with pytest.raises(InputError, match="bad"):
        load_runs(runs, strict=True)
    with pytest.raises(InputError, match="the run cannot be read"):
        load_runs(runs / "bad")


def test_a_run_inside_a_folder_of_runs_hides_none_of_them(runs):
    write_run(runs / "inside", seed=9)
    for file in (runs / "inside").iterdir():
        file.rename(runs / file.name)
    assert len(load_runs(runs).runs) == 4


def test_runs_behind_links_are_found_and_each_counts_once(runs, tmp_path):
    (runs / "gu-0").rename(tmp_path / "elsewhere")
    (runs / "gu-0").symlink_to(tmp_path / "elsewhere")
    (runs / "latest").symlink_to("gu-2")
    (runs / "loop").symlink_to(runs)
    (runs / "gone").symlink_to(tmp_path / "nowhere")
    loaded = load_runs(runs)
    assert len(loaded.runs) == 3
    assert [(one.path.name, one.reason) for one in loaded.left_out] == [("gone", "a link that leads nowhere")]
    assert find_runs([runs / "gu-1", os.path.relpath(runs / "gu-1")]) == [runs / "gu-1"]
    assert len(find_runs(str(runs / "*"))) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_named(runs):
    (runs / "gu-0").chmod(0)
    try:
        ((path, reason),) = [(one.path, one.reason) for one in load_runs(runs).left_out]
        assert path == runs / "gu-0" and "Permission denied" in reason
    finally:
        (runs / "gu-0").chmod(0o755)


def test_exported_runs_among_runs_hide_none_and_count_once(runs):
    export_runs(load_runs(runs), runs)
    write_run(runs / "new", seed=9)
    loaded = load_runs(runs)
    assert names(loaded) == ["gu-0", "gu-1", "gu-2", "new"]
    ((path, reason),) = [(one.path, one.reason) for one in loaded.left_out]
    assert path == runs / "runs.parquet" and reason.startswith("3 of its runs are counted once: gu-0 as ")


def test_the_same_run_twice_counts_once_whichever_got_further(runs, tmp_path):
    backup = tmp_path / "backup" / "old"
    shutil.copytree(runs / "gu-1", backup)
    lines = (backup / "journal-1.jsonl").read_text().splitlines(keepends=True)
    (backup / "journal-1.jsonl").write_text("".join(lines[:4]))
    loaded = load_runs([runs, tmp_path / "backup"])
    assert names(loaded) == ["gu-0", "gu-1", "gu-2"]
    assert loaded.left_out[0].path == backup and "the same run as" in loaded.left_out[0].reason
    assert len(load_runs([runs, tmp_path / "backup"], copies=True).runs) == 4


def test_copies_of_runs_from_before_runs_had_an_id_count_once_too(runs, tmp_path):
    journal = runs / "gu-1" / "journal-1.jsonl"
    start, rest = journal.read_text().split("\n", 1)
    old = {key: value for key, value in json.loads(start).items() if key not in ("id", "minor")}
    journal.write_text(json.dumps(old) + "\n" + rest)
    shutil.copytree(runs / "gu-1", tmp_path / "copy")
    assert len(load_runs([runs, tmp_path / "copy"]).runs) == 3


def test_attempts_of_one_run_have_one_identity_and_runs_have_their_own(runs):
    JournalWriter.open(runs / "gu-0", {}, resumed_from_step=10).close("finished")
    ids = [read_run(runs / f"gu-{seed}").id for seed in range(3)]
    assert len(set(ids)) == 3 and read_run(runs / "gu-0").start["id"] == ids[0]


def test_a_missing_attempt_is_said_and_strict_refuses(runs):
    place = runs / "gu-0"
    JournalWriter.open(place, {}, resumed_from_step=5).close("finished", step=10)
    (place / "journal-1.jsonl").unlink()
    loaded = load_runs(place)
    assert loaded.runs.damaged.tolist() == [1]
    assert "journal-1.jsonl is missing, and with it records up to step 5" in loaded.notes.text[0]
    with pytest.raises(InputError, match=r"journal-1\.jsonl is missing"):
        load_runs(place, strict=True)


def test_a_file_that_is_no_attempts_journal_changes_nothing(runs):
    (runs / "gu-0" / "journal-1 (2).jsonl").write_text("{}\n")
    assert state_of(runs / "gu-0")[0].value == "finished" and load_runs(
        runs / "gu-0"
    ).runs.attempts.tolist() == [1]


def test_a_clock_that_was_set_back_gives_no_duration(runs):
    journal = runs / "gu-0" / "journal-1.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    lines[-1]["time"] = lines[0]["time"] - 1e9
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert state_of(runs / "gu-0") == ("finished", None)


def test_no_name_out_of_a_journal_or_of_a_folder_carries_a_control_sequence(tmp_path):
    place = write_run(tmp_path / f"x{ESCAPE}", schedule=ESCAPE, other="a\u202eb")
    journal = place / "journal-1.jsonl"
    journal.write_text(journal.read_text().replace('"language":"de"', f'"language":{json.dumps(ESCAPE)}'))
    loaded = load_runs(tmp_path)
    for table in ("runs", "evaluation", "notes"):
        text = getattr(loaded, table).drop(columns="path", errors="ignore").to_csv()
        assert "PWNED" in text or table == "notes"
        assert not {"\x1b", "\x07", "\u202e"} & set(text)


STRANGE = {
    "null": None, "true": True, "text": "abc", "empty": "", "list": [1], "names": ["x"], "object": {"x": 1},
    "by block": {"low": "abc"}, "lists by block": {"low": [1, 2]}, "negative": -5, "part": 1.5, "big": 10**30,
    "1e18": 10**18, "NaN": "NaN", "Infinity": "Infinity", "no block": {}, "none": [], "missing": "@missing",
    "raw NaN": "@NaN", "raw Infinity": "@Infinity", "raw 1e400": "@1e400", "raw huge": "@" + "9" * 5000,
    "deep": "@" + "[" * 3000 + "]" * 3000,
}  # fmt: skip


def changed(record, field, value):
    """The record's line with this value in the field; `@…` stands there as it is."""
    record = {**record, field: value}
    if value == "@missing":
        del record[field]
    line = json.dumps(record)
    if isinstance(value, str) and value.startswith("@"):
        line = line.replace(json.dumps(value), value[1:])
    return line


@pytest.mark.parametrize("kind", ["start", "fisher", "unfreeze", "train", "eval", "note", "end"])
def test_no_field_of_any_type_is_more_than_one_sentence(runs, tmp_path, kind):
    """Every field of every kind of record set to every strange value, one at a time: refused, left out, or read."""
    lines = (runs / "gu-0" / "journal-1.jsonl").read_text().splitlines()
    position = next(i for i, line in enumerate(lines) if line.startswith(f'{{"kind":"{kind}"'))
    record = json.loads(lines[position])
    strange = tmp_path / "strange"
    for field in dict.fromkeys([*record, "lost", "estimator", "language"]):
        for name, value in STRANGE.items():
            place = strange / f"{field} {name}"
            place.mkdir(parents=True)
            changed_lines = [*lines[:position], changed(record, field, value), *lines[position + 1 :]]
            (place / "journal-1.jsonl").write_text("\n".join(changed_lines) + "\n")
    loaded = load_runs(strange, copies=True)
    places = sorted(strange.iterdir())
    assert len(loaded.runs) + len(loaded.left_out) == len(places)
    failed = []
    for place in places:
        try:
            assert state_of(place)
            watch(place, Console(file=io.StringIO(), width=100), once=True)
        except InputError:
            continue
        except Exception as error:
            failed.append((place.name, repr(error)[:80]))
    assert not failed, f"{len(failed)} of them: {failed[:5]}"


def test_an_export_without_a_column_or_with_another_type_is_one_sentence(runs, tmp_path):
    from pyarrow import parquet

    folder = tmp_path / "data"
    export_runs(load_runs(runs), folder)
    failed = []
    for file in sorted(folder.glob("*.parquet")):
        whole = parquet.read_table(file)
        for column in whole.column_names:
            at = whole.column_names.index(column)
            for strange in (
                whole.drop_columns([column]),
                whole.set_column(at, column, [[["x"]] * len(whole)]),
            ):
                parquet.write_table(strange, file)
                try:
                    load_runs(folder)
                except InputError:
                    pass
                except Exception as error:
                    failed.append((file.name, column, repr(error)[:80]))
        parquet.write_table(whole, file)
    assert not failed, f"{len(failed)} of them: {failed[:5]}"


def test_tables_of_two_exports_in_one_folder_are_refused(runs, tmp_path):
    export_runs(load_runs(runs / "gu-0"), tmp_path / "one")
    export_runs(load_runs(runs / "gu-1"), tmp_path / "two")
    shutil.copy(tmp_path / "two" / "fisher.parquet", tmp_path / "one" / "fisher.parquet")
    with pytest.raises(InputError, match=r"fisher\.parquet is part of another export"):
        load_runs(tmp_path / "one")


def test_what_was_left_out_is_still_said_when_an_export_is_read(runs, tmp_path):
    damage_empty(runs / "bad")
    export_runs(load_runs(runs), tmp_path / "data")
    assert [one.path.name for one in load_runs(tmp_path / "data").left_out] == ["bad"]
