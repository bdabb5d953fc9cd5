"""What stands after ±: the standard deviation over runs, the mean's standard error, its interval, or nothing."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from scipy import stats

from fishlens.errors import InputError

from .parts import Column, Item, Report, Section, Table

SPREADS = {
    "sd": "± standard deviation over runs",
    "se": "± standard error over runs",
    "interval": "[95% interval over runs, Student's t]",
    "none": "over runs",
}
_WRITTEN = SPREADS["sd"]  # in the notes of tables


def with_spread(report: Report, kind: str) -> Report:
    """The same report with another spread beside every mean over runs. Raises `InputError` for an unknown one."""
    if kind not in SPREADS:
        raise InputError(f"there is no spread {kind!r}; expected one of {', '.join(SPREADS)}")
    if kind == "sd":
        return report
    groups = [
        replace(group, sections=[_section(one, kind) for one in group.sections]) for group in report.groups
    ]
    overview = None if report.overview is None else _section(report.overview, kind)
    return replace(report, groups=groups, overview=overview)


def _section(section: Section, kind: str) -> Section:
    return replace(section, items=[_item(item, kind) for item in section.items])


def _item(item: Item, kind: str) -> Item:
    if not isinstance(item, Table) or not any(_over_runs(column) for column in item.columns):
        return item
    columns = [_column(column, kind) if _over_runs(column) else column for column in item.columns]
    counted = [column for column in item.columns if _over_runs(column)]
    rows = [
        {**row, **{k: v for column in counted for k, v in _ends(column, row).items()}} for row in item.rows
    ]
    return replace(item, columns=columns, rows=rows, note=item.note.replace(_WRITTEN, SPREADS[kind]))


def _over_runs(column: Column) -> bool:
    return column.plus_minus is not None and column.count is not None


def _column(column: Column, kind: str) -> Column:
    if kind == "se":
        return replace(column, plus_minus=f"{column.key}_se")
    if kind == "interval":
        return replace(
            column, plus_minus=None, interval=(f"{column.key}_low", f"{column.key}_high"), bounded=True
        )
    return replace(
        column, plus_minus=None, digits=None if column.digits is None else max(column.digits - 1, 0)
    )


def _ends(column: Column, row: Mapping[str, Any]) -> dict[str, float]:
    mean, sd, n = (_number(row.get(key)) for key in (column.key, str(column.plus_minus), str(column.count)))
    error = sd / math.sqrt(n) if n > 1 else math.nan
    reach = float(stats.t.ppf(0.975, n - 1)) * error if n > 1 else math.nan
    return {f"{column.key}_se": error, f"{column.key}_low": mean - reach, f"{column.key}_high": mean + reach}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
