"""`fishlens --help` answers at once: nothing heavy is imported to print it."""

import subprocess
import sys

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
