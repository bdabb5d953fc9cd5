"""Where files are looked for, and what is said when they are not there."""

import pytest

from fishlens.errors import InputError
from fishlens.training.tasks import make_task
from fishlens.training.tasks.layout import Layout, Place, overridden

LAYOUT = Layout(
    {
        "train": [Place("a/full.json", ("en",)), Place("a/sample.json", ("en",))],
        "validation": [Place("a/{language}-{language}.txt")],
        "test": [Place("{language}_*-test.txt", codes={"de": "deu"})],
    }
)


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")


def test_the_first_place_with_a_file_wins(tmp_path):
    touch(tmp_path, "a/sample.json")
    assert LAYOUT.file(tmp_path, "train", "en").name == "sample.json"
    touch(tmp_path, "a/full.json")
    assert LAYOUT.file(tmp_path, "train", "en").name == "full.json"


def test_a_file_without_language_in_its_name_holds_only_the_languages_it_is_said_to(tmp_path):
    touch(tmp_path, "a/full.json")
    assert LAYOUT.languages(tmp_path, "train") == ["en"]
    with pytest.raises(InputError, match="no train data for language 'de'"):
        LAYOUT.file(tmp_path, "train", "de")


def test_a_pattern_that_names_the_language_twice_means_the_same_both_times(tmp_path):
    touch(tmp_path, "a/de-de.txt", "a/de-en.txt", "a/fr-fr.txt")
    assert LAYOUT.languages(tmp_path, "validation") == ["de", "fr"]


def test_codes_in_file_names_are_translated_both_ways(tmp_path):
    touch(tmp_path, "deu_x-test.txt", "fr_y-test.txt")
    assert LAYOUT.languages(tmp_path, "test") == ["de", "fr"]
    assert LAYOUT.file(tmp_path, "test", "de").name == "deu_x-test.txt"


def test_several_matches_are_refused_by_name(tmp_path):
    touch(tmp_path, "fr_x-test.txt", "fr_y-test.txt")
    with pytest.raises(
        InputError, match=r"several files .*\(fr_x-test\.txt, fr_y-test\.txt\): say which one with data\.test"
    ):
        LAYOUT.file(tmp_path, "test", "fr")


def test_brackets_in_paths_are_letters(tmp_path):
    root = tmp_path / "[data]"
    touch(root, "my[1]/de.txt")
    layout = overridden(LAYOUT, {"test": "my[1]/{language}.txt"})
    assert layout.languages(root, "test") == ["de"]
    assert layout.file(root, "test", "de") == root / "my[1]" / "de.txt"


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match=r"a/de-de\.txt \(languages that are there: none\)"):
        LAYOUT.file(tmp_path, "validation", "de")
    with pytest.raises(InputError, match=r"data root .*nowhere is not a folder"):
        LAYOUT.file(tmp_path / "nowhere", "test", "de")
    with pytest.raises(InputError, match="unknown split 'dev'; expected train, validation, test"):
        LAYOUT.file(tmp_path, "dev", "de")


def test_overrides_absolute_relative_and_by_language(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    touch(elsewhere, "de.txt", "it.txt")
    touch(tmp_path, "root/mine.txt", "root/fr.txt")
    root = tmp_path / "root"
    layout = overridden(
        LAYOUT,
        {
            "train": "mine.txt",
            "validation": str(elsewhere / "{language}.txt"),
            "test": {"fr": "fr.txt", "it": str(elsewhere / "it.txt")},
        },
    )
    assert (
        layout.file(root, "train", "xx") == root / "mine.txt"
    )  # whoever names one file vouches for its language
    assert layout.languages(root, "validation") == ["de", "it"]
    assert layout.file(root, "validation", "de") == elsewhere / "de.txt"
    assert layout.languages(root, "test") == ["fr", "it"]
    assert layout.file(root, "test", "it") == elsewhere / "it.txt"
    with pytest.raises(InputError, match="no test data for language 'de'"):
        layout.file(root, "test", "de")


def test_overrides_that_make_no_sense():
    with pytest.raises(
        InputError, match=r"data\.test is 'mine\.tsv': put \{language\} where the language stands"
    ):
        make_task("nli", files={"test": "mine.tsv"})
    with pytest.raises(InputError, match="unknown split 'dev'"):
        make_task("nli", files={"dev": "mine.tsv"})
