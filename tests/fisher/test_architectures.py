"""docs/architectures.md is what `benchmarks/architectures.py` prints: blocks, rules, agreement with autograd."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("architectures", ROOT / "benchmarks" / "architectures.py")
PAGE = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")

pytest.importorskip("adapters")
pytest.importorskip("peft")
table = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(table)


@pytest.mark.parametrize("name", table.FAMILIES)
def test_the_page_says_what_is_measured_and_every_number_agrees_with_plain_autograd(name):
    section = PAGE.split(f"## {name}\n")[1].split("\n## ")[0]
    for trained in table.TRAINED:
        line = f"| {trained} | {' | '.join(table.row(name, trained))} |"
        assert line in section and "**" not in line
