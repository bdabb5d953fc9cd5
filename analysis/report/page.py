"""The report as one HTML file: no script, font, picture or style comes from anywhere else."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from numbers import Real
from typing import Any

import jinja2
from markupsafe import Markup

from ..figures.fonts import SHOWN_ELSEWHERE
from ..figures.svg import inline_svg
from .cells import cell_text, is_nothing, is_number
from .parts import ALL_GROUPS, Column, Group, Missing, Picture, Report, Section, Table

WORDS = 30  # characters from which on a cell is read, not looked up
MOST_WHOLE = 24  # groups that a page shows whole
MOST_ROWS = 1000  # of one table; the rest stands in the CSV


def to_html(report: Report) -> str:
    """The whole page. Every text is escaped; what is not comes from this package's own templates or matplotlib.

    Of more than `MOST_WHOLE` groups the page has no figures and no folded tables: the other formats have the tables.
    """
    report = _lean(report)
    templates = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.tests["table"] = lambda item: isinstance(item, Table)
    templates.tests["picture"] = lambda item: isinstance(item, Picture)
    templates.tests["missing"] = lambda item: isinstance(item, Missing)
    templates.globals.update(
        anchor=_anchor,
        cell=cell_text,
        sort_key=_sort_key,
        kinds=_kinds,
        svg=_svg,
        most_rows=MOST_ROWS,
        whole=ALL_GROUPS,
        style=Markup(_template("report.css")),
        script=Markup(_template("report.js")),
    )
    return templates.get_template("report.html.jinja").render(report=report)


def _lean(report: Report) -> Report:
    if len(report.groups) <= MOST_WHOLE:
        return report
    groups = [
        replace(group, sections=list(filter(None, map(_tables_only, group.sections))))
        for group in report.groups
    ]
    said = (
        f"Of {len(groups)} groups the page has the answer and the main tables. One alone (--where FIELD=VALUE) has its "
        "figures too; --format csv has every table."
    )
    return replace(report, groups=groups, warnings=[*report.warnings, said])


def _tables_only(section: Section) -> Section | None:
    items = [
        item
        for item in section.items
        if isinstance(item, Missing) or (isinstance(item, Table) and not item.folded)
    ]
    return replace(section, text="", items=items) if items else None


def _template(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _anchor(group: Group, name: str) -> str:
    """The id of something in a group; names of groups and items are made by us and safe in ids."""
    return f"{group.name}-{name}"


def _svg(group: Group, picture: Picture) -> Markup:
    description = f"{picture.title}. {picture.caption}"
    browser = SHOWN_ELSEWHERE.set(True)
    try:
        return Markup(inline_svg(picture.figure, _anchor(group, picture.name), description))
    finally:
        SHOWN_ELSEWHERE.reset(browser)


def _kinds(table: Table) -> list[str]:
    """The class of each column's cells: number, text, or words, whose lines would be too short to read on a phone."""
    return [_kind(column, table.rows) for column in table.columns]


def _kind(column: Column, rows: Sequence[Mapping[str, Any]]) -> str:
    if is_number(column, rows):
        return "number"
    return "words" if any(len(cell_text(column, row)) > WORDS for row in rows) else "text"


def _sort_key(column: Column, row: Mapping[str, Any]) -> str:
    """What the browser sorts by: the number itself, whatever the cell shows."""
    value = row.get(column.key)
    if is_nothing(value):
        return ""
    if isinstance(value, Real) and math.isinf(float(value)):
        return "Infinity" if float(value) > 0 else "-Infinity"
    return str(value)
