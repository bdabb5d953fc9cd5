"""What is compared with what inside a group: a schedule, with its interval and options where these differ."""

from collections.abc import Collection
from typing import Any

import pandas as pd

# once and for all at the first step: whatever their interval is, they never use it
WITHOUT_INTERVAL = ("standard", "full", "surgical")


def is_treatment(column: str) -> bool:
    """Whether a column of `Runs.runs` says which schedule a run followed, and how."""
    return column in ("schedule", "every") or column.startswith("schedule_")


def probes_interval(table: pd.DataFrame) -> pd.Series:
    """Whether a run's `every` is the interval of its probes: a tracked script's is, a recipe's is its schedule's."""
    by_script = pd.Series(False, index=table.index)
    if "schedule_every" in table:
        by_script |= table["schedule_every"].notna()
    return by_script | (table["schedule"].isna() if "schedule" in table else True)


def treatments(table: pd.DataFrame, across: Collection[str] = ()) -> pd.Series:
    """The name of each run's schedule, as it is told apart from others of the same name in the same `table`.

    Runs of one name that differ in the interval or in an option are different schedules: `gu (every 5)`, `gu (every
    20)`. Differences in the fields of `across` are passed over. NaN where a run says no schedule.
    """
    if "schedule" not in table:
        return pd.Series(None, index=table.index, dtype=object)
    fields = [name for name in table if is_treatment(str(name)) and name != "schedule" and name not in across]
    said = table[fields].astype(object).where(table[fields].notna(), None)
    if "every" in said:
        said.loc[probes_interval(table), "every"] = None
    never = [name for name in ("every", "schedule_every") if name in said]
    said.loc[table["schedule"].isin(WITHOUT_INTERVAL).to_numpy(), never] = None
    names = table["schedule"].astype(object).where(table["schedule"].notna(), None)
    for _, rows in table.groupby("schedule", observed=True):
        differing = [name for name in fields if said.loc[rows.index, name].map(_text).nunique() > 1]
        for run in rows.index if differing else ():
            how = [
                f"{_word(str(name))} {_text(said.at[run, name])}"
                for name in differing
                if said.at[run, name] is not None
            ]
            names.at[run] = f"{names.at[run]} ({', '.join(how)})" if how else str(names.at[run])
    return names


def _word(field: str) -> str:
    return field.removeprefix("schedule_").replace("_", " ")


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
