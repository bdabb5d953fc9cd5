"""Whether groups (schedules) can be told apart by their rows: analysis of variance, with crossed units as subjects."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .layout import layout

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
_NOTHING = 1e-12  # of the variance: less than this is rounding


def p_of_differences(
    values: Array, groups: Codes, units: Codes | None = None, strata: Codes | None = None
) -> float:
    """p of "inside each of the `strata` all `groups` have one mean"; all `[n]`, each group in one stratum.

    `units` run through the groups and shift their rows in all of them (seeds in schedules): their levels are taken
    away, and since a unit may shift some groups more than others, both degrees of freedom of F are multiplied by Huynh
    and Feldt's (1976) ε, as for repeated measures. ε is of the residuals; a missing row has none.
    0 where rows of a group are equal but groups are not; NaN where nothing differs, or nothing is left to compare
    differences with, as with one row a group.
    """
    around = [codes for codes in (strata, units) if codes is not None]
    without, whole = layout(around, n=len(values)), layout([*around, groups])
    between, left = whole.rank - without.rank, whole.freedom
    if between < 1 or left < 1:
        return math.nan
    rest = whole.residual(values)
    explained = float((without.residual(values) ** 2).sum() - (rest**2).sum())
    total, noise = float((values**2).sum()), float((rest**2).sum())
    if noise <= _NOTHING * total:
        return 0.0 if explained > _NOTHING * total else math.nan
    epsilon = 1.0 if units is None else _sphericity(rest, groups, units, between)
    return float(stats.f.sf(explained / between / (noise / left), epsilon * between, epsilon * left))


def _sphericity(rest: Array, groups: Codes, units: Codes, between: int) -> float:
    """Huynh and Feldt's ε of residuals: 1 where all differences between groups vary alike, 1/`between` where one
    direction has all the variance. Greenhouse and Geisser's, which it corrects, is far too small with three units."""
    count = int(units.max()) + 1
    table = np.zeros((count, int(groups.max()) + 1))
    np.add.at(table, (units, groups), rest)
    spread = table.T @ table
    directions = float(np.trace(spread) ** 2 / (spread**2).sum())
    below = between * (count - 1 - directions)
    return min(1.0, (count * directions - 2) / below) if below > _NOTHING else 1.0
