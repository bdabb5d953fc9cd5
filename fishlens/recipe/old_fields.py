"""Fields that recipes had before 0.2 under other names: read as what they are called now, with a note."""

import logging
from typing import Any

from fishlens.errors import InputError

log = logging.getLogger(__name__)

BUDGET, DIAGONAL_AT = "tracking.budget", "tracking.diagonal_at"


def present(path: str, value: Any) -> tuple[str, Any]:
    """The field of today that says the same."""
    if path == DIAGONAL_AT:
        return _noted(path, "tracking.diagonals", value)
    if path == BUDGET and value is not None:
        if type(value) not in (int, float):
            raise InputError(
                f"{BUDGET} is {value!r}; expected a share of the training time, as tracking.every: 2%"
            )
        return _noted(path, "tracking.every", f"{100 * value:.10g}%")
    return path, value


def with_present_names(tree: dict[str, Any]) -> None:
    """The same for a whole recipe, in place."""
    tracking = tree.get("tracking")
    if not isinstance(tracking, dict):
        return
    for path in (BUDGET, DIAGONAL_AT):
        name = path.removeprefix("tracking.")
        if name in tracking:
            now, value = present(path, tracking.pop(name))
            if now != path:
                tracking[now.removeprefix("tracking.")] = value


def _noted(path: str, now: str, value: Any) -> tuple[str, Any]:
    log.warning("%s is called %s now: read as %s: %s", path, now, now, value)
    return now, value
