"""The tables of a report as Markdown, as CSV and as LaTeX."""

import csv
import io
import re
import textwrap
from collections.abc import Sequence

from fishlens.errors import InputError

from .cells import cell_text, is_nothing, is_number, printed_digits
from .parts import Group, Missing, Picture, Report, Section, Statement, Table

IN_ONE_COLUMN = 4  # columns of a table that fit into one of a paper's two columns
HEADING = 14  # letters of a heading's line in LaTeX
PAGE = 455.0  # points: the width of a page of two columns
# of letters: the command, points of a letter and between two columns, characters in a line of a heading
SIZES = (
    ("", 5.0, 12.0, HEADING),
    (r"\footnotesize\setlength{\tabcolsep}{4pt}", 4.2, 8.0, HEADING),
    (r"\scriptsize\setlength{\tabcolsep}{2pt}", 3.7, 4.0, 10),
)
_CAVEAT = "Figures are in the HTML report."


def to_markdown(report: Report) -> str:
    """All sections, tables as pipe tables with the runs that they come from, figures named only."""
    lines = [f"# {_md(report.title)}", "", _md(report.made), ""]
    lines += [f"> **Warning:** {_md(warning)}\n" for warning in report.warnings]
    lines += _statements(report.answer)
    if len(report.groups) > 1:
        for group in report.groups:
            lines += [f"**{_md(group.title)}**", "", *_statements(group.answer)]
    if report.overview is not None:
        lines += _markdown_section(report.overview, "##")
    for group in report.groups:
        lines += [f"## {_md(group.title)}", ""]
        for section in group.sections:
            lines += _markdown_section(section, "###")
    if report.left_out:
        lines += ["## Left out", ""]
        lines += [f"- {_code(run)}: {_md(reason)}" for run, reason in report.left_out.items()] + [""]
    if report.definitions:
        lines += ["## Definitions", "", *(f"{_md(text)}\n" for text in report.definitions.split("\n\n"))]
    return "\n".join(lines).rstrip() + "\n"


def _statements(some: Sequence[Statement]) -> list[str]:
    return [f"**{_md(one.claim)}** {_md(one.evidence)}\n" for one in some]


def _markdown_section(section: Section, mark: str) -> list[str]:
    lines = [f"{mark} {_md(section.title)}", ""]
    lines += [f"{_md(text)}\n" for text in section.text.split("\n\n") if text]
    for item in section.items:
        lines += _markdown_item(item)
    return lines


def _markdown_item(item: Table | Picture | Missing) -> list[str]:
    if isinstance(item, Missing):
        return [f"**{_md(item.title)}** {_md(item.reason)}", ""]
    if isinstance(item, Picture):
        return [f"*Figure: {_md(item.title)}. {_md(item.caption)}* {_CAVEAT}", ""]
    rows = item.rows
    right = ["---:" if is_number(column, rows) else ":---" for column in item.columns]
    lines = [f"**{_md(item.title)}**", "", _pipe([_md(c.label) for c in item.columns]), _pipe(right)]
    lines += [_pipe([_md(cell_text(column, row)) for column in item.columns]) for row in rows]
    if item.note:
        lines += ["", _md(item.note)]
    lines += ["", "<details><summary>Runs behind this table</summary>", ""]
    lines += [f"- {_md(what)}: {', '.join(map(_code, runs))}" for what, runs in item.source_runs.items()]
    return [*lines, "", "</details>", ""]


def _pipe(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _md(text: str) -> str:
    """Plain text as Markdown that shows it: no markup, no HTML, no table column made by a name."""
    text = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_|\[\]#~$])", r"\\\1", text)


def _code(name: str) -> str:
    """A run's name as code, whatever is in it."""
    name = " ".join(str(name).split())
    fence = "`" * (max(map(len, re.findall(r"`+", name)), default=0) + 1)
    padding = " " if name.startswith("`") or name.endswith("`") else ""
    return f"{fence}{padding}{name}{padding}{fence}"


def table_to_csv(table: Table) -> str:
    """One table in full precision: a column for every number (spreads and interval ends too), and `run_names`.

    A cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = [key for column in table.columns for key in column.keys]
    writer.writerow([*keys, "run_names"])
    first = table.columns[0].key
    for row in table.rows:
        source_runs = table.source_runs.get(str(row.get(first)), ())
        cells = [row.get(key) for key in keys]
        writer.writerow([*(_csv_cell(cell) for cell in cells), _csv_cell(" ".join(source_runs))])
    return text.getvalue()


def _csv_cell(value: object) -> object:
    if is_nothing(value):
        return ""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value


def to_csv(report: Report) -> dict[str, str]:
    """File name -> CSV text, one file a table."""
    return {f"{report.file_name(group, table)}.csv": table_to_csv(table) for group, table in report.tables}


def to_latex(report: Report, table: str | None = None) -> str:
    r"""Tables for `\usepackage{booktabs}`, one `table` environment each, with the runs they come from as comments: all
    of them, or those called `table`.

    In columns of scores the best is bold and the second underlined, by the number printed: what prints alike is marked
    alike. Raises `InputError` for a table that there is not.
    """
    lines = ["% " + _one_line(report.made), r"% needs \usepackage{booktabs}", ""]
    for group, one in named_tables(report, table):
        caption = f"{group.title}: {one.title}" if len(report.groups) > 1 else one.title
        lines += _latex_table(one, caption, label=f"tab:{report.file_name(group, one)}")
    return "\n".join(lines)


def named_tables(report: Report, name: str | None) -> list[tuple[Group, Table]]:
    """The tables of this name (`table-1`: of every group; `g2-…-table-1`: of one), all where none is given."""
    if name is None:
        return report.tables
    found = [(group, one) for group, one in report.tables if name in (one.name, report.file_name(group, one))]
    if not found:
        names = dict.fromkeys(one.name for _, one in report.tables)
        raise InputError(f"the report has no table {name!r}; expected one of {', '.join(names)}")
    return found


def _marks(table: Table) -> dict[tuple[int, str], str]:
    """(row, key of a column) → `textbf` for the best score of its column or row, `underline` for the second."""
    ranked = [column for column in table.columns if column.ranked]
    printed = {
        (i, column.key): round(float(row[column.key]), printed_digits(column, row) or 0)
        for i, row in enumerate(table.rows)
        for column in ranked
        if not is_nothing(row.get(column.key))
    }
    lines = {column.key for column in ranked} if table.best == "column" else range(len(table.rows))
    marks = {}
    for line in lines:
        cells = {
            cell: value for cell, value in printed.items() if line == cell[1 if table.best == "column" else 0]
        }
        highest = sorted(set(cells.values()), reverse=True)[:2]
        for cell, value in cells.items() if len(highest) > 1 else ():
            if value in highest:
                marks[cell] = "textbf" if value == highest[0] else "underline"
    return marks


def _latex_table(table: Table, caption: str, label: str) -> list[str]:
    rows = table.rows
    align = "".join("r" if is_number(column, rows) else "l" for column in table.columns)
    lines = [f"% {_one_line(what)}: {_one_line(' '.join(runs))}" for what, runs in table.source_runs.items()]
    kind = "table" if len(table.columns) <= IN_ONE_COLUMN else "table*"
    lines += [rf"\begin{{{kind}}}", r"\centering", rf"\caption{{{_tex(caption)}}}", rf"\label{{{label}}}"]
    size, heading = _size(table)
    lines += [size] if size else []
    lines += [rf"\begin{{tabular}}{{{align}}}", r"\toprule"]
    heads = [_heading(column.label, side, heading) for column, side in zip(table.columns, align, strict=True)]
    lines += [" & ".join(heads) + r" \\", r"\midrule"]
    marks = _marks(table)
    for i, row in enumerate(rows):
        cells = [
            _marked(_tex(cell_text(column, row)), marks.get((i, column.key))) for column in table.columns
        ]
        lines.append(_after_break(" & ".join(cells)) + r" \\")
    said = (
        f"{table.note} Bold: the highest of its {table.best}; underlined: the second."
        if marks
        else table.note
    )
    note = [rf"\par\smallskip\footnotesize {_tex(said)}"] if said else []
    return [*lines, r"\bottomrule", r"\end{tabular}", *note, rf"\end{{{kind}}}", ""]


def _size(table: Table) -> tuple[str, int]:
    """(command for the size of letters, characters in a line of a heading): the largest letters with which the table
    is no wider than the page."""
    found = ("", HEADING)
    for command, letter, gap, heading in SIZES:
        width, found = 0.0, (command, heading)
        for column in table.columns:
            texts = [cell_text(column, row) for row in table.rows] + textwrap.wrap(column.label, heading)
            width += letter * max(map(len, texts), default=0) + gap
        if width <= PAGE:
            break
    return found


def _heading(label: str, side: str, width: int) -> str:
    """A column's heading; a long one on several lines."""
    parts = [_after_break(_tex(part)) for part in textwrap.wrap(label, width)]
    lines = r" \\ ".join(parts)
    return rf"\shortstack[{side}]{{{lines}}}" if len(parts) > 1 else lines


def _after_break(text: str) -> str:
    """Text that may follow a line break: LaTeX would take a bracket or an asterisk for an option of the break."""
    return "{}" + text if text.startswith(("[", "*")) else text


def _marked(cell: str, mark: str | None) -> str:
    """The number of a cell marked, not its spread."""
    if mark is None:
        return cell
    number, *rest = re.split(r"( \$\\pm\$| \[)", cell, maxsplit=1)
    return rf"\{mark}{{{number}}}" + "".join(rest)


def _one_line(text: str) -> str:
    return " ".join(text.split())


_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "–": "--",
    "±": r"$\pm$",
    "×": r"$\times$",
    "∞": r"$\infty$",
    "ρ": r"$\rho$",
    "τ": r"$\tau$",
    "²": r"$^2$",
    "<": r"$<$",
    ">": r"$>$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    **{character: f"\\{character}" for character in "&%$#_"},
}


def _tex(text: str) -> str:
    """Plain text as LaTeX that prints it."""
    return "".join(_TEX.get(character, character) for character in _one_line(text))
