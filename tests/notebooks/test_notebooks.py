"""Every notebook runs from top to bottom, in a kernel of its own, and leaves nothing behind."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
SECONDS = 1800
"""for one cell: a guard against hanging, never against a busy machine"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_pictures(path, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    book = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "a notebook is kept without its outputs"
    assert book.cells[0].source.startswith("# "), "a notebook begins with its title"
    place = {"metadata": {"path": str(tmp_path)}}
    client = NotebookClient(book, timeout=SECONDS, kernel_name="python3", resources=place)
    client.execute()
    pictures = [
        output
        for cell in book.cells
        for output in cell.get("outputs", [])
        if {"image/png", "image/svg+xml"} & set(output.get("data", {}))
    ]
    assert pictures


def test_there_are_notebooks():
    assert NOTEBOOKS
