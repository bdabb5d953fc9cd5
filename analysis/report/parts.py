"""What a report is made of: sections of tables, pictures and sentences, before anybody asked for a format.

Everything that holds numbers also holds `source_runs`: which runs they come from. No format may drop it silently.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pandas as pd
from matplotlib.figure import Figure

SourceRuns: TypeAlias = Mapping[
    str, tuple[str, ...]
]  # what (a schedule, "all runs") -> the names of its runs


Row: TypeAlias = Mapping[str, Any]  # key of a column -> its value


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """The rows of a frame as a table holds them."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


@dataclass(frozen=True)
class Column:
    """One column. `digits` None: text, or a whole number. A number with a spread is shown as one cell:
    `plus_minus` names the key of its standard deviation, `interval` the keys of its ends; no more decimals are written
    than these support. `bounded`: a number whose size is known beforehand (a coefficient, points), which is never
    written in powers of ten. `count` names the key of how many runs a mean is over, for another spread; where it is not
    that of the key `of` it stands in brackets behind the mean (`of` "": always). `error` names the key of an error that
    is not shown, but supports the decimals. `ranked`: a score, the highest of which is the best."""

    key: str
    label: str
    digits: int | None = None
    plus_minus: str | None = None
    interval: tuple[str, str] | None = None
    p_value: bool = False
    bounded: bool = False
    count: str | None = None
    of: str | None = None
    error: str | None = None
    ranked: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys of a row that this column shows."""
        counted = [self.count] if self.count and self.of is not None else []
        return (self.key, *([self.plus_minus] if self.plus_minus else []), *(self.interval or ()), *counted)


@dataclass(frozen=True)
class Table:
    """Rows as plain dicts; a missing key or NaN is shown as nothing known. `name` is the file's stem and the anchor."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    source_runs: SourceRuns
    note: str = ""
    folded: bool = False  # long: HTML shows it on request
    best: str = "column"  # among what the best ranked score is marked: a `column`, or a `row`


@dataclass(frozen=True)
class Picture:
    """A figure with its caption, which says what the lines and bands are. It is drawn when somebody asks for it."""

    name: str
    title: str
    caption: str
    draw: Callable[..., Figure]  # takes `width` in inches, or nothing for the width it has on the page
    source_runs: SourceRuns

    @property
    def figure(self) -> Figure:
        return self.draw()


@dataclass(frozen=True)
class Missing:
    """Something that these runs cannot answer, and why."""

    title: str
    reason: str


Item: TypeAlias = Table | Picture | Missing


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    text: str
    items: Sequence[Item] = field(default=())


@dataclass(frozen=True)
class Statement:
    """An answer: what is claimed, in a sentence, and what it rests on."""

    claim: str
    evidence: str


@dataclass(frozen=True)
class Group:
    """Runs that may be compared with each other, and what was found in them."""

    name: str
    title: str
    sections: Sequence[Section]
    answer: Sequence[Statement] = ()


ALL_GROUPS = Group("all", "All groups", ())  # what the overview is a part of


@dataclass(frozen=True)
class Report:
    """`left_out`: run name -> why it is not in any number. `overview`: what is said over all groups, if several."""

    title: str
    made: str  # fishlens version and date
    groups: Sequence[Group]
    left_out: Mapping[str, str]
    warnings: Sequence[str] = ()
    answer: Sequence[Statement] = ()
    overview: Section | None = None
    definitions: str = ""

    @property
    def tables(self) -> list[tuple[Group, Table]]:
        return [(group, item) for group, item in self._items() if isinstance(item, Table)]

    @property
    def pictures(self) -> list[tuple[Group, Picture]]:
        return [(group, item) for group, item in self._items() if isinstance(item, Picture)]

    def _items(self) -> Iterator[tuple[Group, Item]]:
        if self.overview is not None:
            yield from ((ALL_GROUPS, item) for item in self.overview.items)
        for group in self.groups:
            for section in group.sections:
                for item in section.items:
                    yield group, item

    def missing(self, section: str) -> list[str]:
        """What the runs cannot say in this section, and why."""
        items = [
            i for group in self.groups for one in group.sections if one.name == section for i in one.items
        ]
        return [f"{item.title} {item.reason}" for item in items if isinstance(item, Missing)]

    def file_name(self, group: Group, item: Table | Picture) -> str:
        """The stem of the file that holds this table or picture alone."""
        return f"{group.name}-{item.name}" if len(self.groups) > 1 else item.name
