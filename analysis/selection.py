"""Which runs may be put into one table: finished ones that are the same in everything but schedule and seed.

A coefficient over runs of different tasks measures the difference between tasks; over different learning rates, that
between learning rates; over different estimators it compares different numbers. All are refused with the list of runs,
or grouped when asked, or put together where `across` names the field in which they may differ.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd

from fishlens.errors import InputError
from fishlens.journal import Runs
from fishlens.journal.recipe_fields import factor_name
from fishlens.journal.runs import TABLES

from .treatment import is_treatment, probes_interval, treatments

FACTORS = ("task", "model", "adapter", "source", "examples")  # what a group is called by
# what the reader makes of a run, and which draw of the same thing it is
_NOT_FACTORS = {
    "run", "path", "status", "attempts", "steps", "began", "last", "blocks", "best_step", "error", "damaged", "recipe",
    "id", "seed", "estimator_seed", "estimator_version",
}  # fmt: skip
# How a run is kept, split up and watched, not what it is. Of tracking, what says which number is measured is in the
# estimator's identity.
_NOT_WHAT_IT_IS = {
    "train.accumulate", "train.log_every", "evaluate.batch_size", "checkpoint.every", "checkpoint.keep",
    "data.test_source", "tracking.labels", "tracking.samples", "tracking.granularity", "tracking.preset",
    "tracking.examples", "tracking.diagonals", "tracking.diagonal_at", "report_to",
}  # fmt: skip
_FOLDERS = {"data.root"}  # the same data may lie elsewhere on another machine: compared by the folder's name
_SETS = {"targets"}  # in whatever order they are given
_NAMED = 8  # run names written out per value in an error


@dataclass(frozen=True)
class Comparable:
    """Runs that may be compared. `shared`: what they have in common, factor or estimator field → value."""

    shared: dict[str, Any]
    runs: Runs

    @property
    def names(self) -> list[str]:
        return [str(name) for name in self.runs.runs["run"]]

    @property
    def label(self) -> str:
        """`task=xnli, model=mbert`: the factors among what is shared."""
        known = {name: self.shared.get(name) for name in FACTORS}
        return ", ".join(f"{name}={shown(value)}" for name, value in known.items() if value is not None)


def shown(value: Any) -> str:
    """A factor's value as a reader wants it: of a folder on somebody's machine its name alone. A name of the hub has
    no folder of dots in front."""
    text = str(value)
    return folder_name(text) if Path(text).is_absolute() or text.startswith(("./", "../", "~/")) else text


def folder_name(path: str) -> str:
    """What a folder is called; of the `model` in a run of `fishlens pretrain`, what that run is called."""
    place = Path(path)
    return place.parent.name if place.name == "model" and place.parent.name else place.name


@dataclass(frozen=True)
class Selection:
    """`groups` of comparable runs, and the runs that were `left_out`: (name, why)."""

    groups: tuple[Comparable, ...]
    left_out: tuple[tuple[str, str], ...]


def select_runs(
    runs: Runs, *, unfinished: str = "leave out", mixed: str = "refuse", across: Sequence[str] = ()
) -> Selection:
    """Choose comparable runs.

    `unfinished`: "leave out" (they are named in `left_out`) or "include". `mixed`: "refuse" or "group". `across`:
    fields (`every`, `train.learning_rate`) in which runs may differ and be put together all the same. Runs of one
    schedule with different intervals or options are different schedules, whose names in the group's `runs.runs` say so.

    Raises `InputError` when nothing is left, for a field that no run has, and for mixed runs that are to be refused:
    it names the field and which runs have which value.
    """
    for name, value, allowed in (
        ("unfinished", unfinished, ("leave out", "include")),
        ("mixed", mixed, ("refuse", "group")),
    ):
        if value not in allowed:
            raise InputError(f"{name} is {value!r}; expected {' or '.join(map(repr, allowed))}")
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
    passed_over = {known_field(field, table.columns) for field in across}
    values = what_it_is(table).drop(columns=passed_over, errors="ignore")
    keys = values.apply(lambda column: column.map(lambda value: _comparable(str(column.name), value)))
    differing = [str(key) for key in keys if keys[key].nunique(dropna=False) > 1]
    if differing and mixed == "refuse":
        raise InputError(_refusal(table["run"], values[differing[0]], differing))
    groups = []
    for _, rows in table.groupby(_identity(keys, differing), sort=False):
        shared = {str(key): values.loc[rows.index[0], key] for key in values}
        group = only(runs, rows["run"])
        if "schedule" in table:
            named = group.runs.assign(schedule=treatments(group.runs, passed_over))
            group = replace(group, runs=named)
        groups.append(Comparable(shared, group))
    return Selection(tuple(groups), tuple(left_out))


def alike(table: pd.DataFrame) -> pd.Series:
    """A text per row of `Runs.runs` that is the same for runs which may be put together."""
    values = what_it_is(table)
    keys = values.apply(lambda column: column.map(lambda value: _comparable(str(column.name), value)))
    return _identity(keys, [str(key) for key in keys if keys[key].nunique(dropna=False) > 1])


def _identity(keys: pd.DataFrame, differing: list[str]) -> pd.Series:
    return keys[differing].agg("|".join, axis=1) if differing else pd.Series("", index=keys.index)


def what_it_is(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of `Runs.runs` in which comparable runs agree, None where a run does not say."""
    columns = [name for name in map(str, table.columns) if is_identity(name)]
    values = table[columns].astype(object).where(table[columns].notna(), None)
    if "every" in table:
        probes = table["every"].where(probes_interval(table))
        if probes.notna().any():
            known = (
                values["tracking.every"] if "tracking.every" in values else pd.Series(None, index=table.index)
            )
            values["tracking.every"] = known.astype(object).where(
                known.notna(), probes.where(probes.notna(), None)
            )
    return values


def is_identity(column: str) -> bool:
    """Whether runs that differ in this column of `Runs.runs` are different things."""
    return not (is_treatment(column) or column in _NOT_FACTORS or column in _NOT_WHAT_IT_IS)


def known_field(field: str, columns: Collection[str]) -> str:
    """The column that a field of a recipe or a factor is. Raises `InputError` when no run has it."""
    for name in (field, factor_name(field)):
        if name in columns:
            return name
    raise InputError(f"no run has a field {field!r}; expected one of {', '.join(sorted(map(str, columns)))}")


def _comparable(field: str, value: Any) -> str:
    """Text that is the same for the same thing: nothing said and nothing given are, 32 and 32.0 are."""
    if value is None or value == "":
        return ""
    if isinstance(value, Real) and not isinstance(value, bool):
        return repr(float(value))
    text = str(value)
    if field in _FOLDERS:
        return folder_name(text.rstrip("/"))
    return ",".join(sorted(text.split(","))) if field in _SETS else text


def only(runs: Runs, names: Iterable[str]) -> Runs:
    """The same frames with the rows of the runs named, in the order they had."""
    wanted = list(names)
    frames = {}
    for table in ("runs", *TABLES):
        frame = getattr(runs, table)
        frames[table] = frame[frame["run"].isin(wanted).to_numpy()].reset_index(drop=True)
    return runs.with_frames(frames)


def _refusal(names: pd.Series, values: pd.Series, differing: list[str]) -> str:
    parts = []
    for value, members in names.groupby(values.map(str), sort=False):
        listed = [str(name) for name in members]
        more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
        parts.append(f"{value}: {', '.join(listed[:_NAMED])}{more}")
    also = f" (and in {', '.join(differing[1:])})" if len(differing) > 1 else ""
    return (
        f"runs that differ in {values.name}{also} cannot be put in one table: {'; '.join(parts)}; choose some of them "
        f"(--where), ask for one analysis per group (--group), or say that they may differ (--across {values.name})"
    )
