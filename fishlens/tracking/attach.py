"""Attaching to every Trainer that a process makes, without changing its script.

`transformers.trainer` keeps a list of callbacks that every Trainer gets; ours is added to it when that module is
imported, and not before, so that a script still decides when transformers is imported and with what environment.
Settings travel in an environment variable (`settings`), which children inherit: `accelerate launch`, `torchrun`,
data-loader workers. Nothing here may stop or change the program: all of it runs behind the guard.
"""

import atexit
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from fishlens.tracking.account import say_what_was_tracked
from fishlens.tracking.guard import after, before, shielded
from fishlens.tracking.settings import VARIABLE, remember, settings_from_environment

_TRAINER = "transformers.trainer"
_FOLDER = Path(__file__).with_name("startup")


def environment(settings: dict[str, Any], process: int | None = None) -> dict[str, str]:
    """This process's environment for a Python that is to be tracked.

    settings: `run` (directory) and arguments of `FisherCallback`; `languages` as the fields of `Texts`, which go
    through a file, because a variable is too small. process: the one that says at its end what was tracked; by default
    this one, which is about to become that Python.
    """
    account, name = tempfile.mkstemp(prefix="fishlens-", suffix=".jsonl")
    os.close(account)
    if "languages" in settings:
        _languages_beside(Path(name)).write_text(json.dumps(settings["languages"]), encoding="utf-8")
        settings = {**settings, "languages": str(_languages_beside(Path(name)))}
    content = {**settings, "account": name, "process": os.getpid() if process is None else process}
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        VARIABLE: json.dumps(content),
        "PYTHONPATH": os.pathsep.join([str(_FOLDER), *([path] if path else [])]),
    }


def account_of(variables: dict[str, str]) -> Path:
    """The file in which a tracked program's trainings are accounted for."""
    return Path(json.loads(variables[VARIABLE])["account"])


def _languages_beside(account: Path) -> Path:
    return account.with_suffix(".languages.json")


def attach() -> None:
    """Attach to every Trainer of this process: now if transformers is there, else when it is imported."""
    shielded(_attach)


def _attach() -> None:
    settings = settings_from_environment()
    if settings.get("process") == os.getpid():
        remember(settings)
        atexit.register(shielded, end, Path(settings["account"]))
    if _TRAINER in sys.modules:
        add_callback(sys.modules[_TRAINER])
    else:
        sys.meta_path.insert(0, _WhenImported())


def end(account: Path) -> None:
    """The last thing that the program says: what was tracked, and what was not."""
    say_what_was_tracked(account)
    account.unlink()
    _languages_beside(account).unlink(missing_ok=True)


def add_callback(trainer_module: ModuleType) -> None:
    """Every Trainer made from now on tracks itself; `--report_to fishlens` asks for the same."""
    from transformers import integrations
    from transformers.integrations import integration_utils

    from fishlens.tracking.attached import AttachedCallback

    if AttachedCallback not in trainer_module.DEFAULT_CALLBACKS:
        trainer_module.DEFAULT_CALLBACKS.append(AttachedCallback)
    integration_utils.INTEGRATION_TO_CALLBACK["fishlens"] = AttachedCallback
    integrations.INTEGRATION_TO_CALLBACK = integration_utils.INTEGRATION_TO_CALLBACK


class _WhenImported(importlib.abc.MetaPathFinder):
    """Finds the Trainer's module as the other finders would, and adds the callback once it is loaded."""

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        return shielded(self._found) if fullname == _TRAINER else None

    def _found(self) -> importlib.machinery.ModuleSpec | None:
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(_TRAINER)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """The real loader; it is put back before the module runs."""

    def __init__(self, real: Any):
        vars(self)["create_module"] = real.create_module
        vars(self)["exec_module"] = after(before(real.exec_module, self._step_aside), add_callback)
        self._real = real

    def _step_aside(self, module: ModuleType) -> None:
        module.__loader__ = self._real
        if module.__spec__ is not None:
            module.__spec__.loader = self._real
