"""`fishlens --help` answers at once: nothing heavy is imported to print it."""

import re
import subprocess
import sys
from pathlib import Path

HEAVY = {"torch", "transformers", "adapters", "pandas", "numpy", "scipy", "matplotlib", "statsmodels"}


def test_help_imports_nothing_heavy():
    code = (
        "import sys, typer.testing, fishlens.cli as cli\n"
        "result = typer.testing.CliRunner().invoke(cli.app, ['--help'])\n"
        "assert result.exit_code == 0, result.output\n"
        "print(','.join(sorted(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not HEAVY & set(loaded.strip().split(","))


def test_version_is_the_package_version():
    run = [sys.executable, "-c", "from fishlens.cli import main; main()", "--version"]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.startswith("fishlens ")


def test_a_schedule_of_ones_own_is_found_in_the_current_folder(tmp_path):
    """As docs/schedules.md has it: `mine.py` lies where the command is typed."""
    (tmp_path / "mine.py").write_text(
        "from fishlens.schedules import Event, Schedule\n"
        "class OutsideIn(Schedule):\n"
        "    name = 'outside-in'\n"
        "    def choose(self, step, state, scores):\n"
        "        frozen = self.frozen(state)\n"
        "        return Event(step, tuple(dict.fromkeys(frozen[:1] + frozen[-1:])))\n"
    )
    command = [
        str(Path(sys.executable).parent / "fishlens"),
        "schedule",
        "mine:OutsideIn",
        "-L",
        "4",
        "--trust",
    ]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0 and "4 of 4" in said.stdout, said.stderr


def test_what_stands_in_brackets_in_a_help_text_is_shown():
    """rich takes [auto] for markup and drops it: defaults are `show_default`, and other brackets are escaped."""
    import typer.main

    from fishlens.cli import app

    commands = [typer.main.get_command(app)]
    for command in commands:
        commands += getattr(command, "commands", {}).values()
        for text in [command.help, *(getattr(parameter, "help", None) for parameter in command.params)]:
            assert not re.search(r"(?<!\\)\[[a-z#/@]", text or ""), (command.name, text)
    assert len(commands) > 15
