"""Attaching to every Trainer that a process makes, without changing its script.

`transformers.trainer` keeps a list of callbacks that every Trainer gets; ours is added to it when that module is
imported, and not before, so that a script still decides when transformers is imported and with what environment.
Settings travel in the environment variable FISHLENS_TRACK, as JSON: children (`accelerate launch`, `torchrun`,
data-loader workers) inherit them.
"""

import atexit
import importlib.abc
import importlib.machinery
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from fishlens.errors import InputError

VARIABLE = "FISHLENS_TRACK"
_TRAINER = "transformers.trainer"
_FOLDER = Path(__file__).with_name("startup")


def environment(settings: dict[str, Any], process: int | None = None) -> dict[str, str]:
    """This process's environment for a Python that is to be tracked.

    settings: `run` (directory) and arguments of `FisherCallback`. process: the one that says at its end what was
    tracked; by default this one, which is about to become that Python.
    """
    content = {**settings, "process": os.getpid() if process is None else process}
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        VARIABLE: json.dumps(content),
        "PYTHONPATH": os.pathsep.join([str(_FOLDER), *([path] if path else [])]),
    }


def settings_from_environment() -> dict[str, Any]:
    """What FISHLENS_TRACK says. Raises `InputError` if it is not ours."""
    try:
        settings = json.loads(os.environ[VARIABLE])
        return {**settings, "run": settings["run"]}
    except (KeyError, TypeError, ValueError):
        raise InputError(f"the environment variable {VARIABLE} is not what `fishlens track` sets") from None


def attach() -> None:
    """Attach to every Trainer of this process: now if transformers is there, else when it is imported."""
    settings = settings_from_environment()
    if settings.get("process") == os.getpid():
        atexit.register(_say_what_was_tracked, Path(settings["run"]), time.time())
    if _TRAINER in sys.modules:
        add_callback(sys.modules[_TRAINER])
    else:
        sys.meta_path.insert(0, _WhenImported(_TRAINER, add_callback))


def add_callback(trainer_module: ModuleType) -> None:
    """Every Trainer made from now on tracks itself; `--report_to fishlens` asks for the same."""
    from transformers import integrations
    from transformers.integrations import integration_utils

    from fishlens.tracking.attached import AttachedCallback

    if AttachedCallback not in trainer_module.DEFAULT_CALLBACKS:
        trainer_module.DEFAULT_CALLBACKS.append(AttachedCallback)
    integration_utils.INTEGRATION_TO_CALLBACK["fishlens"] = AttachedCallback
    integrations.INTEGRATION_TO_CALLBACK = integration_utils.INTEGRATION_TO_CALLBACK


def journals(run: Path, since: float = 0.0) -> list[Path]:
    """The runs that were tracked under the name `run` and written to after `since` (seconds since the epoch): itself,
    and `run-2`, … of further trainings."""
    places = [run, *sorted(run.parent.glob(f"{run.name}-[0-9]*"))]
    return [
        place
        for place in places
        if any(journal.stat().st_mtime >= since for journal in place.glob("journal-*.jsonl"))
    ]


def _say_what_was_tracked(run: Path, began: float) -> None:
    there = journals(run, since=began - 1)  # clocks of file systems are coarse
    if there:
        named = ", ".join(map(str, there))
        print(f"fishlens: tracked in {named}", file=sys.stderr)  # noqa: T201
        return
    print(  # noqa: T201
        "fishlens: NOTHING WAS TRACKED: no transformers Trainer has begun to train in this program, or a warning above "
        "says why its training could not be tracked. In a loop of your "
        "own use fishlens.Tracker; a Trainer in another program needs its environment (FISHLENS_TRACK, PYTHONPATH).",
        file=sys.stderr,
    )


class _WhenImported(importlib.abc.MetaPathFinder):
    """Finds one module as the other finders would, and calls `then` with it once it is loaded."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]):
        self._name, self._then = name, then

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._then)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, real: Any, then: Callable[[ModuleType], None]):
        self._real, self._then = real, then

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._real
        if module.__spec__ is not None:
            module.__spec__.loader = self._real
        self._real.exec_module(module)
        self._then(module)
