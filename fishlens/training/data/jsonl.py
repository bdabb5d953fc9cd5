"""JSON lines: one object a line (COPA, XCOPA)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fishlens.errors import InputError
from fishlens.training.data.lines import at, numbered_lines


def read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value) of every line that is not blank; InputError if a line is not JSON."""
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{at(path, number)}: not JSON: {error.msg} at character {error.pos + 1}"
            ) from error
