"""What a group's runs say about features of the Fisher curve and transfer, computed once for answer, figure and tables.

For several groups together each group is a stratum: only runs of one group are compared with each other.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from scipy import stats

from ..correlation.prediction import predict
from ..correlation.table import correlate
from ..dynamics import CURVE_FEATURES, RUN_FEATURES
from ..outcomes import BASELINES
from ..own import AVERAGE, Outcome
from ..power import smallest_by_exchange
from .words import label

# The features that are drawn and put into models, chosen before any run was looked at: how much Fisher information
# there is early on, how high it rises, and where in the network it lies. All features are in the first table.
FEATURED = ("early_area", "peak", "depth_centroid")
POWER = 0.8
FOUR = 4  # seeds: the fewest that change places alone


@dataclass(frozen=True)
class Level:
    """What is counted as one observation of a correlation: `cluster`, `strata`, `crossed` as `correlate` takes them."""

    name: str
    words: str
    cluster: str | None = None
    strata: tuple[str, ...] = ()
    crossed: tuple[str, ...] = ()


OVER_RUNS = Level("correlations", "over runs")
OVER_SCHEDULES = Level("correlations", "over schedules", cluster="schedule")
WITHIN_SCHEDULES = Level("correlations-within", "within schedules", strata=("schedule",))


@dataclass(frozen=True)
class Evidence:
    """`table`: one row per run with schedule, seed, the features, the outcome and the baselines (`source` is one),
    `diverged` (whether it did not learn the source) where that is known, and `group` where the runs of several are put
    together."""

    table: pd.DataFrame
    outcome: Outcome = AVERAGE

    @property
    def grouped(self) -> tuple[str, ...]:
        return ("group",) if "group" in self.table else ()

    @cached_property
    def levels(self) -> list[Level]:
        """Over runs where schedules cannot be told from runs; else over schedules and within them."""
        each = self.table.groupby([*self.grouped, "schedule"], observed=True).size()
        if self.table["schedule"].nunique() < 2 or each.max() < 2:
            return [self._in_groups(OVER_RUNS)]
        return [self._in_groups(level) for level in (OVER_SCHEDULES, WITHIN_SCHEDULES)]

    def _in_groups(self, level: Level) -> Level:
        of_schedules = bool(level.cluster or level.strata)
        crossed = (*self.grouped, "seed") if self.paired and of_schedules else ()
        return Level(level.name, level.words, level.cluster, (*self.grouped, *level.strata), crossed)

    @cached_property
    def paired(self) -> bool:
        """Whether seeds run through the schedules: every run says its seed, and some seed is that of two schedules."""
        if "seed" not in self.table or self.table["seed"].isna().any():
            return False
        return bool((self.table.groupby([*self.grouped, "seed"])["schedule"].nunique() > 1).any())

    @cached_property
    def features(self) -> list[str]:
        """Those that any run has; where no run has any, one, so that every table has its row without a number."""
        known = [name for name in (*CURVE_FEATURES, *RUN_FEATURES) if self.table[name].notna().any()]
        return known or [*CURVE_FEATURES][:1]

    @cached_property
    def baselines(self) -> list[str]:
        """Those that differ between runs."""
        return [
            name
            for name in BASELINES
            if name != self.outcome.name
            and self.table[name].notna().sum() > 1
            and self.table[name].nunique() > 1
        ]

    @cached_property
    def plain(self) -> dict[Level, pd.DataFrame]:
        """Level → the coefficient of each feature with the outcome."""
        return {level: self.coefficients(level) for level in self.levels}

    @cached_property
    def given(self) -> dict[Level, pd.DataFrame]:
        """The same given the baselines, for the levels that have coefficients at all; empty without baselines."""
        known = [level for level, found in self.plain.items() if found["estimate"].notna().any()]
        return {level: self.coefficients(level, controls=self.baselines) for level in known if self.baselines}

    @cached_property
    def diverged(self) -> int:
        """How many runs with an outcome did not learn the source."""
        if "diverged" not in self.table:
            return 0
        return int((self.table["diverged"].astype(bool) & self.table[self.outcome.name].notna()).sum())

    @cached_property
    def learnt(self) -> "Evidence | None":
        """The same of the runs that learnt the source; None where all did. A run that learnt nothing has a low score
        and a curve of its own, and a few of them can be a whole correlation."""
        if not self.diverged:
            return None
        return Evidence(self.table[~self.table["diverged"].astype(bool)], self.outcome)

    def most_have(self, feature: str) -> bool:
        """Whether at least half of the runs with an outcome have this feature: those that do (a width: curves that fell
        again) are not a fair sample, and no claim is made of them."""
        scored = self.table[self.table[self.outcome.name].notna()]
        return 2 * int(scored[feature].notna().sum()) >= len(scored)

    @cached_property
    def of_learnt(self) -> dict[Level, pd.DataFrame]:
        """Level → the coefficient of each feature over the runs that learnt the source; empty where all did."""
        learnt = self.learnt
        return (
            {}
            if learnt is None
            else {level: learnt.coefficients(level, self.features) for level in self.levels}
        )

    def remark(self, note: str, level: Level) -> str:
        """A note of `correlate` in the words of a report: its rows are runs, or means of schedules; its strata
        schedules or groups."""
        rows = f"{level.cluster}s" if level.cluster else "runs"
        strata = level.strata[0] if len(level.strata) == 1 else "schedule and group"
        words = note.replace("rows", rows).replace("row ", f"{rows[:-1]} ")
        words = words.replace(
            "in their stratum nothing varies", f"in their {strata} the feature or score does not vary"
        )
        words = words.replace(
            "in the other strata nothing varies", f"in each other {strata} one of the two does not vary"
        )
        words = words.replace("in every stratum", f"in every {strata}").replace("strata", f"{strata}s")
        named = {
            **dict.fromkeys([self.outcome.name], f"the {self.outcome.noun}"),
            **{name: label(name) for name in self.features},
        }
        return re.sub(r"apart by (\w+)", lambda found: f"apart by {named.get(found[1], found[1])}", words)

    @cached_property
    def held_out(self) -> pd.DataFrame:
        """Prediction of schedules that were left out, by baselines, features and both; empty for several groups, since
        what tells tasks apart would count as prediction."""
        if self.grouped:
            return pd.DataFrame()
        features = [name for name in FEATURED if self.table[name].notna().any()]
        return predict(self.table, self.outcome.name, features, self.baselines, group="schedule")

    @property
    def scored(self) -> bool:
        return bool(self.table[self.outcome.name].notna().any())

    @cached_property
    def main(self) -> Level | None:
        """The level that the answer is about: within schedules where it has coefficients, since a schedule differs from
        another in more than its curve."""
        known = [level for level in self.levels[::-1] if self.plain[level]["estimate"].notna().any()]
        return known[0] if known else None

    def smallest(self, level: Level) -> float:
        """The smallest |ρ| that would have been found in four of five such studies, corrected for all features.

        By Fisher's z of a rank correlation: variance 1.06 / (degrees of freedom − 1); simulated for four seeds, whose
        24 arrangements are far from that. NaN for too few.
        """
        rows = self.table[self.table[self.outcome.name].notna()]
        if level.cluster:
            freedom = rows.groupby([*level.strata, level.cluster], observed=True).ngroups
            freedom -= 1 + max(
                1, rows.groupby(list(level.strata), observed=True).ngroups if level.strata else 1
            )
        else:
            strata = rows.groupby(list(level.strata), observed=True).size() if level.strata else [len(rows)]
            freedom = sum(size - 1 for size in strata if size > 1) - 1
            if level.crossed:
                freedom -= rows.groupby(list(level.crossed)).ngroups - (
                    rows.groupby(list(self.grouped)).ngroups if self.grouped else 1
                )
        found = self.plain[level]["estimate"].notna().sum()
        if freedom < 2 or not found:
            return math.nan
        if level.crossed and not level.cluster and not self.grouped and rows["seed"].nunique() == FOUR:
            return smallest_by_exchange(rows["schedule"].nunique(), FOUR, int(found), power=POWER)
        needed = stats.norm.isf(0.025 / found) + stats.norm.isf(1 - POWER)
        return float(math.tanh(needed * math.sqrt(1.06 / (freedom - 1))))

    def coefficients(
        self, level: Level, features: Sequence[str] | None = None, *, controls: Sequence[str] = ()
    ) -> pd.DataFrame:
        """Of `features` (all) with the outcome, as `correlate` returns them."""
        return correlate(
            self.table, self.features if features is None else features, [self.outcome.name], controls=controls,
            cluster=level.cluster, strata=list(level.strata) or None, crossed=list(level.crossed) or None,
        )  # fmt: skip
