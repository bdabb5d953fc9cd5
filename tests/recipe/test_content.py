"""A model, an adapter and a data file are told by what is in them: moved is not changed, and changed is noticed."""

import os
import shutil

import pytest
import yaml

from fishlens.errors import InputError
from fishlens.recipe.content import changed, fingerprint, fingerprints, is_place
from fishlens.recipe.loading import load_recipe
from fishlens.recipe.yaml_text import parse_yaml, read_yaml

RECIPE = """
name: small
task: {name: topic}
model: MODEL
language_adapters: {en: ADAPTER, de: ADAPTER}
data: {root: DATA, source: en, targets: [de]}
train: {steps: 4}
"""


@pytest.fixture
def places(tmp_path):
    for folder, file in (("model", "config.json"), ("adapter", "weights"), ("data", "train/en.jsonl")):
        (tmp_path / folder / file).parent.mkdir(parents=True)
        (tmp_path / folder / file).write_text(f"{folder} {file}")
    return tmp_path


def recipe(places):
    text = RECIPE
    for name in ("model", "adapter", "data"):
        text = text.replace(name.upper(), str(places / name))
    (places / "recipe.yaml").write_text(text)
    return load_recipe(places / "recipe.yaml")


def recorded(places):
    return fingerprints(recipe(places), [places / "data" / "train" / "en.jsonl"])


def test_what_was_moved_is_not_changed(places, tmp_path_factory):
    known = recorded(places)
    assert set(known) == {"model", "language_adapters.en", "language_adapters.de", "data train/en.jsonl"}
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("model", "adapter", "data"):
        shutil.move(places / name, elsewhere / name)
    assert changed(recipe(elsewhere), known) is None
    assert changed(recipe(places), known) is None, "what is not there cannot be compared"


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("model/config.json", "model"),
        ("adapter/weights", "language_adapters.en"),
        ("data/train/en.jsonl", "data train"),
    ],
)
def test_what_was_changed_is_noticed_whatever_its_length_and_date(places, file, said):
    known, path = recorded(places), places / file
    before = path.stat()
    path.write_text(path.read_text()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    told = changed(recipe(places), known)
    assert told is not None and told.startswith(said) and "is not what it was" in told


def test_a_long_file_is_told_by_its_length_its_ends_and_what_is_between(tmp_path, monkeypatch):
    monkeypatch.setattr("fishlens.recipe.content._WHOLE", 1000)
    monkeypatch.setattr("fishlens.recipe.content._BLOCK", 100)
    content = bytearray(os.urandom(200_000))
    (tmp_path / "whole").write_bytes(content)
    known = fingerprint(tmp_path / "whole")
    (tmp_path / "copy").write_bytes(content)
    assert fingerprint(tmp_path / "copy") == known
    for number, place in enumerate((0, 199_999, 63 * 199_900 // 63 + 50)):
        other = bytearray(content)
        other[place] ^= 1
        (tmp_path / str(number)).write_bytes(other)
        assert fingerprint(tmp_path / str(number)) != known
    (tmp_path / "longer").write_bytes(content + b"x")
    assert fingerprint(tmp_path / "longer") != known


def test_what_lies_beside_weights_is_no_content(tmp_path):
    (tmp_path / "weights").write_text("w")
    known = fingerprint(tmp_path)
    for name in ("README.md", ".cache"):
        (tmp_path / name).write_text("new")
    assert fingerprint(tmp_path) == known
    (tmp_path / "weights").rename(tmp_path / "others")
    assert fingerprint(tmp_path) != known


@pytest.mark.parametrize("text", ["a: 1\na: 2", "a: {b: 1, 'b': 2}", "- {x: 1, x: 1}"])
def test_a_key_that_stands_there_twice_is_refused(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match="stands there twice") as told:
        read_yaml(tmp_path / "x.yaml", "recipe")
    assert "\n" not in str(told.value)


def test_aliases_are_written_out_only_as_far_as_anybody_means_it():
    assert parse_yaml("a: &x [1, 2]\nb: [*x, *x]") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
    with pytest.raises(yaml.YAMLError, match="stand for more than 100,000 values"):
        parse_yaml(bomb)
    with pytest.raises(yaml.YAMLError, match="inside what it names"):
        parse_yaml("a: &a [*a]")


@pytest.mark.parametrize(
    ("field", "place"),
    [
        ("model", True),
        ("data.root", True),
        ("data.train", True),
        ("data.train.de", True),
        ("language_adapters.de", True),
        ("data.train_language_adapter", False),
        ("models", False),
        ("data.source", False),
        ("train.steps", False),
    ],
)
def test_fields_that_say_where_something_lies_are_told_by_their_whole_names(field, place):
    assert is_place(field) is place
