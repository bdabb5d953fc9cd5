"""Feature × outcome: one row per coefficient, with corrected p-values over the family."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from fishlens.errors import InputError

from ..inference.clusters import codes_of
from ..inference.correction import benjamini_hochberg, holm, westfall_young
from ..inference.differences import p_of_differences
from ..inference.layout import connected
from ..inference.permutation import Rearrangements, rearrange, rearrange_whole, strata_codes
from ..results import VALUES, NotEnough, not_enough
from .association import Association, associate
from .pair import correlation

Array = NDArray[np.float64]
Names = str | Sequence[str] | None
AUTO = "auto"
TOLD_APART = 0.05  # the largest p with which means of clusters count as different


def correlate(
    table: pd.DataFrame,
    features: Sequence[str],
    outcomes: Sequence[str] = ("average",),
    *,
    controls: Sequence[str] = (),
    methods: Sequence[str] = ("spearman",),
    cluster: Names = None,
    strata: Names = None,
    crossed: Names = AUTO,
    interval: str = "jackknife",
    level: float = 0.95,
    resamples: int = 1999,
    seed: int = 0,
) -> pd.DataFrame:
    """Coefficients of every feature with every outcome over the rows of `table` (one row per run).

    `strata` names the columns whose values are never compared with each other ("schedule", or "task" and "schedule").
    `crossed` names those of units that run through the strata ("seed"; with tasks as strata "task" and "seed", unless a
    seed means the same thing in every task); "auto": the column `seed`, with the other strata, where `strata` or
    `cluster` names `schedule` and several schedules share a seed. `cluster` ("schedule") asks about the means of
    clusters: a schedule is one observation, whatever its number of runs; with `crossed` the means are of the additive
    fit of clusters and crossed units, so that a schedule which lacks a good seed is not the worse for it. A cluster
    that lies in several strata has one mean in each, and stays one cluster. Clusters whose means differ no more than
    their rows do, in the feature or in the outcome (`p_of_differences` above .05), have no coefficient.

    Columns: feature, outcome, given (the controls), coefficient, those of `Estimate`, and corrected within each
    method over all features and outcomes asked for: p_holm, p_bh, and p_max, from the joint permutations of all of
    them (`westfall_young`). A control that is itself the outcome of a row is left out of that row.
    Raises `InputError` for a column that `table` does not have.
    """
    crossed = _automatic(table, cluster, strata) if crossed == AUTO else crossed
    named = [*_names(strata), *_names(crossed), *_names(cluster)]
    for name in [*features, *outcomes, *controls, *named]:
        if name not in table:
            raise InputError(
                f"the table has no column {name!r}; expected one of {', '.join(map(str, table.columns))}"
            )
    if named:
        table = table[table[named].notna().all(axis=1)].reset_index(drop=True)
    unit = f"{' × '.join(_names(cluster))}s" if cluster else "runs"
    crossed_unit = f"{_names(crossed)[-1]}s" if crossed else "seeds"
    rows, parts = [], []
    for method in methods:
        ready: list[tuple[Association | None, pd.DataFrame]] = []
        for outcome in outcomes:
            given = [name for name in controls if name != outcome]
            for feature in features:
                names = [feature, outcome, *given]
                pair = _rows_of(table, names, cluster, strata, crossed)
                labels = {
                    "cluster": _labels(pair, cluster),
                    "strata": _labels(pair, strata),
                    "crossed": None if cluster else _labels(pair, crossed),
                }
                result = correlation(
                    pair[feature],
                    pair[outcome],
                    method=method,
                    controls=pair[given].to_numpy(dtype=float) if given else None,
                    interval=interval,
                    level=level,
                    resamples=resamples,
                    seed=seed,
                    unit=unit,
                    crossed_unit=crossed_unit,
                    **labels,
                )
                if cluster and result.enough:
                    result = _alike(table, names, method, cluster, strata, crossed) or result
                row: dict[str, Any] = {"feature": feature, "outcome": outcome, "given": ", ".join(given)}
                row |= {"coefficient": method} | result.as_row()
                columns = pair[names].to_numpy(dtype=float)
                made = associate(columns, method, **labels) if result.enough else None
                if cluster:
                    row["n"] = _runs_behind(table, names, pair, made, _keys(cluster, strata))
                rows.append(row)
                ready.append((made, pair))
        parts.append(_joint(table, ready, cluster, strata, crossed, resamples, seed))
    found = pd.DataFrame(rows)
    if not len(found):
        return found
    found = with_corrected(found, by="coefficient")
    found.insert(list(found.columns).index("p_bh") + 1, "p_max", np.concatenate(parts))
    return found


def _runs_behind(
    table: pd.DataFrame, names: list[str], means: pd.DataFrame, found: Association | None, keys: list[str]
) -> int:
    """How many rows the means of clusters are of; without those of clusters that are left out (in their stratum nothing
    varies)."""
    whole = table[np.isfinite(table[names]).all(axis=1)]
    if found is None:
        return len(whole)
    return len(whole.merge(means.iloc[found.rows][keys], on=keys))


def _automatic(table: pd.DataFrame, cluster: Names, strata: Names) -> Names:
    named = [*_names(cluster), *_names(strata)]
    if "schedule" not in named or "schedule" not in table or "seed" not in table or "seed" in named:
        return None
    units = [*(name for name in _names(strata) if name != "schedule" and name in table), "seed"]
    known = table[table["seed"].notna()]
    shared = len(known) and known.groupby(units, observed=True)["schedule"].nunique().max() > 1
    return units if shared else None


def _names(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def _keys(cluster: Names, strata: Names) -> list[str]:
    """The columns that say which mean of clusters a row belongs to."""
    return list(dict.fromkeys([*_names(cluster), *_names(strata)]))


def _labels(table: pd.DataFrame, names: Names) -> NDArray[np.object_] | None:
    listed = [table[name].tolist() for name in _names(names)]
    return (
        np.array(["|".join(map(str, row)) for row in zip(*listed, strict=True)], object) if listed else None
    )


def _rows_of(
    table: pd.DataFrame, columns: list[str], cluster: Names, strata: Names, crossed: Names
) -> pd.DataFrame:
    """The rows that are correlated: runs, or with a `cluster` its means, by stratum."""
    if not cluster:
        return table
    keys = _keys(cluster, strata)
    values = table[columns].replace([np.inf, -np.inf], np.nan)
    whole = table.loc[values.notna().all(axis=1), list(dict.fromkeys([*columns, *keys, *_names(crossed)]))]
    every = table[keys].drop_duplicates().reset_index(drop=True)
    line, unit = _labels(whole, keys), _labels(whole, crossed)
    if line is not None and unit is not None and len(whole):
        whole = whole.assign(**dict(zip(columns, _adjusted(whole[columns], line, unit), strict=True)))
    means = whole.groupby(keys, observed=True, sort=False)[columns].mean().reset_index()
    return every.merge(means, on=keys, how="left")


def _adjusted(values: pd.DataFrame, line: NDArray, unit: NDArray) -> Array:
    """Values less their unit's level in the additive fit of lines and units; `[columns, n]`. As they are where the
    layout falls apart, so that levels of different parts cannot be compared."""
    lines, units = codes_of(line, len(line)), codes_of(unit, len(unit))
    columns = values.to_numpy(dtype=float)
    if connected(lines, units).max() > 0:
        return columns.T
    design = np.column_stack([np.eye(lines.max() + 1)[lines], np.eye(units.max() + 1)[units]])
    fitted = np.linalg.lstsq(design, columns - columns.mean(axis=0), rcond=1e-10)[0][lines.max() + 1 :]
    return (columns - (fitted - fitted.mean(axis=0))[units]).T


def _alike(
    table: pd.DataFrame, columns: list[str], method: str, cluster: Names, strata: Names, crossed: Names
) -> NotEnough | None:
    """The answer where the means of clusters differ no more than their rows do, in the feature or in the outcome: what
    stands out are then the clusters that noise or seeds move most, in both, which would look like a correlation."""
    whole = table[np.isfinite(table[columns]).all(axis=1)]
    keys = _keys(cluster, strata)
    groups, units, layers = (
        None if (labels := _labels(whole, names)) is None else codes_of(labels, len(whole))
        for names in (keys, crossed, strata)
    )
    assert groups is not None
    if units is not None and connected(groups, units).max() > 0:
        units = None
    for name in columns[1::-1]:
        values = whole[name].to_numpy(dtype=float)
        values = values if method == "pearson" else rankdata(values)
        if p_of_differences(values, groups, units, layers) > TOLD_APART:
            why = f"{' × '.join(_names(cluster))}s cannot be told apart by {name}"
            return not_enough(method, 1, 2, VALUES, n=len(whole), why=why)
    return None


def _joint(
    table: pd.DataFrame,
    ready: list[tuple[Association | None, pd.DataFrame]],
    cluster: Names,
    strata: Names,
    crossed: Names,
    resamples: int,
    seed: int,
) -> Array:
    """p_max of each of `ready`: all of them under the same arrangements of the whole table."""
    made = [found for found, _ in ready if found is not None]
    if not made:
        return np.full(len(ready), math.nan)
    whole = next(pair for found, pair in ready if found is not None)
    moves = _moves(whole, cluster, strata, None if cluster else crossed, resamples, seed)
    observed = np.full(len(ready), math.nan)
    permuted = np.zeros((len(ready), len(moves.index)))
    for k, (found, _) in enumerate(ready):
        if found is None:
            continue
        place = np.full(len(whole) + 1, len(found.rows))
        place[found.rows] = np.arange(len(found.rows))
        observed[k] = abs(found.value)
        permuted[k] = np.abs(found.permuted(place[moves.index[:, found.rows]]))
    return westfall_young(observed, permuted, moves.exact)


def _moves(
    table: pd.DataFrame, cluster: Names, strata: Names, crossed: Names, resamples: int, seed: int
) -> Rearrangements:
    n, rng = len(table), np.random.default_rng(seed)
    layers = strata_codes(_labels(table, strata), n)
    if crossed:
        return rearrange_whole(layers, codes_of(_labels(table, crossed), n), resamples, rng)
    groups = codes_of(_labels(table, cluster), n)
    if any(len(set(layers[groups == g].tolist())) > 1 for g in range(groups.max() + 1)):
        return rearrange_whole(layers, groups, resamples, rng)
    return rearrange(groups, layers, resamples, rng)


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
