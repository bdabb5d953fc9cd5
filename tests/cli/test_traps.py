"""Nothing in the working directory is imported by commands that read: a folder may be a stranger's."""

import os
import subprocess
import sys
from pathlib import Path

FISHLENS = Path(sys.executable).parent / "fishlens"
# every command in one process, as the entry point starts it; what each imports is collected
COMMANDS = """
import sys
from fishlens.cli import main
for line in open(sys.argv[1]).read().splitlines():
    sys.argv = ["fishlens", *line.split()]
    try:
        main()
    except SystemExit:
        pass
import json
print("\\nIMPORTED " + json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
LINES = [
    "--help", "runs", "runs runs/a --json", "watch --once runs/a", "export runs -o out", "report runs -o report.html",
    "recipes", "recipes quickstart", "schedule gu", "schedule trap:S", "check own.yaml", "sweep study.yaml --dry-run",
    "sweep elsewhere.yaml --dry-run", "track own.yaml --no-page",
]  # fmt: skip
OPTIONAL = [
    "bottleneck",
    "numexpr",
    "pytz",
    "org",
    "linkify_it",
    "sksparse",
    "brotli",
    "cchardet",
    "ipywidgets",
]


def run(folder):
    command = [sys.executable, "-c", f"import sys; sys.path[:1] = []\n{COMMANDS}", "lines"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_no_file_of_the_working_directory_is_imported_by_any_command_that_reads(tmp_path):
    import json

    from fishlens.journal import JournalWriter

    with JournalWriter.open(
        tmp_path / "runs" / "a", {"factors": {"task": "topic", "schedule": "gu"}}
    ) as journal:
        journal.write("train", 1, loss=0.5)
        journal.write("eval", 1, split="test", language="de", metric="f1", value=50.0, headline=True)
        journal.close("finished", step=1)
    (tmp_path / "lines").write_text("\n".join(LINES))
    (tmp_path / "own.yaml").write_text(
        'name: x\nmodel: m\ntask: {name: "trap:T"}\ntrain: {steps: 1}\nschedule: {name: "trap:S"}\n'
    )
    (tmp_path / "study.yaml").write_text("name: s\nrecipe: package://trap/r.yaml\nvary: {seed: [0]}\n")
    (tmp_path / "elsewhere.yaml").write_text("name: s\nrecipe: own.yaml\nvary: {seed: [0]}\n")
    first = run(tmp_path)
    assert "IMPORTED" in first.stdout, first.stderr
    imported = json.loads(first.stdout.rpartition("IMPORTED ")[2])
    assert "pandas" in imported and "rich" in imported, first.stderr
    said = first.stderr
    assert "trap:S" in said and "that is code, and nothing of it was run" in said
    assert "there is no package 'trap' here" in said and "Traceback" not in said
    assert (tmp_path / "report.html").exists() and (tmp_path / "out" / "runs.parquet").exists()
    for name in {*imported, *OPTIONAL, "trap"}:
        if name.isidentifier() and name not in ("sys", "builtins", "__main__"):
            (tmp_path / f"{name}.py").write_text(
                f"open({str(tmp_path / 'SPRUNG')!r}, 'a').write({name!r} + ' ')\n"
            )
    again = run(tmp_path)
    assert "Traceback" not in again.stderr and "IMPORTED" in again.stdout
    assert not (tmp_path / "SPRUNG").exists(), (tmp_path / "SPRUNG").read_text()
