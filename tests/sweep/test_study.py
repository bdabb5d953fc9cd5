"""A study file says exactly which runs there are, or is refused in one sentence."""

import pytest

from fishlens.errors import InputError
from fishlens.sweep.study import find_study, load_study


def study(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return load_study(path)


def test_every_combination_is_a_run_and_the_last_field_varies_fastest(tmp_path):
    it = study(tmp_path, "name: s\nrecipe: pos\nvary: {schedule.name: [gu, fun], seed: [0, 1]}")
    assert it.grids[0].combinations() == [
        {"schedule.name": "gu", "seed": 0},
        {"schedule.name": "gu", "seed": 1},
        {"schedule.name": "fun", "seed": 0},
        {"schedule.name": "fun", "seed": 1},
    ]


def test_a_grid_that_varies_nothing_is_one_run(tmp_path):
    assert study(tmp_path, "name: s\nrecipe: pos").grids[0].combinations() == [{}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: s\nrecipe: pos\nvary: {seed: []}", "vary.seed` has no values"),
        ("name: s\nrecipe: pos\nseeds: [1]", "seeds"),
        ("name: s\nrecipe: pos\ngrids: [{recipe: pos}]", "not both"),
        ("name: s\ngrids: []", "grids"),
        ("name: s\ngrids: [{recipe: pos, vary: {seed: 3}}]", "grids.0.vary.seed"),
        ("[1, 2]", "got list"),
        ("name: [", "not valid YAML"),
    ],
)
def test_a_wrong_study_is_refused_by_field(tmp_path, text, words):
    with pytest.raises(InputError) as refused:
        study(tmp_path, text)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_study_lists_the_bundled_ones():
    with pytest.raises(InputError, match="quickstart-study"):
        find_study("quickstart-stduy")


def test_a_bundled_study_is_found_by_name():
    assert find_study("quickstart-study").name == "quickstart-study"
