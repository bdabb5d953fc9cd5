"""JSON with one sentence for all that can be wrong with it."""

import json
from pathlib import Path
from typing import Any

from fishlens.errors import InputError
from fishlens.training.data.lines import at


def parse_json(text: str, path: Path, first_line: int = 1) -> Any:
    """The value, whose text begins at this line of the file.

    Raises:
        InputError: not JSON (with line and character), nested too deeply, or a number beyond Python's limits.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = at(path, first_line + error.lineno - 1)
        raise InputError(f"{place}: not JSON: {error.msg} at character {error.colno}") from error
    except RecursionError:
        raise InputError(f"{at(path, first_line)}: JSON that is nested too deeply") from None
    except ValueError as error:  # an integer of thousands of digits
        raise InputError(f"{at(path, first_line)}: not JSON that can be read: {error}") from error
