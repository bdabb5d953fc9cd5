"""docs/architectures.md is what `benchmarks/architectures.py` prints: blocks, rules, agreement with autograd.

The self-check of every block of every architecture also runs beside transformers 5.
"""

import importlib.util
from pathlib import Path

import pytest

from fishlens import find_blocks
from fishlens.fisher import self_checks

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("architectures", ROOT / "benchmarks" / "architectures.py")
PAGE = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")

pytest.importorskip("peft")
table = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(table)


@pytest.mark.parametrize("name", table.FAMILIES)
def test_the_page_says_what_is_measured_and_every_number_agrees_with_plain_autograd(name):
    pytest.importorskip("adapters")
    section = PAGE.split(f"## {name}\n")[1].split("\n## ")[0]
    for trained in table.TRAINED:
        line = f"| {trained} | {' | '.join(table.row(name, trained))} |"
        assert line in section and "**" not in line


@pytest.mark.parametrize("name", table.FAMILIES)
@pytest.mark.parametrize("trained", ["all weights", "LoRA (peft)"])
def test_the_self_check_of_every_block_passes(name, trained):
    model = table.make(table.FAMILIES[name], trained).float()
    checks = self_checks(model, table.sentences())
    assert [one.block for one in checks] == [block.name for block in find_blocks(model)]
    assert {one.block: one.error for one in checks if not one.passed} == {}
