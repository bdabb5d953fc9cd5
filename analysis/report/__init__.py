"""`fishlens report`: what a study's journals say, as one page or as tables.

`build_report` turns runs into sections of tables, pictures and sentences; the formats only write them down.
"""

from .build import build_report
from .page import to_html
from .parts import Column, Group, Missing, Picture, Report, Section, Table
from .plain_formats import table_to_csv, to_csv, to_latex, to_markdown

__all__ = [
    "Column",
    "Group",
    "Missing",
    "Picture",
    "Report",
    "Section",
    "Table",
    "build_report",
    "table_to_csv",
    "to_csv",
    "to_html",
    "to_latex",
    "to_markdown",
]
