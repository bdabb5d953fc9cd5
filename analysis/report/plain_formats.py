"""The tables of a report as Markdown, as CSV and as LaTeX."""

import csv
import io
import re
from collections.abc import Sequence

from .cells import cell_text, is_nothing, is_number
from .parts import Missing, Picture, Report, Section, Statement, Table

_CAVEAT = "Figures are in the HTML report."


def to_markdown(report: Report) -> str:
    """All sections, tables as pipe tables, figures named only; which runs are behind a table stands below it."""
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
    lines += [f"- {_md(what)}: {', '.join(map(_code, runs))}" for what, runs in item.behind.items()]
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
        behind = table.behind.get(str(row.get(first)), ())
        cells = [row.get(key) for key in keys]
        writer.writerow([*(_csv_cell(cell) for cell in cells), _csv_cell(" ".join(behind))])
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


def to_latex(report: Report) -> str:
    r"""All tables for `\usepackage{booktabs}`, one `table` environment each, with the runs behind them as comments."""
    lines = ["% " + _one_line(report.made), r"% needs \usepackage{booktabs}", ""]
    for group, table in report.tables:
        caption = f"{group.title}: {table.title}" if len(report.groups) > 1 else table.title
        lines += _latex_table(table, caption, label=f"tab:{report.file_name(group, table)}")
    return "\n".join(lines)


def _latex_table(table: Table, caption: str, label: str) -> list[str]:
    rows = table.rows
    align = "".join("r" if is_number(column, rows) else "l" for column in table.columns)
    lines = [f"% {_one_line(what)}: {_one_line(' '.join(runs))}" for what, runs in table.behind.items()]
    lines += [r"\begin{table}", r"\centering", rf"\caption{{{_tex(caption)}}}", rf"\label{{{label}}}"]
    lines += [rf"\begin{{tabular}}{{{align}}}", r"\toprule"]
    lines += [" & ".join(_tex(column.label) for column in table.columns) + r" \\", r"\midrule"]
    lines += [" & ".join(_tex(cell_text(column, row)) for column in table.columns) + r" \\" for row in rows]
    note = [rf"\par\smallskip\footnotesize {_tex(table.note)}"] if table.note else []
    return [*lines, r"\bottomrule", r"\end{tabular}", *note, r"\end{table}", ""]


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
