"""Reading the carried tables."""

from importlib.resources import files

import pandas as pd

from fishlens.errors import InputError

TABLES = (
    "results_average",
    "results_per_language",
    "results_low_data",
    "hyperparameters",
    "datasets",
    "languages",
)
_KEYS = ("table", "dataset", "metric", "model", "adapter", "method")


def read(name: str) -> pd.DataFrame:
    """One table as printed, values in points, NaN where a cell is empty.

    Raises `InputError` for a name that is not one of `TABLES`.
    """
    if name not in TABLES:
        raise InputError(f"there is no published table {name!r}; expected one of {', '.join(TABLES)}")
    return _csv(f"{name}.csv")


def caveats(rows: pd.DataFrame) -> list[str]:
    """What is doubtful about `rows` of a results table, as sentences that begin with the table's number."""
    found: dict[str, None] = {}
    for caveat in _csv("caveats.csv").to_dict("records"):
        concerned = pd.Series(True, index=rows.index)
        for key in _KEYS:
            if (
                isinstance(caveat[key], str) or caveat[key] == caveat[key]
            ):  # a filled cell (NaN is not itself)
                concerned &= rows[key] == caveat[key] if key in rows else False
        for table in sorted(rows.loc[concerned, "table"].unique()):
            found[f"Table {table}: {caveat['caveat']}"] = None
    return list(found)


def _csv(name: str) -> pd.DataFrame:
    with files(__package__).joinpath(name).open(encoding="utf-8") as text:
        return pd.read_csv(text)
