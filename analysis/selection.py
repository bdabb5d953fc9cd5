"""Which runs may be put into one table: finished ones, of one task, one model and one way of measuring.

A coefficient over runs of different tasks measures the difference between tasks; over different estimators it
compares different numbers. Both are refused with the list of runs, or grouped when asked.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from fishlens.errors import InputError
from fishlens.journal import Runs
from fishlens.journal.runs import TABLES

FACTORS = ("task", "model", "adapter", "source", "examples")  # one group has one value of each
NOT_IDENTITY = (
    "estimator_seed",
    "estimator_version",
)  # of the estimator's fields: which draw, not which number
_NAMED = 8  # run names written out per value in an error


@dataclass(frozen=True)
class Group:
    """Runs that may be compared. `shared`: what they have in common, factor or estimator field → value."""

    shared: dict[str, Any]
    runs: Runs

    @property
    def names(self) -> list[str]:
        return [str(name) for name in self.runs.runs["run"]]

    @property
    def label(self) -> str:
        """`task=xnli, model=mbert`: the factors among what is shared."""
        return ", ".join(f"{k}={shown(v)}" for k, v in self.shared.items() if k in FACTORS and v is not None)


def shown(value: Any) -> str:
    """A factor's value as a reader wants it: of a folder on somebody's machine its name alone."""
    text = str(value)
    return folder_name(text) if Path(text).is_absolute() else text


def folder_name(path: str) -> str:
    """What a folder is called; of the `model` in a run of `fishlens pretrain`, what that run is called."""
    place = Path(path)
    return place.parent.name if place.name == "model" and place.parent.name else place.name


@dataclass(frozen=True)
class Selection:
    """`groups` of comparable runs, and the runs that were `left_out`: (name, why)."""

    groups: tuple[Group, ...]
    left_out: tuple[tuple[str, str], ...]


def select_runs(runs: Runs, *, unfinished: str = "leave out", mixed: str = "refuse") -> Selection:
    """Choose comparable runs.

    `unfinished`: "leave out" (they are named in `left_out`) or "include". `mixed`: "refuse" or "group".
    Raises `InputError` when nothing is left, and for mixed runs that are to be refused: it names the field and which
    runs have which value.
    """
    for name, value, allowed in (
        ("unfinished", unfinished, ("leave out", "include")),
        ("mixed", mixed, ("refuse", "group")),
    ):
        if value not in allowed:
            raise InputError(f"{name} is {value!r}: expected {' or '.join(map(repr, allowed))}")
    table = runs.runs
    left_out: list[tuple[str, str]] = []
    if unfinished == "leave out":
        done = (table["status"] == "finished").to_numpy()
        left_out = [
            (str(r), str(s)) for r, s in zip(table["run"][~done], table["status"][~done], strict=True)
        ]
        table = table[done]
    if table.empty:
        why = ", ".join(f"{run} is {status}" for run, status in left_out[:_NAMED]) or "there are none"
        raise InputError(f"no finished run to analyse: {why}")
    keys = [
        k for k in table.columns if k in FACTORS or (k.startswith("estimator_") and k not in NOT_IDENTITY)
    ]
    values = table[keys].astype(object).where(table[keys].notna(), None)
    differing = [key for key in keys if values[key].map(repr).nunique() > 1]
    if differing and mixed == "refuse":
        raise InputError(_refusal(table["run"], values[differing[0]], differing))
    identity = values[keys].map(repr).agg("|".join, axis=1) if keys else pd.Series("", index=table.index)
    groups = []
    for _, rows in table.groupby(identity, sort=False):
        shared = {key: values.loc[rows.index[0], key] for key in keys}
        groups.append(Group(shared, only(runs, rows["run"])))
    return Selection(tuple(groups), tuple(left_out))


def only(runs: Runs, names: Iterable[str]) -> Runs:
    """The same frames with the rows of the runs named, in the order they had."""
    wanted = list(names)
    frames = {}
    for table in ("runs", *TABLES):
        frame = getattr(runs, table)
        frames[table] = frame[frame["run"].isin(wanted).to_numpy()].reset_index(drop=True)
    return replace(runs, **frames)


def _refusal(names: pd.Series, values: pd.Series, differing: list[str]) -> str:
    parts = []
    for value, members in names.groupby(values.map(str), sort=False):
        listed = [str(name) for name in members]
        more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
        parts.append(f"{value}: {', '.join(listed[:_NAMED])}{more}")
    also = f" (and in {', '.join(differing[1:])})" if len(differing) > 1 else ""
    return (
        f"runs that differ in {values.name}{also} cannot be put in one table: {'; '.join(parts)}; "
        f"choose some of them, or ask for one analysis per group"
    )
