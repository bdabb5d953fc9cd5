"""Nothing in the working directory is imported, run or obeyed by commands that read: a folder may be a stranger's."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from fishlens.journal import JournalWriter

# every command in one process, as the entry point starts it; what is imported, or looked for in vain, is collected
COMMANDS = """
import json, sys
asked = set()
class Listening:
    def find_spec(self, name, path, target=None):
        asked.add(name.partition(".")[0])
sys.meta_path.insert(0, Listening())
from fishlens.cli import main
for line in open(sys.argv[1]).read().splitlines():
    sys.argv = ["fishlens", *line.split()]
    print("\\n$", line, flush=True)
    print("\\n$", line, file=sys.stderr, flush=True)
    try:
        main()
    except SystemExit:
        pass
print("\\nASKED " + json.dumps(sorted(asked | {name.partition(".")[0] for name in sys.modules})))
"""
READING = [
    "--help", "--version", "runs", "runs runs/a --json", "runs --show runs/a", "runs --diff runs/a runs/b",
    "watch --once runs/a", "watch --json runs/a", "export runs -o out", "runs out", "report runs -o report.html",
    "report runs --format csv -o tables", "report runs --format latex -o -", "report runs out --format md -o -",
    "report runs -o x.html --figures figures --figure-format png", "power runs", "power --sd 2 --effect 2", "cite",
    "recipes", "recipes quickstart", "recipes --fields", "schedule gu", "schedule trap:S", "pocket show",
    "sweep study.yaml --dry-run", "sweep elsewhere.yaml --dry-run --json", "sweep --help", "track own.yaml --no-page",
    "evaluate runs/a", "measure runs/a", "pocket build --help",
]  # fmt: skip
WITH_TORCH = [
    "check own.yaml",
    "check strange.yaml",
    "measure model --data rows.tsv",
    "measure runs/b --table",
]
# what libraries look for where they are installed without it, and what Python itself would run
OPTIONAL = [
    "bottleneck", "numexpr", "pytz", "org", "linkify_it", "sksparse", "brotli", "cchardet", "ipywidgets", "numba",
    "sitecustomize", "usercustomize", "conftest", "setup",
]  # fmt: skip


def run(folder):
    command = [sys.executable, "-c", f"import sys; sys.path[:1] = []\n{COMMANDS}", "lines"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "MPLCONFIGDIR": str(folder / ".mpl")}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=1800
    )


def set_traps(folder, names):
    for name in {*names, *OPTIONAL, "trap"}:
        if name.isidentifier() and name not in ("sys", "builtins", "__main__"):
            (folder / f"{name}.py").write_text(
                f"open({str(folder / 'SPRUNG')!r}, 'a').write({name!r} + ' ')\n"
            )


@pytest.fixture
def folder(tmp_path):
    """Two runs, a model without weights, recipes and studies that name code, and settings of libraries and of git."""
    for name in ("a", "b"):
        factors = {"task": "topic", "schedule": "gu", "seed": ord(name), "source": "en"}
        with JournalWriter.open(tmp_path / "runs" / name, {"factors": factors}) as journal:
            journal.write("train", 1, loss=0.5)
            for split, language in (("validation", "en"), ("test", "de")):
                journal.write(
                    "eval", 1, split=split, language=language, metric="f1", value=50.0, headline=True
                )
            journal.close("finished", step=1)
    recipe = {"name": "x", "model": "m", "task": {"name": "trap:T"}, "train": {"steps": 1}}
    own = recipe | {"schedule": {"name": "trap:S"}}
    strange = recipe | {"model": "./model", "task": {"name": "topic"}, "data": {"root": ".", "source": "en"}}
    for name, content in (("own", own), ("strange", strange)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "study.yaml").write_text("name: s\nrecipe: package://trap/r.yaml\nvary: {seed: [0]}\n")
    (tmp_path / "elsewhere.yaml").write_text("name: s\nrecipe: own.yaml\nvary: {seed: [0]}\n")
    (tmp_path / "rows.tsv").write_text("text\nsome words\n")
    config = {"architectures": ["BertForSequenceClassification"], "model_type": "bert", "hidden_size": 8,
              "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 8,
              "auto_map": {"AutoConfig": "trap.C", "AutoModel": "trap.M"}}  # fmt: skip
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    (tmp_path / "model" / "trap.py").write_text(f"open({str(tmp_path / 'SPRUNG')!r}, 'a').write('model')\n")
    os.mkfifo(tmp_path / "matplotlibrc")  # whoever reads it waits for ever
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = '-p trap'\n")
    (tmp_path / ".env").write_text("PYTHONSTARTUP=trap.py\n")
    return tmp_path


def test_no_file_of_the_working_directory_is_imported_by_any_command_that_reads(folder):
    (folder / "lines").write_text("\n".join([*READING, *WITH_TORCH]))
    set_traps(folder, sys.stdlib_module_names)
    first = run(folder)
    assert "ASKED" in first.stdout, first.stderr
    asked = json.loads(first.stdout.rpartition("ASKED ")[2])
    assert {"pandas", "rich", "matplotlib", "torch", "transformers", "bottleneck"} <= set(asked), first.stderr
    said = first.stderr
    assert "trap:S" in said and "that is code, and nothing of it was run" in said
    assert "there is no package 'trap' here" in said and "Traceback" not in said, said
    for made in ("report.html", "out/runs.parquet", "tables", "figures"):
        assert (folder / made).exists(), made
    set_traps(folder, asked)
    again = run(folder)
    assert "Traceback" not in again.stderr and "ASKED" in again.stdout, again.stderr
    assert not (folder / "SPRUNG").exists(), (folder / "SPRUNG").read_text()
