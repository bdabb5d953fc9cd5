"""`fishlens track TARGET`: recipe, script, module or command; what it is not is one sentence."""

import sys
from typing import ClassVar

import pytest
from typer.testing import CliRunner

import fishlens.training as training
from fishlens.cli import app
from fishlens.errors import InputError


class Trainings(list):
    """What was trained, and whose report was written."""

    def __init__(self):
        super().__init__()
        self.pages = []


@pytest.fixture
def started(monkeypatch):
    """What would be executed: (command, settings)."""
    seen = []
    monkeypatch.setattr(
        sys.modules["fishlens.cli.track"],
        "become",
        lambda command, settings: seen.append((command, settings)),
    )
    return seen


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """What would be trained: (recipe, overrides, directory)."""

    seen = Trainings()
    monkeypatch.setattr(sys.modules["fishlens.cli.report"], "write_page", seen.pages.append)

    class Result:
        run_dir, summary, status = tmp_path, "done", "finished"

    class Recipe(tuple):
        own_code: ClassVar[dict[str, str]] = {}

    load = lambda name, overrides: Recipe((name, overrides))  # noqa: E731
    monkeypatch.setattr(training, "load_recipe", load, raising=False)
    monkeypatch.setattr(
        training, "train", lambda recipe, run: seen.append((*recipe, run)) or Result, raising=False
    )
    return seen


def invoke(*arguments):
    result = CliRunner().invoke(app, ["track", *map(str, arguments)])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_script_gets_every_argument_that_follows_it(started, tmp_path):
    script = tmp_path / "train.py"
    script.write_text("")
    invoke(
        "--every", "2%", "--run", tmp_path / "r", script, "--every", "7", "-s", "x=1", "--help", "--", "-m"
    )
    ((command, settings),) = started
    assert command[1:] == [str(script), "--every", "7", "-s", "x=1", "--help", "--", "-m"]
    assert settings["every"] == "2%" and settings["run"] == str(tmp_path / "r")


def test_a_module_and_a_command(started):
    invoke("-m", "package.train", "--lr", "1")
    invoke("env", "python", "train.py")
    (module, settings), (command, _) = started
    assert module[1:] == ["-m", "package.train", "--lr", "1"]
    assert settings["run"].rpartition("/")[2].startswith("train-")
    assert command[0].endswith("/env") and command[1:] == ["python", "train.py"]


def test_a_recipe_takes_overrides_before_and_after_it(trained, tmp_path):
    invoke("-s", "seed=1", "quickstart", "-s", "schedule.name=fun", "--set=seed=2", "--run", "r")
    file = tmp_path / "mine.yaml"
    invoke("--run", "x", file)
    (bundled, overrides, run), (path, none, other) = trained
    assert (
        bundled == "quickstart" and overrides == ["seed=1", "schedule.name=fun", "seed=2"] and str(run) == "r"
    )
    assert path == str(file) and none == [] and str(other) == "x"


def test_a_recipe_leaves_a_report_in_its_directory_unless_told_not_to(trained, tmp_path):
    invoke("quickstart", "--run", "r")
    assert trained.pages == [tmp_path]
    invoke("--no-page", "quickstart", "--run", "r")
    invoke("quickstart", "--no-page", "--run", "r")
    assert trained.pages == [tmp_path] and len(trained) == 3


def test_help_is_there_after_a_recipe_too(trained):
    assert "--no-page" in invoke("quickstart", "--help") and not trained


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing-of-the-kind"], "'nothing-of-the-kind' is nothing to track; .*quickstart"),
        (["missing.py"], "missing.py does not exist"),
        (["quickstart", "--lr", "1"], "'--lr' is not an option for a recipe"),
        (["quickstart", "-s"], "-s needs a value"),
        (["-s", "seed=1", "-m", "package"], "--set seed=1 is for recipes"),
        (["--every", "often", "-m", "package"], "every is 'often'"),
    ],
)
def test_what_cannot_be_tracked_is_one_sentence(started, trained, arguments, said):
    with pytest.raises(InputError, match=said):
        invoke(*arguments)
    assert not started and not trained


@pytest.mark.parametrize(
    "option",
    [
        ("--every", "5"),
        ("--labels", "mc"),
        ("--examples", "3"),
        ("--report", "wandb"),
        ("--languages", "de=x"),
        ("--max-length", "9"),
        ("--noise-scale",),
    ],
)
def test_options_of_scripts_are_not_ignored_with_a_recipe(trained, option):
    with pytest.raises(InputError, match=f"{option[0]} is for scripts"):
        invoke(*option, "quickstart")
    assert not trained


def test_a_runs_folder_is_gone_on_with_where_it_lies(trained, tmp_path):
    (tmp_path / "moved").mkdir()
    invoke(tmp_path / "moved")
    ((_, _, run),) = trained
    assert run == tmp_path / "moved"


def test_mistakes_are_said_before_a_script_begins(started, tmp_path):
    script = tmp_path / "train.py"
    script.write_text("")
    with pytest.raises(InputError, match="reporter 'foo' is unknown"):
        invoke("--report", "foo", script)
    for wrong in (("--labels", "foo"), ("--examples", "0")):
        assert CliRunner().invoke(app, ["track", *wrong, str(script)]).exit_code == 2
    assert not started


def test_blocks_output_head_and_embeddings_reach_the_script_s_callback(started, tmp_path):
    script = tmp_path / "train.py"
    script.write_text("")
    invoke("--blocks", "layer", "--output", "tagging", "--no-head", "--embeddings", script)
    invoke(script)
    told, not_told = (settings for _, settings in started)
    assert {key: told[key] for key in ("blocks", "output", "head", "embeddings")} == {
        "blocks": "layer", "output": "tagging", "head": False, "embeddings": True,
    }  # fmt: skip
    assert not_told["head"] is True and not_told["embeddings"] is False
    assert "blocks" not in not_told and "output" not in not_told
    with pytest.raises(InputError, match="--output 'zebra' is unknown; expected auto or one of"):
        invoke("--output", "zebra", script)


def test_how_to_measure_reaches_the_script_s_callback(started, tmp_path):
    script = tmp_path / "train.py"
    script.write_text("")
    invoke("--labels", "mc", "--samples", "4", "--granularity", "batch", "--noise-scale", "--seed", "7",
           "--diagonals", "0, 50", "--factor", "task=xnli", "--factor", "lr=a=b", script)  # fmt: skip
    ((_, told),) = started
    assert (told["labels"], told["samples"], told["granularity"], told["seed"]) == ("mc", 4, "batch", 7)
    assert told["noise_scale"] is True and told["diagonals"] == [0, 50]
    assert told["factors"] == {"task": "xnli", "lr": "a=b", "script": str(script)}
    assert "languages" not in told and "tokenizer" not in told


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """German and Swahili sentences as raw text, and pairs in a table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("")
    (tmp_path / "text").mkdir()
    for language in ("de", "sw"):
        (tmp_path / "text" / f"{language}.txt").write_text("".join(f"{language} {i}\n\n" for i in range(5)))
    (tmp_path / "pairs.tsv").write_text("premise\thypothesis\tlabel\na b\tc\tx\nd\te f\ty\n")
    (tmp_path / "words.jsonl").write_text('{"tokens": ["a", "b"]}\n{"tokens": ["c"]}\n')
    (tmp_path / "empty.txt").write_text("\n")
    return tmp_path


def languages_of(started, *options):
    started.clear()
    invoke(*options, "train.py")
    ((_, settings),) = started
    return settings["languages"]


def test_texts_of_languages_reach_the_script_s_callback(started, texts):
    german = {"texts": [f"de {i}" for i in range(5)], "source": "text/de.txt"}
    (found,) = languages_of(started, "--languages", "de=text/de.txt").values()
    assert {**found, "texts": sorted(found["texts"]), "names": None} == {**german, "names": None}
    assert [f"de {(int(name) - 1) // 2}" for name in found["names"]] == found["texts"]  # by their lines
    both = languages_of(started, "--languages", "text/{language}.txt", "--examples", "3")
    assert both == languages_of(started, "--languages", "de,sw=text/{language}.txt", "--examples", "3")
    assert both["de"]["texts"] == [text.replace("sw", "de") for text in both["sw"]["texts"]]  # parallel rows
    assert both["de"]["texts"] == found["texts"][:3]
    pairs = languages_of(started, "--languages", "de=pairs.tsv", "--columns", "premise,hypothesis")
    assert sorted(pairs["de"]["texts"]) == [["a b", "c"], ["d", "e f"]]
    words = languages_of(started, "--languages", "de=words.jsonl", "--columns", "tokens")
    assert sorted(words["de"]["texts"]) == ["a b", "c"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--languages", "de"], r"--languages is 'de'; expected CODE=FILE"),
        (["--languages", "=text/de.txt"], r"--languages is '=text/de.txt'; expected CODE=FILE"),
        (["--languages", "de,sw=text/de.txt"], r"several languages need a place with \{language\}"),
        (
            ["--languages", "no/{language}.txt"],
            r"--languages is 'no/\{language\}.txt', and no such file is there",
        ),
        (["--languages", "de=no.txt"], "no.txt cannot be read: No such file"),
        (["--languages", "de=empty.txt"], "empty.txt is empty; expected at least one text"),
        (["--languages", "de=train.py"], "train.py: the ending '.py' is not one of"),
        (["--languages", "de=pairs.tsv"], "no column 'text'.*'premise'"),
        (
            ["--languages", "d/e=text/de.txt"],
            "a code of --languages is 'd/e'; expected the code of a language",
        ),
        (
            ["--languages", "de=text/de.txt", "--languages", "text/{language}.txt"],
            "--languages has 'de' twice",
        ),
        (
            ["--languages", "de=text/de.txt", "--labels", "mode"],
            "labels='mode' cannot be measured in target lang",
        ),
        (
            ["--languages", "de=text/de.txt", "--columns", "a,b,c"],
            "--columns is 'a,b,c'; expected one column",
        ),
        (["--languages-every", "4"], "--languages-every is for --languages, which names none"),
        (["--tokenizer", "x"], "--tokenizer is for --languages, which names none"),
        (["--diagonals", "0,x"], "--diagonals is '0,x'; expected steps, as 0,100"),
        (["--factor", "x"], "--factor is 'x'; expected NAME=VALUE"),
        (["--granularity", "batch"], "granularity='batch' squares the gradient of one set of labels"),
        (["--samples", "3", "--labels", "exact"], "samples=3 with labels='exact'; only 'mc' draws samples"),
        (["--preset", "x"], "--preset 'x' is unknown; expected one of published"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence_before_the_script_begins(started, texts, options, said):
    with pytest.raises(InputError, match=said) as raised:
        invoke(*options, "train.py")
    assert not started and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["torchrun", "--nproc-per-node", "2", "src/train.py", "--config", "other.py"], "train"),
        (["torchrun", "-m", "package.train"], "train"),
        (["accelerate", "launch", "--module", "package.tune", "--lr", "1"], "tune"),
        (["python", "-m", "torch.distributed.run", "finetune.py"], "finetune"),
        (["-m", "torch.distributed.run", "finetune.py"], "finetune"),
        (["-m", "package.train", "data.py"], "train"),
        (["env", "true"], "env"),
    ],
)
def test_under_a_launcher_the_run_is_called_as_what_it_launches(started, monkeypatch, command, name):
    monkeypatch.setattr("shutil.which", lambda program: f"/bin/{program}")
    invoke(*command)
    ((_, settings),) = started
    assert settings["run"].rpartition("/")[2].startswith(f"{name}-2")
