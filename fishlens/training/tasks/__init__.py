"""The tasks: what is read, fed to the model, and scored. `base.py` is the contract of the family.

What a task of one's own needs is exported here: docs/tasks.md and docs/extending.md.
"""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from fishlens.errors import InputError
from fishlens.own_code import load_class
from fishlens.training.data.lines import at, numbered_lines
from fishlens.training.tasks.base import Prediction, Split, Task, subset, write_predictions
from fishlens.training.tasks.classification import Classification, TextExample
from fishlens.training.tasks.layout import SPLITS, Layout, Place
from fishlens.training.tasks.likelihood import by_likelihood

__all__ = [
    "SPLITS",
    "TASKS",
    "Classification",
    "Layout",
    "Place",
    "Prediction",
    "Split",
    "Task",
    "TextExample",
    "at",
    "make_task",
    "numbered_lines",
    "subset",
    "write_predictions",
]

TASKS: dict[str, str] = {
    "nli": "fishlens.training.tasks.nli:NLI",
    "qa": "fishlens.training.tasks.qa:QA",
    "choice": "fishlens.training.tasks.choice:Choice",
    "pos": "fishlens.training.tasks.pos:POS",
    "ner": "fishlens.training.tasks.ner:NER",
    "topic": "fishlens.training.tasks.topic:Topic",
    "text": "fishlens.training.tasks.text:Text",
    "pair": "fishlens.training.tasks.text:Pair",
    "multilabel": "fishlens.training.tasks.text:Multilabel",
    "regression": "fishlens.training.tasks.text:Regression",
    "tagging": "fishlens.training.tasks.tagged:ColumnTagging",
}
"""name -> module and class."""


def make_task(name: str, files: Mapping[str, Any] | None = None, **options: Any) -> Task:
    """The task of this name.

    Args:
        name: a key of `TASKS`, or ``module:Class`` for one's own subclass of `Task`.
        files: places that override the official layout, by split (`train`, `validation`, `test`): a path pattern with
            ``{language}``, a plain path (not for `test`), or ``{language: path}``; below the root unless absolute.
        options: what the task's constructor takes; of a classification also `prompt` and `answers`, by whose
            likelihood a language model tells the labels (likelihood.py).

    Raises:
        InputError: no task of that name, or an option it does not have.
    """
    where = TASKS.get(name, name)
    module, _, attribute = where.partition(":")
    if not attribute:
        raise InputError(f"unknown task {name!r}; expected {', '.join(TASKS)}, or module:Class of your own")
    kind = getattr(import_module(module), attribute) if name in TASKS else load_class(name, "task.name")
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise InputError(f"task {name!r} is not a subclass of fishlens.training.tasks.Task")
    if "answers" in options and issubclass(kind, Classification):
        kind = by_likelihood(kind)
    _check_options(name, kind, options)
    return kind(files=files, **options)  # type: ignore[call-arg]


def _check_options(name: str, kind: Any, options: Mapping[str, Any]) -> None:
    known = options_of(kind)
    for option in options:
        if option not in known:
            raise InputError(f"task {name!r} has no option {option!r}: it has {', '.join(known) or 'none'}")


def options_of(kind: type[Task]) -> list[str]:
    """The options that a task's constructor takes, those that it hands on to its bases included."""
    found: list[str] = []
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        handed_on = any(p.kind is p.VAR_KEYWORD for p in parameters)
        found += [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
        if not handed_on:
            break
    return [name for name in dict.fromkeys(found) if name not in ("files", "layout")]
