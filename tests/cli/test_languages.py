"""`pretrain`, `train-language-adapter` and `pocket` as they are typed."""

import os
import signal

import pytest
from typer.testing import CliRunner

from fishlens.cli import app
from fishlens.errors import InputError
from fishlens.pocket.build import PACKAGE
from fishlens.pretraining.raw_text import Batches

LINES = [
    f"{a} {b} {c}." for a in ("red", "blue") for b in ("cat", "dog", "cow") for c in ("sat", "ran", "ate")
]
SMALL = [
    *("--layers", 1, "--hidden", 8, "--heads", 2, "--feed-forward", 8, "--max-length", 16),
    *("--batch", 4, "--steps", 6, "--save-every", 3),
]


def typed(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def text(tmp_path):
    for folder in (tmp_path / "text", tmp_path / "text" / "heldout"):
        folder.mkdir()
        for code in ("aa", "bb"):
            (folder / f"{code}.txt").write_text("\n".join(LINES) + "\n")
    return tmp_path / "text"


def test_an_encoder_and_then_a_language_adapter_from_text_files(text, tmp_path):
    made = typed(
        "pretrain",
        "--text",
        text,
        "--heldout",
        text / "heldout",
        "--tokenizer",
        "word",
        "-o",
        tmp_path / "run",
        *SMALL,
    )
    assert made.exit_code == 0, made.output
    assert made.output.splitlines()[-1] == f"encoder of 2 languages is in {tmp_path / 'run' / 'model'}"
    assert "held-out perplexity: aa" in made.output
    trained = typed(
        *(
            "train-language-adapter",
            "--model",
            tmp_path / "run" / "model",
            "--language",
            "aa",
            "--text",
            text / "aa.txt",
        ),
        *(
            "--text",
            text / "aa.txt",
            "--heldout",
            text / "heldout" / "aa.txt",
            "-o",
            tmp_path / "aa",
            "--steps",
            3,
            "--max-length",
            16,
        ),
    )
    assert trained.exit_code == 0, trained.output
    last = trained.output.splitlines()[-1]
    assert last.startswith(f"language adapter aa is in {tmp_path / 'aa'}; loss ")
    assert " without it, " in last


def test_ctrl_c_leaves_a_resumable_run_and_says_so_in_its_last_line(text, tmp_path, monkeypatch):
    command = ("pretrain", "--text", text, "--tokenizer", "word", "-o", tmp_path / "run", *SMALL)
    original = Batches.at

    def interrupting(self, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, step)

    monkeypatch.setattr(Batches, "at", interrupting)
    stopped = typed(*command)
    monkeypatch.undo()
    assert stopped.exit_code == 130
    assert (
        stopped.output.splitlines()[-1]
        == "interrupted after step 4 of 6; the same command goes on from there"
    )
    assert not (tmp_path / "run" / "model").exists()
    again = typed(*command)
    assert "resuming at step 4 of 6" in again.output
    assert again.exit_code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--language", "zz"], "has no file for zz: there are aa, bb"),
        (["--align"], "need parallel text of at least two languages"),
        (["--heads", "3"], "hidden size 8 is not a multiple of 3 heads"),
        (["--tokenizer", "bpe"], 'unknown kind of tokenizer "bpe"'),
    ],
)
def test_bad_requests_get_one_sentence(text, tmp_path, options, message):
    result = typed("pretrain", "--text", text, "-o", tmp_path / "run", *SMALL, *options)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)


def test_show_says_every_meaning_in_every_language():
    result = typed("pocket", "show", "--sentences", "3")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert sum(line.startswith("  tu  ") for line in lines) == 3
    assert sum(line.startswith("mu  Muro") for line in lines) == 1


def test_nothing_that_lies_in_the_output_folder_is_removed_or_written_over(text, tmp_path):
    """A week of training in `checkpoints`, a model in `model`, a family of languages: refused before any work."""
    project = tmp_path / "project"
    for name in ("checkpoints/my-week/model.bin", "model/config.json"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("mine")
    trained = typed(
        *(
            "train-language-adapter",
            "--model",
            PACKAGE / "model",
            "--language",
            "xx",
            "--text",
            text / "aa.txt",
        ),
        *("-o", project, "--steps", 1, "--max-length", 16),
    )
    assert "checkpoints holds files that fishlens did not make" in str(trained.exception)
    made = typed("pretrain", "--text", text, "-o", project, *SMALL)
    assert "already holds" in str(made.exception)
    built = typed("pocket", "build", "--quick", "-o", project)
    assert "holds files that fishlens did not make" in str(built.exception)
    assert {path.read_text() for path in project.rglob("*") if path.is_file()} == {"mine"}
