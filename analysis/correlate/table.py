"""Feature × outcome: one row per coefficient, with corrected p-values over the family."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from fishlens.analysis.correlate.association import correlation
from fishlens.analysis.inference.correction import benjamini_hochberg, holm

from fishlens.errors import InputError


def correlate(
    table: pd.DataFrame,
    features: Sequence[str],
    outcomes: Sequence[str] = ("average",),
    *,
    controls: Sequence[str] = (),
    methods: Sequence[str] = ("spearman",),
    cluster: str | None = None,
    strata: str | Sequence[str] | None = None,
    interval: str = "jackknife",
    level: float = 0.95,
    resamples: int = 1999,
    seed: int = 0,
) -> pd.DataFrame:
    """Coefficients of every feature with every outcome over the rows of `table` (one row per run).

    Columns: feature, outcome, given (the controls), those of `Estimate`, p_holm, p_bh: corrected within each method
    over all features and outcomes asked for. `cluster` names the column of what is independent ("schedule": few and
    honest; None: every run), `strata` the columns whose values are never compared with each other ("task").
    A control that is itself the outcome of a row is left out of that row.
    Raises `InputError` for a column that `table` does not have.
    """
    groupings = [strata] if isinstance(strata, str) else list(strata or ())
    for name in [*features, *outcomes, *controls, *groupings, *([cluster] if cluster else [])]:
        if name not in table:
            raise InputError(
                f"the table has no column {name!r}: expected one of {', '.join(map(str, table.columns))}"
            )
    layers = table[groupings].astype(str).agg("|".join, axis=1).to_numpy() if groupings else None
    labels = table[cluster].astype(str).to_numpy(dtype=object) if cluster else None
    if labels is not None and layers is not None:
        labels = labels + "|" + layers  # the same schedule in another task is another cluster
    rows = []
    for method in methods:
        for outcome in outcomes:
            given = [name for name in controls if name != outcome]
            for feature in features:
                result = correlation(
                    table[feature],
                    table[outcome],
                    method=method,
                    controls=table[given].to_numpy(dtype=float) if given else None,
                    cluster=labels,
                    strata=layers,
                    interval=interval,
                    level=level,
                    resamples=resamples,
                    seed=seed,
                    unit=f"{cluster}s" if cluster else "runs",
                )
                row = {
                    "feature": feature,
                    "outcome": outcome,
                    "given": ", ".join(given),
                    "coefficient": method,
                }
                rows.append(row | result.as_row())
    found = pd.DataFrame(rows)
    return with_corrected(found, by="coefficient") if len(found) else found


def with_corrected(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """`table` with `p_holm` and `p_bh` after `p`, each family being the rows with one value of `by`."""
    place = list(table.columns).index("p")
    table = table.copy()
    for offset, (name, correct) in enumerate((("p_holm", holm), ("p_bh", benjamini_hochberg)), start=1):
        values = np.full(len(table), math.nan)
        for _, rows in table.groupby(by, sort=False).indices.items():
            values[rows] = correct(table["p"].to_numpy(dtype=float)[rows])
        table.insert(place + offset, name, values)
    return table
