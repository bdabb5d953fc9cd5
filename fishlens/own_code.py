"""Classes of one's own: a recipe that names `module:Class` is code.

In Python, whoever calls `train` is running code already, and a module is found where Python finds it. On the command
line a recipe may be a stranger's: there nothing is imported until the user trusts it (`--trust`, or `trust: [module]`
in a study), and the working directory is searched for modules only then.
"""

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Collection
from pathlib import Path
from typing import Any

from fishlens.errors import InputError

CODE = "code "
"""What the name of a fingerprint of somebody's own code begins with."""
_trusted: set[str] | None = None  # modules that may be imported; None: any


def refuse_all() -> None:
    """From here on nothing of a user's own is imported until `trust` allows it: what the command line begins with."""
    global _trusted
    _trusted = set()


def trust(modules: Collection[str] | None) -> None:
    """Allow these modules, or with None any, and look for them in the working directory too, last of all."""
    global _trusted
    _trusted = None if modules is None else {*(_trusted or ()), *modules}
    here = os.getcwd()  # noqa: PTH109
    if (modules is None or modules) and here not in sys.path:
        sys.path.append(here)


def is_own(name: str) -> bool:
    """Is a task's or schedule's name one of code, `module:Class`?"""
    return ":" in name


def source_file(name: str, field: str) -> Path | None:
    """The file of the module in `module:Class`, None where there is none to be read (or it may not be imported)."""
    try:
        load_class(name, field)
        place = inspect.getsourcefile(sys.modules[name.partition(":")[0]])
    except (InputError, KeyError, TypeError):
        return None
    return Path(place) if place is not None else None


def load_class(name: str, field: str) -> Any:
    """What `module:Class` names. `field` says where the name stands.

    Raises `InputError` where the module is not trusted, or cannot be imported.
    """
    module, _, attribute = name.partition(":")
    if _trusted is not None and module not in _trusted:
        raise InputError(
            f"{field} is {name!r}: that is code, and nothing of it was run; add --trust (in a study: "
            f"trust: [{module}]) if you know where it comes from"
        )
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a user's module may raise whatever it likes
        raise InputError(
            f"{field} is {name!r}, which cannot be imported: {type(error).__name__}: {error}"
        ) from error


def said(error: Exception) -> str:
    """What a user's function raised, and the line of it that did."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if len(frames) > 1 else ""
    return f"{type(error).__name__}: {error}{where}"
