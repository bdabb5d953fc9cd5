"""The tests of error_rates.py on studies of another make: seeds that multiply, collapsed runs, scores that are counts.

    python benchmarks/error_rates_rough.py                     1,000 studies a row
    python benchmarks/error_rates_rough.py --studies 100 --only within

`multiplied`: logarithms add up, so that a seed shifts a high schedule more than a low one; schedules differ in their
spread, features in another way than scores; seeds are exponential draws. `collapsed`: one run in eight, mostly those of
two bad seeds, scores as guessing does; scores are counts of 200 examples, the feature is Cauchy-tailed and rounded, and
schedules have 4 to all of the seeds. In both feature and score are unrelated.
"""

import argparse
import sys
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from error_rates import ROWS, Outcome, Study, Test, held_out, mixed, partial_coefficient, rate
from fishlens.analysis.correlation.pair import correlation
from fishlens.analysis.correlation.table import correlate
from fishlens.analysis.paired import paired_difference


@dataclass(frozen=True)
class Multiplied(Study):
    def draw(self, rng: np.random.Generator, count: int = 2) -> pd.DataFrame:
        schedule, seed = (part.ravel() for part in np.indices((self.schedules, self.seeds)))
        level = 0.5 * np.sqrt(self.between) * rng.standard_normal((count, self.schedules))
        shift = rng.exponential(0.4, (count, self.seeds))
        spread = np.exp(0.5 * rng.standard_normal((count, self.schedules)))
        noise = 0.2 * spread[:, schedule] * rng.standard_normal((count, len(schedule)))
        values = np.exp(level[:, schedule] + shift[:, seed] + noise)
        table = pd.DataFrame(values.T, columns=[f"v{k}" for k in range(count)])
        return table.assign(schedule=schedule, seed=seed)

    def __str__(self) -> str:
        return f"{self.schedules} × {self.seeds}, multiplied"


@dataclass(frozen=True)
class Collapsed(Study):
    def draw(self, rng: np.random.Generator, count: int = 2) -> pd.DataFrame:
        """v0 is the score where `partial_coefficient` and its like take v0 for the feature: both ways are null."""
        schedule, seed = (part.ravel() for part in np.indices((self.schedules, self.seeds)))
        values = rng.standard_t(1.5, (count, self.seeds))[:, seed] + rng.standard_t(
            1.5, (count, len(schedule))
        )
        values = np.round(values + rng.standard_normal((count, self.schedules))[:, schedule], 1)
        of_schedule = np.sqrt(self.between) * rng.standard_normal(self.schedules)
        chance = 0.55 + 0.04 * (of_schedule[schedule] + rng.standard_normal(self.seeds)[seed])
        bad = np.isin(seed, rng.permutation(self.seeds)[:2])
        chance = np.where(rng.random(len(schedule)) < np.where(bad, 0.35, 0.03), 1 / 3, chance)
        values[1] = rng.binomial(200, np.clip(chance, 0.05, 0.95)) / 2
        kept = rng.integers(min(4, self.seeds), self.seeds + 1, self.schedules)
        table = pd.DataFrame(values.T, columns=[f"v{k}" for k in range(count)])
        return table.assign(schedule=schedule, seed=seed)[seed < kept[schedule]].reset_index(drop=True)

    def __str__(self) -> str:
        return f"{self.schedules} × {self.seeds}, collapsed"


def coefficient(rng: np.random.Generator, study: Study, method: str, over: bool) -> Outcome:
    table = study.draw(rng)
    if over:
        found = correlate(table, ["v0"], ["v1"], methods=(method,), resamples=199, cluster="schedule").iloc[0]
    else:
        x, y, schedule, seed = (table[name].to_numpy() for name in ("v0", "v1", "schedule", "seed"))
        found = correlation(x, y, method=method, strata=schedule, crossed=seed, resamples=199).as_row()
    covered = None if np.isnan(found["low"]) else bool(found["low"] <= 0 <= found["high"])
    return float(found["p"]), covered


def paired(rng: np.random.Generator, study: Study) -> Outcome:
    """Two schedules of one kind."""
    wide = study.draw(rng).pivot(index="seed", columns="schedule", values="v1")
    found = paired_difference((wide[0] - wide[1]).to_numpy())
    return (found.p, found.low <= 0 <= found.high) if found.enough else (float("nan"), None)


def _rows(studies: tuple[Study, ...], test: Test, name: str) -> list[tuple[str, Study, Test]]:
    return [(name, study, test) for study in studies]


SHAPES = (Multiplied(6, 6), Multiplied(8, 4), Collapsed(6, 8), Collapsed(10, 5))
ROUGH: dict[str, list[tuple[str, Study, Test]]] = {
    "within": [
        row
        for method in ("spearman", "pearson")
        for row in _rows(
            SHAPES, partial(coefficient, method=method, over=False), f"within schedules, {method}"
        )
    ],
    "over": [
        row
        for method in ("spearman", "pearson")
        for row in _rows(SHAPES, partial(coefficient, method=method, over=True), f"over schedules, {method}")
    ],
    "partial": _rows(SHAPES, partial_coefficient, "within schedules, given two controls"),
    "held-out": _rows(SHAPES, partial(held_out, column="p"), "held-out R²"),
    "mixed": _rows(SHAPES[:3], partial(mixed, languages=6, slopes=0.0), "mixed model, 6 languages"),
    "paired": _rows((Multiplied(2, 8, between=0), Collapsed(2, 12, between=0)), paired, "paired difference"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--only", nargs="+", choices=list(ROUGH), default=list(ROUGH))
    options = parser.parse_args()
    ROWS.update({f"rough {name}": rows for name, rows in ROUGH.items()})
    print("| statistic | studies of (schedules × seeds) | 5 % test rejects | 95 % interval covers |")
    print("|---|---|---|---|", flush=True)
    for name in options.only:
        for k in range(len(ROUGH[name])):
            sys.stdout.write(rate((f"rough {name}", k), options.studies) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
