"""How often nominal 5 % tests reject a true null, and 95 % intervals contain the truth, by simulation of studies
of schedules and seeds as they are.

    python benchmarks/error_rates.py                          1,000 studies a row: the table of docs/error_rates.md
    python benchmarks/error_rates.py --studies 50             does it run at all
    python benchmarks/error_rates.py --only within mixed      some statistics; --list names them
    python benchmarks/error_rates.py --jobs 2

A run's feature and score are each  a_schedule + b_seed + e, independent of each other unless a row says otherwise;
`seed share` is the seed's share of the variance inside a schedule, schedules have a variance of 1 beside it. Everything
is drawn from a seeded generator; nothing is read from disk. Prints Markdown; a rate outside 3–7 %, or a coverage
outside 92–97 %, is in bold.
"""

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd
from fishlens.analysis.correlation.leadlag import lead_lag
from fishlens.analysis.correlation.pair import correlation
from fishlens.analysis.correlation.prediction import predict
from fishlens.analysis.correlation.table import correlate
from fishlens.analysis.models import mixed_model
from fishlens.analysis.paired import equivalence, paired_difference
from fishlens.analysis.regression import clustered_regression

from fishlens.journal import Runs

Outcome = tuple[float, bool | None]  # p (NaN: "not enough"), whether the interval contains the truth


@dataclass(frozen=True)
class Study:
    """What a study looks like. `tail`: degrees of freedom of Student's t for every draw (None: normal). `ties`: values
    are rounded to so many steps per standard deviation. `scaled`: a seed shifts some schedules more than others.
    `unequal`: schedule k has a share of the seeds that falls to a third."""

    schedules: int = 6
    seeds: int = 6
    share: float = 0.7
    between: float = 1.0
    tail: float | None = None
    missing: float = 0.0
    ties: float = 0.0
    scaled: bool = False
    unequal: bool = False
    rho: float = 0.0
    words: tuple[str, ...] = field(default=())

    def draw(self, rng: np.random.Generator, count: int = 2) -> pd.DataFrame:
        """Columns v0, v1, …, schedule, seed; v0 and v1 have correlation `rho` in what is a run's own."""
        schedule, seed = (part.ravel() for part in np.indices((self.schedules, self.seeds)))
        n = len(schedule)
        keep = rng.random(n) >= self.missing
        if self.unequal:
            keep &= seed < np.ceil(self.seeds * np.linspace(1, 1 / 3, self.schedules))[schedule]
        scale = np.exp(0.7 * rng.standard_normal(self.schedules))[schedule] if self.scaled else np.ones(n)
        own = self._noise(rng, (count, n))
        own[1] = self.rho * own[0] + np.sqrt(1 - self.rho**2) * own[1]
        values = (
            np.sqrt(self.between) * self._noise(rng, (count, self.schedules))[:, schedule]
            + np.sqrt(self.share) * scale * self._noise(rng, (count, self.seeds))[:, seed]
            + np.sqrt(1 - self.share) * own
        )
        if self.ties:
            values = np.round(values * self.ties) / self.ties
        table = pd.DataFrame(values.T, columns=[f"v{k}" for k in range(count)])
        return table.assign(schedule=schedule, seed=seed)[keep].reset_index(drop=True)

    def _noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        if self.tail is None:
            return rng.standard_normal(shape)
        return rng.standard_t(self.tail, shape) / np.sqrt(self.tail / (self.tail - 2))

    def __str__(self) -> str:
        said = [f"{self.schedules} × {self.seeds}", f"seed share {self.share:g}"]
        said += ["no schedule effects"] if self.between == 0 else []
        said += [f"schedules' variance {self.between:g}"] if self.between not in (0, 1) else []
        said += [f"t({self.tail:g})"] if self.tail else []
        said += [f"{self.missing:.0%} of the runs missing"] if self.missing else []
        said += [f"rounded to 1/{self.ties:g} sd"] if self.ties else []
        said += ["seeds shift schedules differently"] if self.scaled else []
        said += ["unequal numbers of seeds"] if self.unequal else []
        said += [f"true correlation {self.rho:g}"] if self.rho else []
        return ", ".join([*said, *self.words])


def coefficient(rng: np.random.Generator, study: Study, method: str, cluster: str | None) -> Outcome:
    table = study.draw(rng)
    if cluster:
        found = correlate(table, ["v0"], ["v1"], methods=(method,), resamples=199, cluster=cluster).iloc[0]
    else:
        x, y, schedule, seed = (table[name].to_numpy() for name in ("v0", "v1", "schedule", "seed"))
        result = correlation(x, y, method=method, strata=schedule, crossed=seed, resamples=199)
        found = result.as_row()
    truth = study.rho if method == "pearson" else 6 / np.pi * np.arcsin(study.rho / 2)
    covered = None if np.isnan(found["low"]) else bool(found["low"] <= truth <= found["high"])
    return float(found["p"]), covered


def own_runs(rng: np.random.Generator, study: Study) -> Outcome:
    """Schedules that are uncorrelated, runs within them correlated 0.8: what is asked about schedules."""
    return coefficient(rng, study, "pearson", "schedule")


def by_seed(rng: np.random.Generator, study: Study) -> Outcome:
    table = study.draw(rng)
    found = correlate(
        table, ["v0"], ["v1"], strata="schedule", cluster="seed", crossed=None, resamples=199
    ).iloc[0]
    return float(found["p"]), None


def partial_coefficient(rng: np.random.Generator, study: Study) -> Outcome:
    table = study.draw(rng, 4)
    table[["v0", "v1"]] += table[["v2", "v3"]].to_numpy() @ np.array([[1.0, 0.5], [0.5, 1.0]])
    row = correlate(table, ["v0"], ["v1"], controls=["v2", "v3"], strata="schedule", resamples=199).iloc[0]
    return float(row["p"]), None if np.isnan(row["low"]) else bool(row["low"] <= 0 <= row["high"])


def family(rng: np.random.Generator, study: Study, column: str) -> Outcome:
    """Eight features, each half of it what all have in common: is any of them found?"""
    table = study.draw(rng, 10)
    names = [f"v{k}" for k in range(1, 9)]
    table[names] = table[names] + table[["v9"]].to_numpy()
    found = correlate(table, names, ["v0"], strata="schedule", resamples=199)
    p = found[column].to_numpy(dtype=float)
    return float(np.nanmin(p)) if np.isfinite(p).any() else float("nan"), None


def held_out(rng: np.random.Generator, study: Study, column: str) -> Outcome:
    table = study.draw(rng, 7)
    if column == "gain_p":
        table["v0"] += table["v4"]
        table["v1"] += table["v4"]
    found = predict(table, "v0", ["v1", "v2", "v3"], ["v4", "v5", "v6"] if column == "gain_p" else [])
    last = found.iloc[-1]
    return float(last.get(column, np.nan)), None


def mixed(rng: np.random.Generator, study: Study, languages: int, slopes: float) -> Outcome:
    table = study.draw(rng).assign(run=lambda t: np.arange(len(t)))
    run, language = np.repeat(np.arange(len(table)), languages), np.tile(np.arange(languages), len(table))
    rows = table.iloc[run].reset_index(drop=True).assign(language=language)
    rows["value"] = rows["v1"] + 3 * rng.standard_normal(languages)[language]
    rows["value"] += slopes * rng.standard_normal(languages)[language] * rows["v0"]
    rows["value"] += 0.5 * rng.standard_normal(len(rows))
    found = mixed_model(rows, ["v0"])
    if not found.enough:
        return float("nan"), None
    slope = found.fixed.iloc[1]
    return float(slope["p"]), bool(slope["low"] <= 0 <= slope["high"])


def lags(rng: np.random.Generator, study: Study, points: int = 12) -> Outcome:
    """Curves of random steps that schedules and seeds share in part; smallest p over three lags."""
    schedule, seed = (part.ravel() for part in np.indices((study.schedules, study.seeds)))
    n = len(schedule)
    curves = [
        np.cumsum(
            rng.standard_normal((study.schedules, points))[schedule]
            + np.sqrt(study.share) * rng.standard_normal((study.seeds, points))[seed]
            + np.sqrt(1 - study.share) * rng.standard_normal((n, points)),
            axis=1,
        )
        for _ in range(2)
    ]
    names = [f"run-{k}" for k in range(n)]
    at = {"run": np.repeat(names, points), "step": np.tile(10 * np.arange(points), n)}
    fisher = pd.DataFrame({**at, "block": "layer.0", "trace": 100 + curves[0].ravel(), "trainable": True})
    scores = pd.DataFrame({**at, "value": curves[1].ravel(), "split": "validation", "language": "en"})
    table = pd.DataFrame({"run": names, "schedule": schedule, "seed": seed})
    nothing = pd.DataFrame({"run": []})
    runs = Runs(table, fisher, scores.assign(metric="accuracy", headline=True), nothing, nothing, nothing)
    found = lead_lag(runs, max_lag=1, resamples=199)
    own = found[found["course"] == "own"].set_index("lag")
    p = own["p_max"].to_numpy(dtype=float)
    smallest = float(np.nanmin(p)) if np.isfinite(p).any() else float("nan")
    return smallest, bool(own.loc[0, "low"] <= 0 <= own.loc[0, "high"])


def independent(rng: np.random.Generator, study: Study, method: str) -> Outcome:
    """One run a schedule, no seeds: the coefficient over runs."""
    table = study.draw(rng)
    found = correlation(table["v0"], table["v1"], method=method, resamples=199)
    truth = study.rho if method == "pearson" else 6 / np.pi * np.arcsin(study.rho / 2)
    return found.p, None if np.isnan(found.low) else found.low <= truth <= found.high


def paired(rng: np.random.Generator, study: Study) -> Outcome:
    found = paired_difference(study._noise(rng, (study.seeds,)))
    return (found.p, found.low <= 0 <= found.high) if found.enough else (float("nan"), None)


def at_the_margin(rng: np.random.Generator, study: Study) -> Outcome:
    return equivalence(1 + 0.5 * study._noise(rng, (study.seeds,)), 1.0).p, None


def clustered(rng: np.random.Generator, study: Study, cluster: str) -> Outcome:
    found = clustered_regression(study.draw(rng), ["v0"], "v1", cluster=cluster, resamples=199)
    if not found.enough:
        return float("nan"), None
    row = found.slopes.iloc[0]
    return float(row["p"]), bool(row["low"] <= 0 <= row["high"])


Test = Callable[[np.random.Generator, Study], Outcome]
LAYOUTS = [
    Study(), Study(share=0.9), Study(share=0.5), Study(share=0.0), Study(tail=3), Study(ties=1.5),
    Study(missing=0.2), Study(unequal=True), Study(scaled=True), Study(3, 8), Study(3, 4), Study(6, 4),
    Study(10, 3, missing=0.1), Study(10, 5), Study(30, 3), Study(4, 20, tail=3), Study(6, 6, rho=0.6),
    Study(10, 5, rho=0.6), Study(6, 4, rho=0.6), Study(3, 2),
]  # fmt: skip
OVER = [
    Study(), Study(8, 5), Study(12, 3), Study(30, 3), Study(8, 5, tail=3), Study(8, 5, ties=2),
    Study(8, 6, unequal=True), Study(8, 6, unequal=True, between=0), Study(8, 5, missing=0.2), Study(8, 5, between=0),
    Study(4, 6),
]  # fmt: skip
ROWS: dict[str, list[tuple[str, Study, Test]]] = {
    "within": [
        (f"within schedules, {method}", study, partial(coefficient, method=method, cluster=None))
        for method in ("spearman", "pearson")
        for study in LAYOUTS
    ]
    + [("within schedules, kendall", Study(), partial(coefficient, method="kendall", cluster=None))]
    + [
        (f"within schedules, {method}", study, partial(coefficient, method=method, cluster=None))
        for study in (Study(6, 4, scaled=True), Study(3, 4, rho=0.6), Study(6, 4, tail=3), Study(6, 4, missing=0.15),
                      Study(10, 3, scaled=True), Study(missing=0.2, scaled=True))
        for method in ("spearman", "pearson")
    ],
    "over": [
        (f"over schedules, {method}", study, partial(coefficient, method=method, cluster="schedule"))
        for method in ("spearman", "pearson")
        for study in OVER
    ]
    + [
        ("over schedules, runs within them correlated 0.8", Study(size, 6, 0.0, rho=0.8, words=("truth 0",)),
         lambda rng, study: (own_runs(rng, study)[0], None))
        for size in (6, 12)
    ]
    + [
        (f"over schedules, {method}", study, partial(coefficient, method=method, cluster="schedule"))
        for study in (Study(12, 6, unequal=True, between=0), Study(8, 5, scaled=True),
                      Study(8, 5, scaled=True, between=0), Study(8, 5, scaled=True, between=0.3),
                      Study(12, 6, scaled=True, between=0), Study(8, 5, between=0.3))
        for method in ("pearson", "spearman")
    ],
    "seeds": [("within schedules, clusters = seeds", Study(share=s), by_seed) for s in (0.0, 0.7)],
    "partial": [
        ("within schedules, given two controls", study, partial_coefficient)
        for study in (Study(), Study(share=0.5, missing=0.2), Study(6, 4), Study(tail=3), Study(6, 4, scaled=True))
    ],
    "family": [
        (f"smallest of eight, {column}", study, partial(family, column=column))
        for column in ("p_max", "p_holm")
        for study in (Study(), Study(missing=0.1), Study(6, 4), Study(3, 2))
    ],
    "held-out": [
        ("held-out R²", study, partial(held_out, column="p"))
        for study in (Study(), Study(share=0.0), Study(missing=0.15), Study(10, 3), Study(4, 6), Study(scaled=True),
                      Study(6, 4, scaled=True))
    ]
    + [("gain in R² over three baselines", study, partial(held_out, column="gain_p"))
       for study in (Study(), Study(10, 4))],
    "mixed": [
        (f"mixed model, {languages} languages" + (f", slopes by language (sd {slopes:g})" if slopes else ""), study,
         partial(mixed, languages=languages, slopes=slopes))
        for study, languages, slopes in (
            (Study(), 6, 0.0), (Study(share=0.9), 6, 0.0), (Study(), 6, 1.0), (Study(6, 4, 0.5), 4, 1.0),
            (Study(3, 4, 0.5), 8, 0.0), (Study(10, 3), 10, 0.3), (Study(missing=0.2), 6, 0.0), (Study(tail=3), 6, 0.5),
            (Study(scaled=True), 6, 0.0), (Study(6, 4, scaled=True), 6, 0.0),
            (Study(missing=0.2, scaled=True), 6, 0.0), (Study(scaled=True), 6, 1.0),
        )
    ],
    "lags": [
        ("lead and lag, smallest of three p", study, lags)
        for study in (Study(), Study(share=0.0), Study(6, 4), Study(3, 6), Study(10, 5))
    ],
    "regression": [
        (f"clustered regression, wild bootstrap over {cluster}s", study, partial(clustered, cluster=cluster))
        for cluster, studies in (
            ("schedule", (Study(6, 4), Study(5, 5), Study(12, 3), Study(tail=3), Study(missing=0.2))),
            ("seed", (Study(), Study(4, 5), Study(scaled=True), Study(tail=3), Study(missing=0.2), Study(6, 12))),
        )
        for study in studies
    ],
    "runs": [
        (f"over independent runs, {method}", study, partial(independent, method=method))
        for method in ("spearman", "pearson")
        for study in (
            Study(6, 1, 0.0), Study(12, 1, 0.0), Study(12, 1, 0.0, tail=3), Study(30, 1, 0.0, rho=0.6, between=0),
            Study(6, 1, 0.0, rho=0.6, between=0), Study(7, 1, 0.0), Study(8, 1, 0.0, tail=3),
        )
    ],
    "paired": [("paired difference", Study(2, n, 0.0, tail=t), paired) for n in (6, 8, 20) for t in (None, 3)]
    + [("equivalence at the margin", Study(2, n, 0.0), at_the_margin) for n in (4, 8)],
}  # fmt: skip


def rate(row: tuple[str, int], studies: int) -> str:
    """One line of the table."""
    name, study, test = ROWS[row[0]][row[1]]
    rng = np.random.default_rng([20260101, *row[0].encode(), row[1]])
    found = [test(rng, study) for _ in range(studies)]
    p = np.array([one[0] for one in found])
    told = np.isfinite(p)
    cells = [name, str(study)]
    if told.sum() < 0.1 * studies:
        return f"| {' | '.join(cells)} | not enough | |"
    rejects = float(np.mean(p[told] <= 0.05 + 1e-12))
    covered = [one[1] for one in found if one[1] is not None]
    lost = f" (of {told.sum()})" if told.sum() < studies else ""
    null = study.rho == 0 or "truth 0" in study.words
    said = (
        _cell(rejects, 0.03, 0.07, ceiling=name.startswith("smallest")) if null else f"(power {rejects:.0%})"
    )
    cells.append(said + lost)
    cells.append(_cell(float(np.mean(covered)), 0.92, 0.97) if covered else "")
    return f"| {' | '.join(cells)} |"


def _cell(share: float, low: float, high: float, ceiling: bool = False) -> str:
    text = f"{100 * share:.1f} %"
    inside = share <= high if ceiling else low <= share <= high
    return text if inside else f"**{text}**"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="Name the rows and stop.")
    options = parser.parse_args()
    rows = [(name, k) for name in options.only for k in range(len(ROWS[name]))]
    if options.list:
        sys.stdout.writelines(f"{n}\t{ROWS[n][k][0]}\t{ROWS[n][k][1]}\n" for n, k in rows)
        return
    print("| statistic | studies of (schedules × seeds) | 5 % test rejects | 95 % interval covers |")
    print("|---|---|---|---|", flush=True)
    if options.jobs == 1:
        for row in rows:
            print(rate(row, options.studies), flush=True)
        return
    with ProcessPoolExecutor(options.jobs) as pool:
        for line in pool.map(partial(rate, studies=options.studies), rows):
            print(line, flush=True)


if __name__ == "__main__":
    main()
