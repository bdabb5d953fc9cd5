"""Files are written whole, by the umask, and never over what is not ours."""

import os
import stat
from pathlib import Path

import pytest

from fishlens import InputError
from fishlens.files import MARKER, own_folder, remove_own, write_file, writing, writing_folder
from fishlens.names import check_file_name, check_language, colliding, one_line, printable, shortened


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_new_file_has_the_mode_of_the_umask_and_an_old_one_keeps_its_own(tmp_path, umask):
    write_file(tmp_path / "new", "text")
    assert mode(tmp_path / "new") == 0o640
    with writing(tmp_path / "library") as beside:
        beside.chmod(0o600)  # as safetensors leaves it
    assert mode(tmp_path / "library") == 0o640
    (tmp_path / "new").chmod(0o600)
    write_file(tmp_path / "new", "other")
    assert mode(tmp_path / "new") == 0o600 and (tmp_path / "new").read_text() == "other"


def test_an_output_that_is_a_link_stays_one_and_inside_our_folders_links_are_refused(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_file(tmp_path / "link", "new", follow=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    with pytest.raises(InputError, match="is a link"):
        write_file(tmp_path / "link", "worse")
    assert (tmp_path / "real").read_text() == "new"


def test_what_is_no_regular_file_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_file(pipe, "through", follow=True)
    assert os.read(reader, 100) == b"through" and stat.S_ISFIFO(pipe.stat().st_mode)
    os.close(reader)
    with pytest.raises(InputError, match="not a regular file"), writing(pipe):
        pass


def test_what_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError), writing(tmp_path / "file") as beside:
        beside.write_text("half")
        raise OSError(28, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "old"


def test_folders_of_others_are_neither_written_over_nor_removed(tmp_path):
    theirs = tmp_path / "adapter"
    theirs.mkdir()
    (theirs / "weights").write_text("a week")
    with pytest.raises(InputError, match="did not make"), writing_folder(theirs):
        pass
    with pytest.raises(InputError, match="did not make"):
        own_folder(theirs)
    remove_own(theirs)
    (tmp_path / "link").symlink_to(theirs)
    remove_own(tmp_path / "link")
    with pytest.raises(InputError, match="is a link"):
        own_folder(tmp_path / "link")
    assert (theirs / "weights").read_text() == "a week"


def test_a_folder_of_ours_is_replaced_whole_and_keeps_what_somebody_put_into_it(tmp_path, umask):
    for content in ("one", "two"):
        with writing_folder(tmp_path / "model") as folder:
            (folder / "weights").write_text(content)
            (folder / "weights").chmod(0o600)
        (tmp_path / "model" / "notes").write_text("mine")
    assert (tmp_path / "model" / "weights").read_text() == "two" and (tmp_path / "model" / "notes").exists()
    assert mode(tmp_path / "model" / "weights") == 0o640 and (tmp_path / "model" / MARKER).exists()
    remove_own(tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "a\0b",
        "a\nb",
        "\x1b[2J",
        "a\u202eb",
        " a",
        "a.",
        "con",
        "NUL.txt",
        "x" * 151,
    ],
)
def test_what_cannot_be_one_folders_name_everywhere_is_refused(name):
    with pytest.raises(ValueError, match="expected"):
        check_file_name(name)


def test_languages_are_codes(tmp_path):
    for code in ("de", "zh-Hant", "eng_Latn", "mu"):
        assert check_language(code) == code
    for wrong in ("", "zh/Hant", "zh.Hant", "../../victim", "/absolute", "a b", "\u202ede"):
        with pytest.raises(ValueError, match="expected"):
            check_language(wrong)


def test_long_names_are_cut_and_stay_apart():
    one, other = shortened("x" * 400 + "a"), shortened("x" * 400 + "b")
    assert one != other and len(one.encode()) <= 150 and shortened("short") == "short"
    assert len(shortened("ü" * 300).encode()) <= 150


def test_names_that_are_one_file_on_some_systems_are_found():
    assert colliding(["de", "DE"]) == ("de", "DE")
    assert colliding(["\u00e9", "e\u0301"]) is not None and colliding(["de", "fr"]) is None


def test_printable_text_has_no_control_sequence_and_is_otherwise_the_same():
    assert printable("\x1b[31mred\x9b2J \u202e\ud800") == "\\x1b[31mred\\x9b2J \\u202e\\ud800"
    assert printable("über ☃ हिन्दी می‌خواهم\tx\n") == "über ☃ हिन्दी می‌خواهم\tx\n"
    assert one_line("a\nb") == "a\\nb"


def test_a_folder_whose_place_cannot_be_taken_leaves_the_old_one_in_it(tmp_path, monkeypatch):
    place = tmp_path / "model"
    with writing_folder(place) as folder:
        (folder / "weights").write_text("old")
    real, asked = Path.rename, []

    def second_fails(self, target):
        asked.append(self)
        if len(asked) == 2:
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(OSError, match="Input/output"), writing_folder(place) as folder:
        (folder / "weights").write_text("new")
    assert (place / "weights").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["model"]
    assert len(asked) == 3
