"""A run directory in an object store: what arrives is whole, and nothing is sent twice."""

import fsspec
import pytest

from fishlens.errors import InputError
from fishlens.sweep.mirror import MARKER, Mirror


@pytest.fixture
def remote(tmp_path):
    return f"file://{tmp_path}/store/run"


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def files(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_another_node_gets_the_same_files(tmp_path, remote):
    write(tmp_path / "a", "journal-1.jsonl", "{}\n")
    write(tmp_path / "a", "checkpoints/step-5/model.safetensors", "weights")
    Mirror(tmp_path / "a", remote).push()
    Mirror(tmp_path / "b", remote).fetch()
    assert files(tmp_path / "b") == files(tmp_path / "a")


def test_half_a_checkpoint_is_not_fetched(tmp_path, remote):
    write(tmp_path / "a", "checkpoints/step-5/model.safetensors", "weights")
    write(tmp_path / "a", "journal-1.jsonl", "{}\n")
    Mirror(tmp_path / "a", remote).push()
    system, root = fsspec.core.url_to_fs(remote)
    system.rm(f"{root}/checkpoints/step-5/{MARKER}")
    Mirror(tmp_path / "b", remote).fetch()
    assert files(tmp_path / "b") == {"journal-1.jsonl": "{}\n"}


def test_a_journal_that_grew_is_sent_again_and_a_file_that_did_not_is_not(tmp_path, remote, monkeypatch):
    write(tmp_path / "a", "recipe.yaml", "name: x")
    write(tmp_path / "a", "journal-1.jsonl", "1\n")
    mirror = Mirror(tmp_path / "a", remote)
    mirror.push()
    sent = []
    system, _ = fsspec.core.url_to_fs(remote)
    original = type(system).put_file
    monkeypatch.setattr(
        type(system),
        "put_file",
        lambda self, source, to, **more: (sent.append(to), original(self, source, to, **more)),
    )
    write(tmp_path / "a", "journal-1.jsonl", "1\n2\n")
    mirror.push()
    assert [to.rsplit("/", 1)[-1] for to in sent] == ["journal-1.jsonl"]


def test_a_checkpoint_removed_here_is_removed_there(tmp_path, remote):
    write(tmp_path / "a", "checkpoints/step-5/model.safetensors", "old")
    mirror = Mirror(tmp_path / "a", remote)
    mirror.push()
    (tmp_path / "a/checkpoints/step-5/model.safetensors").unlink()
    write(tmp_path / "a", "checkpoints/step-9/model.safetensors", "new")
    mirror.push()
    Mirror(tmp_path / "b", remote).fetch()
    assert files(tmp_path / "b") == {"checkpoints/step-9/model.safetensors": "new"}


def test_a_checkpoint_still_being_written_is_left_out(tmp_path, remote):
    write(tmp_path / "a", "checkpoints/writing-step-5/model.safetensors", "half")
    Mirror(tmp_path / "a", remote).push()
    Mirror(tmp_path / "b", remote).fetch()
    assert not (tmp_path / "b").exists()


def test_fetching_a_run_that_was_never_kept_brings_nothing(tmp_path, remote):
    Mirror(tmp_path / "b", remote).fetch()
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", ["../../precious", "checkpoints/../../precious"])
def test_a_store_whose_names_lead_out_of_the_run_is_refused(tmp_path, remote, monkeypatch, name):
    write(tmp_path / "a", "recipe.yaml", "name: x")
    Mirror(tmp_path / "a", remote).push()
    system, root = fsspec.core.url_to_fs(remote)
    monkeypatch.setattr(type(system), "find", lambda self, where: [f"{root}/recipe.yaml", f"{root}/{name}"])
    with pytest.raises(InputError, match="would be written outside"):
        Mirror(tmp_path / "b", remote).fetch()
    assert not (tmp_path / "precious").exists()
