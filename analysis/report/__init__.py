"""`fishlens report`: what a study's journals say, as one page or as tables.

`build_report` turns runs into sections of tables, pictures and sentences; the formats only write them down.
"""

from .build import build_report
from .page import to_html
from .parts import Column, Group, Missing, Picture, Report, Section, Table
from .plain_formats import named_tables, table_to_csv, to_csv, to_latex, to_markdown
from .spread import SPREADS, with_spread

__all__ = [
    "SPREADS",
    "Column",
    "Group",
    "Missing",
    "Picture",
    "Report",
    "Section",
    "Table",
    "build_report",
    "named_tables",
    "table_to_csv",
    "to_csv",
    "to_html",
    "to_latex",
    "to_markdown",
    "with_spread",
]
