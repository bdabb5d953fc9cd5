"""What a kind of records is declared with: the types of its fields, their limits, and how its frame keeps them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

STATUSES = ("finished", "interrupted", "failed")
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_LATEST = 1e11  # seconds since the epoch: a later time is not a time
_MOST_STEPS = 2**53
MOST_SETTINGS = 10_000
_ROUNDING = 1e-6  # of a limit, or of 1: sums and square roots end a little beyond it


@dataclass(frozen=True)
class Type:
    """What a field's values are: said in words, tested, and how a frame keeps them.

    `dtype`: float64, bool, int64, category, or object (text); None where no frame has the field.
    `by_block`: the field is `{block: value}`.
    """

    words: str
    holds: Callable[[Any], bool]
    dtype: str | None = None
    by_block: bool = False


def is_number(value: Any) -> bool:
    """A number that a float64 holds, or the name of one that is not finite."""
    if type(value) is float:
        return True
    if type(value) is int:
        return abs(value) < 2**1023
    return type(value) is str and value in NOT_FINITE


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST_STEPS


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < _LATEST


def _is_name(value: Any) -> bool:
    return type(value) is str


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_names(value: Any) -> bool:
    return type(value) is list and all(type(item) is str for item in value)


def _is_ids(value: Any) -> bool:
    return type(value) is list and all(type(item) is str or _is_plain(item) for item in value)


def _are_numbers(value: Any) -> bool:
    if type(value) is not dict:
        return False
    return {*map(type, value.values())} <= {float} or all(map(_is_number_or_none, value.values()))


def _is_number_or_none(value: Any) -> bool:
    return value is None or is_number(value)


def _are_flags(value: Any) -> bool:
    return type(value) is dict and {*map(type, value.values())} <= {bool}


def _are_counts(value: Any) -> bool:
    return type(value) is dict and all(map(_is_count, value.values()))


def _is_plain(value: Any) -> bool:
    """Settings of any depth, without whole numbers that no table can hold."""
    if type(value) is dict:
        return all(map(_is_plain, value.values()))
    if type(value) is list:
        return all(map(_is_plain, value))
    return type(value) is not int or abs(value) < 2**63


def _are_settings(value: Any) -> bool:
    return type(value) is dict and _is_plain(value) and _count(value) <= MOST_SETTINGS


def _count(value: Any) -> int:
    """Of names and values of any depth; each makes a column of a table."""
    if type(value) is dict:
        return len(value) + sum(map(_count, value.values()))
    return 0


NUMBER = Type("a number", is_number, "float64")
COUNT = Type("a whole number, 0 or more", _is_count, "float64")
TIME = Type("seconds since 1970", _is_time, "float64")
NAME = Type("a name", _is_name, "category")
BLOCK = Type("the name of a block", _is_name, "category")
TEXT = Type("text", _is_name, "object")
FLAG = Type("true or false", _is_flag, "bool")
STATUS = Type(f"one of {', '.join(STATUSES)}", _is_name)
BLOCKS = Type("a list of blocks", _is_names)
IDS = Type("a list of names or whole numbers", _is_ids)
NUMBERS = Type("a number for each block", _are_numbers, "float64", by_block=True)
FLAGS = Type("true or false for each block", _are_flags, "bool", by_block=True)
COUNTS = Type("a whole number for each block", _are_counts, by_block=True)
SETTINGS = Type("names and values", _are_settings)


@dataclass(frozen=True)
class Limits:
    """Between which values a number lies, both included; `unless` names a field that lifts them where it is said.

    A NaN lies within all limits: it says that there is no value.
    """

    low: float
    high: float
    unless: str | None = None

    def hold(self, value: Any) -> bool:
        """For a number, the name of one that is not finite, or None; and for a mapping of them."""
        if type(value) is dict:
            if {*map(type, value.values())} == {float}:  # almost always: and quicker than one by one
                return self._holds(min(value.values())) and self._holds(max(value.values()))
            return all(map(self.hold, value.values()))
        return value is None or self._holds(NOT_FINITE[value] if type(value) is str else value)

    def _holds(self, value: float) -> bool:
        return not (value < self.low - self.slack(self.low) or value > self.high + self.slack(self.high))

    def slack(self, limit: float) -> float:
        return _ROUNDING * max(1.0, abs(limit)) if math.isfinite(limit) else 0.0

    @property
    def words(self) -> str:
        if self.high == math.inf:
            return f"{self.low:g} or more"
        return f"a number from {self.low:g} to {self.high:g}"


POSITIVE = Limits(0.0, math.inf)
SHARE = Limits(0.0, 1.0)
POINTS = Limits(0.0, 100.0)
SCORE = Limits(-100.0, 100.0, unless="unit")  # correlations are negative, too


@dataclass(frozen=True)
class Field:
    """One field: its type, what it says, its unit, and whether a record without it is damaged."""

    type: Type
    says: str
    unit: str = ""
    required: bool = False
    since: int = 0  # the minor version that added it
    limits: Limits | None = None


@dataclass(frozen=True)
class Column:
    """A column of a frame that is not simply a field under the field's own name and type."""

    name: str
    field: str
    dtype: str = ""
    missing: int = 0  # what stands for none in an int64 column
    since: int = 0


@dataclass(frozen=True)
class Kind:
    """One kind of record.

    `identity`: the fields that, with kind and step, tell two records apart; of equal ones the last attempt's is kept.
    `table`, `columns`: the frame made of these records, after run, step and time; a string is the field of that name.
    `each`: the field whose items make a row each (columns `block` and `position`), or None: a row a record.
    `needs`: a record has at least one of these. `since`: the minor version that added the kind.
    """

    name: str
    says: str
    fields: Mapping[str, Field]
    identity: tuple[str, ...] = ()
    table: str | None = None
    columns: tuple[str | Column, ...] = ()
    each: str | None = None
    needs: tuple[str, ...] = field(default=())
    since: int = 0

    def problem(self, record: Mapping[str, Any]) -> str | None:
        """What is wrong with a record of this kind, in words; None for a good one. Unknown fields are allowed."""
        for name, declared in self.fields.items():
            value = record.get(name)
            if value is None:
                if declared.required:
                    return f"a {self.name!r} record without {name}; expected {declared.type.words}"
            elif not declared.type.holds(value):
                return (
                    f"a {self.name!r} record whose {name} is {_short(value)}; expected {declared.type.words}"
                )
            elif not _within(declared, record, value):
                assert declared.limits is not None
                found = _short(_worst(value, declared.limits))
                unit = f" {declared.unit.split(' unless')[0]}" if declared.unit else ""
                return (
                    f"a {self.name!r} record whose {name} is {found}; expected {declared.limits.words}{unit}"
                )
        if self.needs and all(record.get(name) is None for name in self.needs):
            return f"a {self.name!r} record without {' and '.join(self.needs)}"
        return None


def _within(declared: Field, record: Mapping[str, Any], value: Any) -> bool:
    limits = declared.limits
    if limits is None or (limits.unless is not None and record.get(limits.unless) is not None):
        return True
    return limits.hold(value)


def _worst(value: Any, limits: Limits) -> Any:
    """The number outside the limits; of several the first."""
    if type(value) is dict:
        return next(one for one in value.values() if not limits.hold(one))
    return value


def _short(value: Any) -> str:
    if type(value) is int and abs(value) >= 2**63:
        return "a number of more than 64 bits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
