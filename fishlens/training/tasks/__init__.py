"""The tasks: what is read, fed to the model, and scored. `base.py` is the contract of the family."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from fishlens.errors import InputError
from fishlens.training.tasks.base import Prediction, Split, Task, subset, write_predictions

__all__ = ["TASKS", "Prediction", "Split", "Task", "make_task", "subset", "write_predictions"]

TASKS: dict[str, str] = {
    "nli": "fishlens.training.tasks.nli:NLI",
    "qa": "fishlens.training.tasks.qa:QA",
    "choice": "fishlens.training.tasks.choice:Choice",
    "pos": "fishlens.training.tasks.pos:POS",
    "ner": "fishlens.training.tasks.ner:NER",
    "topic": "fishlens.training.tasks.topic:Topic",
}
"""name -> module and class."""


def make_task(name: str, files: Mapping[str, Any] | None = None, **options: Any) -> Task:
    """The task of this name.

    Args:
        name: a key of `TASKS`, or ``module:Class`` for one's own subclass of `Task`.
        files: places that override the official layout, by split (`train`, `validation`, `test`): a path pattern with
            ``{language}``, a plain path (not for `test`), or ``{language: path}``; below the root unless absolute.
        options: what the task's constructor takes.

    Raises:
        InputError: no task of that name, or an option it does not have.
    """
    where = TASKS.get(name, name)
    module, _, attribute = where.partition(":")
    if not attribute:
        raise InputError(f"unknown task {name!r}: expected {', '.join(TASKS)}, or module:Class of your own")
    try:
        kind = getattr(import_module(module), attribute)
    except Exception as error:  # a user's module may raise whatever it likes
        raise InputError(f"task {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise InputError(f"task {name!r} is not a subclass of fishlens.training.tasks.Task")
    _check_options(name, kind, options)
    return kind(files=files, **options)  # type: ignore[call-arg]


def _check_options(name: str, kind: Any, options: Mapping[str, Any]) -> None:
    known = [p for p in inspect.signature(kind).parameters if p != "files"]
    for option in options:
        if option not in known:
            raise InputError(f"task {name!r} has no option {option!r}: it has {', '.join(known) or 'none'}")
