"""What README and docs show is run: Python blocks in a small prepared place, command lines against the real options."""

import re
import runpy
import shlex
import shutil
import sys
import textwrap
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer
from transformers import BertConfig, BertForSequenceClassification

import fishlens
from fishlens.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
# blocks that are run elsewhere: official files and a tokenizer in tests/training/tasks; Lightning, accelerate and
# DeepSpeed in examples/, where their libraries are installed
ELSEWHERE = ("make_task", "fishlens.lightning")
FAMILY = ("fu", "ke", "le", "me", "ob", "ri", "tu", "wi", "xi", "ze")  # targets of the shipped study
LANGUAGES = {"targets.md": "analysis/studies/targets/data"}


def blocks(text: str) -> list[tuple[int, str]]:
    """Line number and text of every block of code, fenced or indented."""
    found, kept, begin, fenced = [], [], 0, False
    for number, line in enumerate([*text.split("\n"), ""], 1):
        fence = line.startswith("```")
        inside = fenced or line.startswith("    ") or (kept and not line.strip())
        if fence or not inside:
            if "".join(kept).strip():
                found.append((begin, textwrap.dedent("\n".join(kept)).strip("\n")))
            kept, begin = [], 0
            fenced = fenced != fence
        else:
            begin = begin or number
            kept.append(line)
    return found


def is_python(block: str) -> bool:
    """It compiles, and does more than name things (a list of metrics compiles, too)."""
    try:
        compile(block, "a block", "exec")
    except SyntaxError:
        return False
    return re.search(r"^(from|import|with|class|def) |\w\(", block, re.M) is not None


def python_blocks():
    for page in PAGES:
        for line, block in blocks(page.read_text(encoding="utf-8")):
            if is_python(block) and not any(name in block for name in ELSEWHERE):
                yield pytest.param(page.name, block, id=f"{page.name}:{line}")


def command_lines():
    for page in PAGES:
        for line, block in blocks(page.read_text(encoding="utf-8")):
            for text in block.split("\n"):
                if text.startswith("fishlens "):
                    for command in re.split(r"&&|\s\|\s", re.split(r"\s{3,}|\s#|;| > ", text)[0]):
                        if command.strip().startswith("fishlens "):
                            yield pytest.param(command.strip(), id=f"{page.name}:{line}:{command.strip()}")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    write_run = runpy.run_path(str(ROOT / "tests/analysis/conftest.py"))["write_run"]
    folder = tmp_path_factory.mktemp("study") / "runs"
    for schedule in ("standard", "gu", "fun"):
        for seed in range(3):
            write_run(folder, schedule, seed)
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch, study):
    """The folder, and the names that a reader of the pages has already."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, num_labels=3,
        max_position_embeddings=8,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    batch = {"input_ids": torch.randint(20, (4, 6)), "labels": torch.tensor([0, 1, 2, 0])}
    unlabelled = [{"input_ids": batch["input_ids"]}]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def loop():
        for _ in range(2):
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            yield batch

    return {
        "fishlens": fishlens, "model": model, "batch": batch, "loader": loop(), "batches": [batch],
        "probe_batches": [batch], "source_batches": [batch], "german": unlabelled, "swahili": unlabelled,
        "optimizer": optimizer, "with_adapter_of": lambda language: nullcontext(),
        "distances": {name: ord(name[0]) for name in FAMILY},
        "folder": tmp_path, "FisherCallback": fishlens.FisherCallback,
        "Trainer": lambda *_, callbacks=(), **__: SimpleNamespace(callbacks=callbacks),
    }  # fmt: skip


def mine_of(page: str, name: str) -> SimpleNamespace:
    """The reader's `mine.py`: the block of the page that defines this function."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    names: dict[str, object] = {}
    exec(next(block for _, block in blocks(text) if f"def {name}(" in block), names)
    return SimpleNamespace(**names)


@pytest.mark.parametrize(("page", "block"), python_blocks())
def test_python_on_a_page_runs(page, block, place, study, monkeypatch):
    shutil.copytree(ROOT / LANGUAGES[page] if page in LANGUAGES else study, "runs")
    place["runs"] = fishlens.load_runs("runs/")
    module = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "page", module)
    if wanted := re.search(r"^from mine import (\w+)", block, re.M):
        monkeypatch.setitem(sys.modules, "mine", mine_of(page, wanted[1]))
    exec(compile(block, page, "exec"), place | {"__name__": "page"})


@pytest.mark.parametrize("line", command_lines())
def test_a_command_on_a_page_exists_with_its_options(line):
    words = shlex.split(line)[1:]
    group = typer.main.get_command(app)
    with typer.Context(group) as context:
        name, command, rest = group.resolve_command(context, [word for word in words if word != "…"])
        try:
            command.make_context(name, [word for word in rest if word != "…"], parent=context)
        except typer.Exit:  # --help, --version
            pass
        except typer.BadParameter as error:
            assert "does not exist" in str(error)  # the reader's file


def test_blocks_are_found():
    assert blocks("a\n\n    x = 1\n\n    y\n\nb\n```python\nz\n```\nc") == [(3, "x = 1\n\ny"), (9, "z")]
    assert sum(1 for _ in python_blocks()) > 18 and sum(1 for _ in command_lines()) > 30


@pytest.mark.parametrize(
    "line", ["fishlens report runs/ --nonsense", "fishlens nothing", "fishlens schedule gu --every"]
)
def test_a_command_that_is_wrong_would_be_noticed(line):
    with pytest.raises(Exception, match=r"No such|requires an argument"):
        test_a_command_on_a_page_exists_with_its_options(line)
