"""JSON lines: one object a line (COPA, XCOPA)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fishlens.training.data.json_text import parse_json
from fishlens.training.data.lines import numbered_lines


def read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value) of every line that is not blank; InputError if a line is not JSON."""
    for number, line in numbered_lines(path):
        if line.strip():
            yield number, parse_json(line, path, number)
