"""A run in a folder that is somebody's, that is moved under way, or whose files were damaged since."""

import os
import shutil
import stat

import pytest

from fishlens.errors import InputError
from fishlens.journal import read_run
from fishlens.training.checkpoint import read_checkpoint, read_weights
from fishlens.training.checkpointing import Checkpoints
from fishlens.training.place import refuse_to_overwrite
from fishlens.training.reading import check_places
from fishlens.training.results import RESULTS, read_results
from fishlens.training.run import train
from fishlens.recipe.loading import load_recipe


@pytest.fixture
def small(recipe):
    return {
        **recipe, "language_adapters": None, "data": {**recipe["data"], "targets": []},
        "train": {"steps": 6, "batch_size": 4, "log_every": 1}, "schedule": {"name": "gu", "every": 1},
        "tracking": {"every": 2, "examples": 2, "diagonals": [2]}, "evaluate": {"every": 3, "batch_size": 16},
    }  # fmt: skip


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_journal_that_is_replaced_and_removed_while_a_run_trains_is_whole_and_all_files_are_by_the_umask(
    small, tmp_path, umask
):
    journal = tmp_path / "x" / "journal-1.jsonl"

    def meddle(step):
        if step == 2:  # a sync tool writes beside and renames
            shutil.copy(journal, tmp_path / "x" / "j")
            (tmp_path / "x" / "j").replace(journal)
        if step == 4:
            journal.unlink()

    assert train(small, tmp_path / "x", on_step=meddle).status == "finished"
    read = read_run(tmp_path / "x", strict=True)
    assert [one["step"] for one in read.records if one["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "x").rglob("*") if path.is_file()}
    assert modes == {0o640}


def test_a_folder_that_is_renamed_while_a_run_trains_is_one_sentence(small, tmp_path):
    def rename(step):
        if step == 2:
            (tmp_path / "x").rename(tmp_path / "y")

    with pytest.raises(InputError, match="was renamed or removed while the run was writing in it") as told:
        train(small, tmp_path / "x", on_step=rename)
    assert "\n" not in str(told.value) and not (tmp_path / "x").exists()
    assert read_run(tmp_path / "y").status == "failed" and read_run(tmp_path / "y").last_step == 3


@pytest.mark.parametrize("theirs", ["recipe.yaml", "adapter", "model", "checkpoints", "results.json", "report.html"])
def test_what_a_user_has_in_a_folder_is_not_written_over(small, tmp_path, theirs):
    there = tmp_path / theirs
    if "." in theirs:
        there.write_text("mine")
    else:
        there.mkdir()
        (there / "adapter.safetensors").write_text("mine")
    with pytest.raises(InputError, match=f"something of the name {theirs}, where a run writes"):
        train(small, tmp_path)
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.read_text() == "mine"


def test_a_run_does_not_write_through_links(small, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match="a link checkpoints"):
        refuse_to_overwrite(load_recipe(small), tmp_path / "run")


def test_a_best_checkpoint_that_was_deleted_is_one_sentence(tmp_path):
    (tmp_path / "step-6").mkdir()
    with pytest.raises(InputError, match="has no step-3, the best checkpoint, which is to be tested: put it back"):
        Checkpoints(tmp_path, None, None, None).weights_of(3)


@pytest.mark.parametrize("name", ["state.json", "weights.safetensors"])
def test_a_checkpoint_with_a_pipe_in_it_is_refused_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=f"{name} is not a regular file"):
        read_checkpoint(tmp_path)
    with pytest.raises(InputError, match=f"{name} is not a regular file"):
        read_weights(tmp_path)


def test_a_model_with_a_pipe_in_it_is_refused_and_not_waited_for(small, encoder, tmp_path):
    shutil.copytree(encoder, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    os.mkfifo(tmp_path / "model" / "model.safetensors")
    with pytest.raises(InputError, match=r"has model\.safetensors, which is not a regular file"):
        check_places(load_recipe({**small, "model": str(tmp_path / "model")}))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"status": "finished"}', "9" * 10_000])
def test_results_that_are_damaged_are_one_sentence(tmp_path, text):
    (tmp_path / RESULTS).write_text(text)
    with pytest.raises(InputError, match=r"results\.json is damaged"):
        read_results(tmp_path)


def test_a_checkpoint_s_state_nested_without_end_is_one_sentence(tmp_path):
    (tmp_path / "state.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="cannot be read"):
        read_checkpoint(tmp_path)
