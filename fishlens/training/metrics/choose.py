"""Metrics by name: the ones a task offers, or a function of one's own as module:function."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fishlens.errors import InputError
from fishlens.journal.declarations import SCORE
from fishlens.own_code import load_class, said

Metric = Callable[[Sequence[Any], Sequence[Any]], float]
"""(gold, predicted) of all examples -> points"""


def choose_metrics(
    task: str, offered: Mapping[str, Metric], wanted: Sequence[str] | str | None, default: Sequence[str]
) -> dict[str, Metric]:
    """{name: metric}, in the order asked for. `module:function` is called by its function's name.

    Raises:
        InputError: a name that is neither offered nor can be imported, or one that is there twice.
    """
    given = default if wanted is None else [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
        raise InputError(
            f"task {task!r}: metrics is {wanted!r:.100}; expected a list of some of {', '.join(offered)}"
        )
    names = list(given)
    if not names:
        raise InputError(f"task {task!r} is given no metric; expected some of {', '.join(offered)}")
    chosen: dict[str, Metric] = {}
    for name in names:
        short, metric = str(name).rpartition(":")[2], offered.get(name)
        if metric is None:
            metric = _import(task, str(name), offered)
        if short in chosen:
            raise InputError(f"task {task!r} is given the metric {short!r} twice; expected it once")
        chosen[short] = metric
    return chosen


def _import(task: str, name: str, offered: Mapping[str, Metric]) -> Metric:
    module = name.rpartition(":")[0]
    if not module:
        raise InputError(
            f"task {task!r} has no metric {name!r}; expected {', '.join(offered)}, or module:function of your own"
        )
    found = load_class(name, "task.metrics")
    if not callable(found):
        raise InputError(
            f"metric {name!r} is {found!r:.60}; expected a function of gold and predicted labels"
        )
    return found


def points(metrics: Mapping[str, Metric], gold: Sequence[Any], predicted: Sequence[Any]) -> dict[str, float]:
    """{name: points}; InputError for a metric that gives no points (0-100; correlations from -100)."""
    found = {}
    for name, metric in metrics.items():
        try:
            value = float(metric(gold, predicted))
        except Exception as error:  # a user's function may raise whatever it likes
            raise InputError(f"metric {name!r} gives no number: {said(error)}") from error
        if math.isnan(value) or not SCORE.hold(value):
            raise InputError(
                f"metric {name!r} gives {value}; expected points from 0 to 100, of which more is better"
            )
        found[name] = value
    return found
