"""Schedules by name."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from fishlens.errors import InputError
from fishlens.own_code import load_class
from fishlens.schedules.auto_rgn import AutoRgn
from fishlens.schedules.base import Schedule
from fishlens.schedules.fixed import Fixed
from fishlens.schedules.fun import Fun
from fishlens.schedules.gradual import Gradual, GradualReverse
from fishlens.schedules.lpft import LinearProbingThenFineTuning
from fishlens.schedules.random_order import RandomOrder
from fishlens.schedules.standard import Full, Standard
from fishlens.schedules.surgical import Surgical

SCHEDULES: dict[str, type[Schedule]] = {
    cls.name: cls
    for cls in (
        Standard,
        Gradual,
        GradualReverse,
        LinearProbingThenFineTuning,
        RandomOrder,
        Fixed,
        Fun,
        Surgical,
        AutoRgn,
        Full,
    )
}


_SET_ELSEWHERE = {
    "name": "set schedule.name",
    "every": "set schedule.every",
    "seed": "set the run's seed",
    "blocks": "they are those of the model (blocks: in a recipe)",
}


def check_options(options: Mapping[str, Any]) -> None:
    """Raises `InputError` for what every schedule is given from elsewhere and is not among its options."""
    for name, where in _SET_ELSEWHERE.items():
        if name in options:
            raise InputError(f"{name} is not a schedule option: {where}")


def make_schedule(name: str, *, every: int, blocks: Sequence[str], seed: int = 0, **options: Any) -> Schedule:
    """The schedule called `name` (or the user's class `module:Class`) over `blocks`, bottom to top without the head.

    Raises `InputError` for an unknown name, an option that the schedule does not have, or a bad value.
    """
    cls = schedule_class(name)
    known = set(inspect.signature(cls).parameters) - {"every", "blocks", "seed"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise InputError(
            f"schedule.{unknown[0]} is not an option of the schedule {name!r}, which has "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    try:
        return cls(every=every, blocks=tuple(blocks), seed=seed, **options)
    except TypeError as error:
        hint = (
            "; expected its options as fields of a frozen dataclass: @dataclass(frozen=True), wait: int = 0"
        )
        raise InputError(
            f"the schedule {name!r} cannot be made with {options}: {error}{hint if '__init__' in str(error) else ''}"
        ) from error


def schedule_class(name: str) -> type[Schedule]:
    """The class behind a schedule's name, bundled or `module:Class`."""
    if name in SCHEDULES:
        return SCHEDULES[name]
    if ":" not in name:
        raise InputError(
            f"schedule.name is {name!r}; expected one of {', '.join(SCHEDULES)} or your own class as module:Class"
        )
    cls = load_class(name, "schedule.name")
    if not (isinstance(cls, type) and issubclass(cls, Schedule)):
        raise InputError(f"schedule.name is {name!r}; expected a subclass of fishlens.schedules.Schedule")
    return cls
