"""How often nominal 95 % intervals contain the truth, and nominal 5 % tests reject a true null, by simulation.

    python benchmarks/intervals.py                  1,000 studies per row: the tables of docs/statistics.md
    python benchmarks/intervals.py --studies 20     does it run at all
    python benchmarks/intervals.py --kinds skewed   some of the rows: independent, skewed, scheduled, unequal, paired

Everything is drawn from models in which the truth is known; nothing is read from disk. Prints Markdown.
"""

import argparse
from collections.abc import Callable

import numpy as np
from fishlens.analysis.correlation.pair import correlation
from fishlens.analysis.paired import paired_difference
from scipy import stats

INTERVALS = ("jackknife", "bca", "percentile")
Study = Callable[[np.random.Generator, int, float], tuple[np.ndarray, np.ndarray]]


def pairs(rng: np.random.Generator, n: int, rho: float) -> np.ndarray:
    x, noise = rng.standard_normal((2, n))
    return np.column_stack([x, rho * x + np.sqrt(1 - rho**2) * noise])


def independent(rng: np.random.Generator, clusters: int, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """One run per cluster."""
    return pairs(rng, clusters, rho), np.arange(clusters)


def skewed(rng: np.random.Generator, clusters: int, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """As `independent`, with a log-normal feature (areas under tr(F) are skewed)."""
    columns = pairs(rng, clusters, rho)
    columns[:, 0] = np.exp(columns[:, 0])
    return columns, np.arange(clusters)


def scheduled(rng: np.random.Generator, clusters: int, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """Five seeds per schedule; half of each variance lies between schedules."""
    cluster = np.repeat(np.arange(clusters), 5)
    return pairs(rng, clusters, rho)[cluster] + pairs(rng, len(cluster), rho), cluster


def unequal(rng: np.random.Generator, clusters: int, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """Two seeds of the first schedule, three of the second, …: no two schedules can change places."""
    cluster = np.repeat(np.arange(clusters), np.arange(2, clusters + 2))
    return pairs(rng, clusters, rho)[cluster] + pairs(rng, len(cluster), rho), cluster


def truth(study: Study, method: str, rho: float) -> float:
    """The coefficient of a very large study."""
    if rho == 0 or (method == "pearson" and study is not skewed):
        return rho
    columns, _ = (independent if study in (scheduled, unequal) else study)(
        np.random.default_rng(0), 2_000_000, rho
    )
    return float({"pearson": stats.pearsonr, "spearman": stats.spearmanr}[method](*columns.T).statistic)


def correlations(studies: int, kinds: list[str]) -> None:
    print("| coefficient | runs | clusters | truth | jackknife | BCa | percentile | test rejects |")
    print("|---|---|---|---|---|---|---|---|")
    for method in ("pearson", "spearman"):
        for study, clusters in (
            (independent, 8), (independent, 12), (independent, 20), (independent, 40),
            (skewed, 12), (skewed, 40), (scheduled, 8), (scheduled, 12), (unequal, 8),
        ):  # fmt: skip
            for rho in (0.0, 0.6) if study.__name__ in kinds else ():
                value = truth(study, method, rho)
                rng, hits, rejected = np.random.default_rng(1), dict.fromkeys(INTERVALS, 0), 0
                for k in range(studies):
                    columns, cluster = study(rng, clusters, rho)
                    for interval in INTERVALS:
                        found = correlation(
                            *columns.T,
                            method=method,
                            cluster=cluster,
                            interval=interval,
                            resamples=399,
                            seed=k,
                        )
                        hits[interval] += found.low <= value <= found.high
                    rejected += found.p < 0.05
                cells = [f"{100 * hits[interval] / studies:.1f} %" for interval in INTERVALS]
                rate = f"{100 * rejected / studies:.1f} %" if rho == 0 else "–"
                print(
                    "|",
                    " | ".join([method, study.__name__, str(clusters), f"{value:.2f}", *cells, rate]),
                    "|",
                    flush=True,
                )


def differences(studies: int) -> None:
    print(
        "\n| pairs | differences | t | BCa | percentile | sign-flip test rejects |\n|---|---|---|---|---|---|"
    )
    for n in (4, 6, 10, 20):
        for shape in ("normal", "skewed"):
            rng, hits, rejected = np.random.default_rng(2), dict.fromkeys(("t", "bca", "percentile"), 0), 0
            for k in range(studies):
                values = rng.standard_normal(n) if shape == "normal" else rng.exponential(size=n) - 1
                for interval in hits:
                    found = paired_difference(values, interval=interval, resamples=999, seed=k)
                    hits[interval] += found.low <= 0 <= found.high
                rejected += found.p < 0.05
            cells = [f"{100 * count / studies:.1f} %" for count in [*hits.values(), rejected]]
            print("|", " | ".join([str(n), shape, *cells]), "|", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1000)
    kinds = ["independent", "skewed", "scheduled", "unequal", "paired"]
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    options = parser.parse_args()
    correlations(options.studies, options.kinds)
    if "paired" in options.kinds:
        differences(options.studies)
