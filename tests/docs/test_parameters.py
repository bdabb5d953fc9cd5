"""The reference shows what a docstring says of each parameter as an item of a list."""

import runpy
from pathlib import Path

import pytest

pytest.importorskip("griffe", reason="of the documentation's packages")
LISTED = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "parameters.py"))["listed"]


def test_parameters_are_items_and_prose_stays_prose():
    text = "Measures it.\n\nrun: where it\n    goes. every, at: when: now.\n\nNote: raises."
    assert LISTED(text, {"run", "every", "at"}) == (
        "Measures it.\n\n- **run**: where it goes.\n- **every, at**: when: now.\n\nNote: raises."
    )


def test_code_stays_as_it_is():
    code = "    run: 3\n    every: 4"
    assert LISTED(code, {"run", "every"}) == code
