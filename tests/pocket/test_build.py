"""What ships can be rebuilt: the same seeds make the same files."""

import hashlib
import json

import pytest
import torch

from fishlens.pocket import build as building
from fishlens.pocket.build import PACKAGE, BuildPlan, build, shipped, write_family
from fishlens.pocket.formats import write_tasks
from fishlens.pocket.languages import make_family
from fishlens.pocket.meanings import World
from fishlens.pretraining.encoder import EncoderShape

TINY = BuildPlan(
    documents=60,
    heldout=20,
    encoder_steps=4,
    adapter_steps=2,
    shape=EncoderShape(layers=2, hidden=16, heads=2, feed_forward=16, positions=64),
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    build(folder, TINY, note=lambda text: None)
    return folder


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in shipped(folder)
        if path.name not in ("curve.jsonl", "training.json")  # they hold seconds
    }


def test_the_same_seed_builds_the_same_files_to_the_byte(built, tmp_path):
    build(tmp_path, TINY, note=lambda text: None)
    assert digests(tmp_path) == digests(built)


def test_a_build_that_was_cut_off_goes_on_and_makes_nothing_twice(built, tmp_path, monkeypatch):
    stopped = []

    def cut_off(output, code, *rest):
        if code == "le":
            stopped.append(code)
            raise KeyboardInterrupt
        return whole(output, code, *rest)

    whole = building._language_adapter
    monkeypatch.setattr(building, "_language_adapter", cut_off)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, TINY, note=lambda text: None)
    monkeypatch.undo()
    notes = []
    build(tmp_path, TINY, note=notes.append)
    assert digests(tmp_path) == digests(built)
    assert not any("language adapter mu" in note for note in notes)
    assert any("language adapter le" in note for note in notes)


def test_every_language_has_an_adapter_and_the_model_has_the_templates_words(built):
    from transformers import AutoTokenizer

    codes = {language.code for language in make_family().languages}
    assert {path.name for path in (built / "adapters").iterdir()} == codes
    tokenizer = AutoTokenizer.from_pretrained(built / "model")
    for text in ("What was the cause?", "What happened as a result?"):
        assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]
    assert tokenizer.model_max_length == TINY.shape.positions


needs_package_data = pytest.mark.skipif(
    not (PACKAGE / "model").exists(), reason="the package data is not in this checkout"
)


@needs_package_data
def test_the_shipped_tasks_and_languages_are_what_the_seeds_make(tmp_path):
    family = make_family()
    write_tasks(tmp_path / "data", family, World())
    write_family(tmp_path / "family.json", family, BuildPlan())
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(made) == 1 + sum(1 for path in (PACKAGE / "data").rglob("*") if path.is_file())
    for path in made:
        assert path.read_bytes() == (PACKAGE / path.relative_to(tmp_path)).read_bytes(), path.name


@needs_package_data
def test_what_ships_is_small_and_in_safetensors_and_names_no_path():
    files = shipped(PACKAGE)
    assert sum(path.stat().st_size for path in files) <= 12e6
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl")]
    for path in files:
        if path.suffix == ".json" and "data" not in path.parts:
            assert '"/' not in path.read_text(), f"{path.name} names an absolute path"
    plan = json.loads((PACKAGE / "model" / "training.json").read_text())
    assert plan["settings"]["steps"] == BuildPlan().encoder_steps


@needs_package_data
def test_the_kept_training_curve_falls_in_every_language():
    curve = [json.loads(line) for line in (PACKAGE / "model" / "curve.jsonl").read_text().splitlines()]
    held = [record for record in curve if "heldout/mu" in record]
    for language in make_family().languages:
        assert held[-1][f"heldout/{language.code}"] < 0.5 * held[0][f"heldout/{language.code}"]
