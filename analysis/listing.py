"""Runs as a list: one row each, chosen by their fields, sorted, and what differs between them."""

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from fishlens.errors import InputError
from fishlens.journal import Runs

from .outcomes import run_outcomes
from .selection import alike, known_field, only

_CONDITION = re.compile(r"\s*([^=<>!\s]+)\s*(!=|>=|<=|==|=|>|<)(.*)", re.DOTALL)
_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne, ">": operator.gt, "<": operator.lt, ">=": operator.ge,
    "<=": operator.le,
}  # fmt: skip
# what says where and when a run was, not what it is
_PLACE = ("run", "path", "id", "recipe", "began", "last", "date")


def listed(runs: Runs) -> pd.DataFrame:
    """One row per run: its row of `Runs.runs`, `validation` (the best headline score) and `test`.

    `test` is the report's average: the mean over the target languages of the final test, without the source; nothing
    for a run that lacks a language which another run of the same kind has.
    """
    table = runs.runs.copy()
    names = table["run"].astype(str)
    scores = runs.evaluation[runs.evaluation["headline"].astype(bool)]
    best = scores[scores["split"] == "validation"].groupby("run", observed=True)["value"].max()
    test: dict[str, float] = {}
    for _, rows in table.groupby(alike(table), sort=False):
        outcomes = run_outcomes(only(runs, rows["run"]))
        test |= dict(zip(outcomes["run"], outcomes["average"], strict=True))
    return table.assign(validation=names.map(best), test=names.map(test))


def chosen(table: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """The rows that meet all `conditions`, `FIELD=VALUE` or with !=, <, <=, >, >= in the place of =.

    A value that is a number is compared as one; nothing (`FIELD=`) is met by what is not said. Raises `InputError` for
    what is not a condition, and for a field that no run has.
    """
    for condition in conditions:
        table = table[_meets(table, condition).to_numpy(dtype=bool)]
    return table


def _meets(table: pd.DataFrame, condition: str) -> pd.Series:
    parts = _CONDITION.fullmatch(condition)
    if parts is None:
        raise InputError(
            f"--where {condition!r} is not a condition; expected FIELD=VALUE, as schedule=gu or test>=60"
        )
    field, sign, wanted = parts[1], parts[2], parts[3].strip()
    values = table[known_field(field, table.columns)].astype(object)
    compare, number = _SIGNS[sign], _number(wanted)
    if number is None and sign not in ("=", "==", "!="):
        raise InputError(f"--where {condition!r} compares with {wanted!r}; expected a number after {sign}")

    def meets(value: Any) -> bool:
        if _is_nothing(value):
            return compare("", wanted) if sign in ("=", "==", "!=") else False
        own = _number(value)
        if number is not None and own is not None:
            return compare(own, number)
        return compare(str(value), wanted) if sign in ("=", "==", "!=") else False

    return values.map(meets)


def in_order(table: pd.DataFrame, fields: Sequence[str]) -> pd.DataFrame:
    """Sorted by each field in turn, from large to small where `-` stands before it; what is not said comes last."""
    for field in reversed(fields):
        name = known_field(field.removeprefix("-"), table.columns)
        values = table[name].astype(object)
        numbers = values.map(_number)
        keys = (
            numbers.astype(float)
            if numbers.notna().sum() == values.notna().sum()
            else values.astype("string")
        )
        ranks = keys.rank(method="dense", ascending=not field.startswith("-"), na_option="bottom")
        table = table.loc[ranks.sort_values(kind="stable").index]
    return table


def differences(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The fields whose values differ between the rows: `field`, and each run's value under its name."""
    rows = []
    names = table["run"].astype(str).tolist()
    for field in map(str, table.columns):
        # an empty list and a field that is not there say the same
        values = [None if _is_nothing(v) or v == "" else v for v in table[field].astype(object)]
        if field not in _PLACE and len({_same(value) for value in values}) > 1:
            rows.append({"field": field, **dict(zip(names, values, strict=True))})
    return rows


def _same(value: Any) -> Any:
    number = _number(value)
    return str(value) if number is None else number


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value) or value is pd.NaT
