"""Every command that writes, on a disk that refuses one of its operations: one sentence, nothing half-written.

The operations are counted by an undisturbed run, and then refused one after the other (some of them; all with
FISHLENS_FAULTS=all). Afterwards every file is what it was before or what the undisturbed run wrote.
"""

import contextlib
import shutil
from importlib import import_module

import pytest
from faultydisk import Disk, chosen
from fishlens.analysis.report import build_report
from pyarrow import parquet
from typer.testing import CliRunner

from fishlens.cli import app
from fishlens.errors import InputError
from fishlens.journal import JournalWriter, export_runs, load_runs, read_run
from fishlens.pretraining import encoder, language_adapter
from fishlens.training import checkpoint

reporting = import_module("fishlens.cli.report")  # (the package's `report` is the command)
NATIVE = ((parquet, "write_table", 1), (checkpoint, "save_file", 1))
SOME = 8


def files_in(folder):
    """{name: content}, without the hidden ones: a disk that refuses to remove a file keeps it."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def refuse_each(folder, before, do, some=SOME):
    """`do()` in `folder`, which is as `before` each time; yields what was refused, its files, and those of a run that
    nothing was refused to."""

    def begin():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(before, folder)

    begin()
    disk = Disk(folder, native=NATIVE)
    with disk.watched():
        do()
    whole = files_in(folder)
    assert len(disk.done) > 3
    for number in chosen(disk.done, some):
        begin()
        with Disk(folder, refused=number, native=NATIVE).watched():
            try:
                do()
            except InputError as error:
                assert "\n" not in str(error)
            except OSError as error:
                pytest.fail(f"{disk.done[number]}: {type(error).__name__}: {error}")
        yield disk.done[number], files_in(folder), whole


@pytest.fixture
def runs(tmp_path):
    for schedule in ("gu", "fun"):
        for seed in range(2):
            factors = {"task": "topic", "schedule": schedule, "seed": seed, "source": "en"}
            start = {"factors": factors, "blocks": {"low": 1, "head": 1}}
            with JournalWriter.open(tmp_path / "runs" / f"{schedule}-{seed}", start) as journal:
                for split, language in (("validation", "en"), ("test", "de")):
                    journal.write(
                        "eval",
                        2,
                        split=split,
                        language=language,
                        metric="f1",
                        value=50.0 + seed,
                        headline=True,
                    )
                journal.close("finished", step=2)
    return load_runs(tmp_path / "runs")


@pytest.fixture
def before(tmp_path):
    """A folder with what an earlier command has left."""
    (tmp_path / "before").mkdir()
    return tmp_path / "before"


def test_an_export_is_the_old_one_or_the_new_one(runs, before, tmp_path):
    export_runs(runs, before)
    old, folder = files_in(before), tmp_path / "data"
    for operation, found, _ in refuse_each(folder, before, lambda: export_runs(runs, folder)):
        assert set(found) == set(old), operation
        assert found == old or all(found[name] != old[name] for name in old), operation
        load_runs(folder)


@pytest.mark.parametrize("form", ["page.html", "tables"])
def test_a_report_is_the_old_one_or_the_new_one(runs, before, tmp_path, form):
    built, folder = build_report(runs), tmp_path / "out"

    def write():
        if form == "tables":
            reporting._write_csv(built, str(folder), None)
        else:
            reporting._write("new page", str(folder / form))

    (before / form).write_text("old page")
    (before / "overview.csv").write_text("old table")
    old = files_in(before)
    for operation, found, whole in refuse_each(folder, before, write):
        assert found in (old, whole), operation


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text").mkdir()
    for code in ("aa", "bb"):
        (tmp_path / "text" / f"{code}.txt").write_text("the red cat sat.\na blue dog ran.\n" * 20)
    return tmp_path / "text"


def typed(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_pretraining_and_a_language_adapter_stop_with_one_sentence_and_the_same_command_goes_on(
    text, before, tmp_path
):
    shape = (
        "--layers",
        1,
        "--hidden",
        8,
        "--heads",
        2,
        "--feed-forward",
        8,
        "--max-length",
        16,
        "--batch",
        2,
    )
    short = ("--steps", 2, "--save-every", 1)
    folder, adapter = tmp_path / "run", tmp_path / "adapter"
    pretrain = ("pretrain", "--text", text, "--tokenizer", "word", "-o", folder, *shape, *short)
    for operation, found, whole in refuse_each(folder, before, lambda: typed(*pretrain), 4):
        typed(*pretrain)
        again = files_in(folder)
        same = ("model/config.json", "model/model.safetensors", "model/tokenizer.json")
        assert all(again[name] == whole[name] for name in same), operation
        assert all(found[name] == whole[name] for name in same if name in found), operation
    train = (
        *(
            "train-language-adapter",
            "--model",
            folder / "model",
            "--language",
            "aa",
            "--text",
            text / "aa.txt",
        ),
        *("-o", adapter, "--max-length", 16, "--batch", 2, *short),
    )
    for operation, found, whole in refuse_each(adapter, before, lambda: typed(*train), 4):
        if language_adapter.WEIGHTS not in found:
            typed(*train)
        again = files_in(adapter)
        assert again[language_adapter.WEIGHTS] == whole[language_adapter.WEIGHTS], operation
    assert encoder  # (both modules write through fishlens.files)


def test_measuring_and_testing_again_leave_a_finished_run_finished(recipe, before, tmp_path):
    from fishlens.training import train
    from fishlens.training.evaluate_run import evaluate_run
    from fishlens.training.measure_run import measure_run

    small = {
        **recipe, "language_adapters": None, "data": {**recipe["data"], "targets": ["de"]},
        "train": {"steps": 2, "batch_size": 4}, "schedule": {"name": "gu", "every": 1},
        "tracking": {"every": 2, "examples": 2}, "evaluate": {"every": 2, "batch_size": 16},
    }  # fmt: skip
    train(small, before / "x")
    place = tmp_path / "out" / "x"
    for do in (lambda: evaluate_run(place), lambda: measure_run(place)):
        for operation, _, _ in refuse_each(tmp_path / "out", before, do, 4):
            read = read_run(place)
            assert read.status == "finished" and not read.damaged, operation
            assert {one["language"] for one in read.records if one.get("split") == "test"} >= {"de"}, (
                operation
            )
            with contextlib.suppress(InputError):  # a series that was written before the disk refused
                do()
            assert read_run(place).status == "finished", operation
