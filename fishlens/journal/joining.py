"""Runs of several sources as one: journals and exports, or exports of several machines, each run once.

A run is told by its id. Exports made before they held ids are told by what only one run has: its name and the moment
when its last attempt began.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import union_categoricals

from fishlens.journal.find import EXPORT, LeftOut
from fishlens.journal.runs import TABLES, Runs
from fishlens.names import one_line

_NAMED = 3  # copies that are named one by one


@dataclass(frozen=True)
class Source:
    """`folder`: of an export; None for run directories."""

    folder: Path | None
    runs: Runs


def joined_runs(sources: Sequence[Source], copies: bool = False) -> Runs:
    """All runs of the sources, those that several have from the one where they got furthest (of equals the first).

    A name that two runs share has the export's folder before it. `copies`: keep copies, too.
    """
    kept, left_out = (
        _each_once(sources) if not copies else ([list(one.runs.runs["run"]) for one in sources], [])
    )
    shared = Counter(str(name) for names in kept for name in names)
    new_names = [
        {
            name: one_line(f"{one.folder}/{name}")
            if one.folder is not None and shared[str(name)] > 1
            else name
            for name in names
        }
        for one, names in zip(sources, kept, strict=True)
    ]
    known = [name for names in new_names for name in names.values()]
    frames: dict[str, Any] = {}
    for table in ("runs", *TABLES):
        parts = [_of(getattr(one.runs, table), new) for one, new in zip(sources, new_names, strict=True)]
        frames[table] = _stacked(parts, known)
    told = [one for source in sources for one in source.runs.left_out]
    return Runs.of(frames, (*told, *left_out))


def _each_once(sources: Sequence[Source]) -> tuple[list[list[str]], list[LeftOut]]:
    """Of every source the names of the runs that are counted from it, and the copies that are not."""
    rows = [
        (-row["steps"], number, place, row)
        for number, one in enumerate(sources)
        for place, row in enumerate(one.runs.runs.to_dict("records"))
    ]
    seen: dict[tuple[str, Any], str] = {}
    kept: list[list[tuple[int, str]]] = [[] for _ in sources]
    copies: dict[Path, list[str]] = {}  # of exports
    left_out = []
    for _, number, place, row in sorted(rows, key=lambda one: one[:3]):
        folder = sources[number].folder
        path = str(row["path"]) if folder is None else f"{folder}/{row['run']}"
        keys = _identities(row)
        first = next((seen[key] for key in keys if key in seen), None)
        for key in keys:
            seen.setdefault(key, first or path)
        if first is None:
            kept[number].append((place, row["run"]))
        elif folder is None:
            left_out.append(LeftOut(Path(path), f"the same run as {first}, counted once"))
        else:
            copies.setdefault(folder, []).append(f"{row['run']} as {first}")
    for folder, told in copies.items():
        some = ", ".join([*told[:_NAMED], *(["…"] if len(told) > _NAMED else [])])
        left_out.append(LeftOut(folder / EXPORT, f"{len(told)} of its runs are counted once: {some}"))
    return [[name for _, name in sorted(names)] for names in kept], left_out


def _identities(row: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    if isinstance(row.get("id"), str):
        found.append(("id", row["id"]))
    if row["began"] > 0:  # not NaN
        found.append(("began", (str(row["run"]).rpartition("/")[2], row["began"])))
    return found


def _of(frame: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """The rows of these runs, called by their new names."""
    rows = frame[frame["run"].isin(list(names))]
    return rows.assign(run=rows["run"].astype(object).map(names))


def _stacked(parts: Sequence[pd.DataFrame], runs: Sequence[str]) -> pd.DataFrame:
    """Below one another, categories in the order in which they come."""
    columns = list(dict.fromkeys(name for part in parts for name in part.columns))
    stacked = {
        name: _column([part[name] if name in part else len(part) for part in parts]) for name in columns
    }
    stacked["run"] = pd.Categorical(stacked["run"], categories=pd.Index(runs))
    return pd.DataFrame(stacked)


def _column(parts: Sequence[Any]) -> Any:
    """One column of all parts; a part that has none is the number of its rows."""
    there = [part for part in parts if not isinstance(part, int)]
    dtype = next((part.dtype for part in there if len(part)), there[0].dtype)
    filled = [part if not isinstance(part, int) else pd.Series([None] * part, dtype=object) for part in parts]
    filled = [part for part in filled if len(part)] or there[:1]
    if isinstance(dtype, pd.CategoricalDtype):
        return _categories(filled)
    if dtype.kind == "f":
        filled = [part if part.notna().any() else part.astype(dtype) for part in filled]
    same = len({part.dtype for part in filled}) == 1
    return pd.concat([part if same else part.astype(object) for part in filled], ignore_index=True)


def _categories(parts: Sequence[Any]) -> pd.Categorical:
    """Of one column of all parts; a part whose cells are all empty has categories of no type, and takes the others'."""
    own = [pd.Categorical(part) for part in parts]
    dtype = next((part.dtype for part in own if len(part.categories)), own[0].dtype)
    return union_categoricals(
        [part if len(part.categories) else pd.Categorical.from_codes(part.codes, dtype=dtype) for part in own]
    )
