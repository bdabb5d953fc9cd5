"""What `fishlens track` tells a script's process and its children, through the environment variable FISHLENS_TRACK."""

import json
import os
from typing import Any

from fishlens.errors import InputError

VARIABLE = "FISHLENS_TRACK"
_at_start: dict[str, Any] = {}


def remember(settings: dict[str, Any]) -> None:
    """Keep the settings of this program for as long as it runs."""
    _at_start.update(settings)


def settings_from_environment() -> dict[str, Any]:
    """`run` (directory), `account` (file), `process` (id of the one that says at its end what was tracked), and
    arguments of `FisherCallback`. Raises `InputError` if the variable is not ours.

    A script may have emptied its environment: then they are what they were at the start (`remember`).
    """
    if VARIABLE not in os.environ and _at_start:
        return dict(_at_start)
    try:
        settings = json.loads(os.environ[VARIABLE])
        return {**settings, "run": settings["run"]}
    except (KeyError, TypeError, ValueError):
        raise InputError(f"the environment variable {VARIABLE} is not what `fishlens track` sets") from None


def account_place() -> str | None:
    """Where trainings are accounted for, if this process is under `fishlens track`."""
    if VARIABLE not in os.environ and not _at_start:
        return None
    return settings_from_environment().get("account")
