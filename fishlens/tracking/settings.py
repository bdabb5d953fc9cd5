"""What `fishlens track` tells a script's process and its children, through the environment variable FISHLENS_TRACK."""

import json
import os
from typing import Any

from fishlens.errors import InputError

VARIABLE = "FISHLENS_TRACK"


def settings_from_environment() -> dict[str, Any]:
    """`run` (directory), `account` (file), `process` (id of the one that says at its end what was tracked), and
    arguments of `FisherCallback`. Raises `InputError` if the variable is not ours."""
    try:
        settings = json.loads(os.environ[VARIABLE])
        return {**settings, "run": settings["run"]}
    except (KeyError, TypeError, ValueError):
        raise InputError(f"the environment variable {VARIABLE} is not what `fishlens track` sets") from None


def account_place() -> str | None:
    """Where trainings are accounted for, if this process is under `fishlens track`."""
    if VARIABLE not in os.environ:
        return None
    return settings_from_environment().get("account")
