"""How often nominal 95 % intervals over seeds contain the truth: effect sizes over tasks, choices without labels,
correlations over languages, shares of runs.

    python benchmarks/intervals_over_seeds.py                   1,000 studies a row: the table of docs/statistics.md
    python benchmarks/intervals_over_seeds.py --studies 20      does it run at all
    python benchmarks/intervals_over_seeds.py --kinds choice    some of the rows

Runs of one seed share what the seed does, in all tasks, schedules and languages; languages come in families that do
well or badly together; some runs collapse. Everything is drawn from models whose truth is known, or found by a study of
very many seeds. Prints Markdown. "None": studies in which the interval is not given; they are not among those covered.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from fishlens.analysis.collapse import COLLAPSED, DIVERGED, TRAINED, collapse_shares
from fishlens.analysis.effects import (
    interquartile_mean,
    low_data_curve,
    performance_profile,
    probability_of_improvement,
)
from fishlens.analysis.targets.clustered import bootstrap_mean, mean_correlation
from scipy import stats

Rng = np.random.Generator
Row = tuple[str, int, Callable[[Rng], tuple[float, float]], float]
MANY = 400_000  # runs of a study that knows the truth


def scores(rng: Rng, tasks: int, runs: int, share: float, kind: str, seeds: np.ndarray) -> np.ndarray:
    """Points `[tasks, runs]` of one schedule: tasks three points apart, `share` of the variance that of the seed."""
    noise = rng.standard_normal((tasks, runs))
    points = np.sqrt(share) * seeds + np.sqrt(1 - share) * noise + 3.0 * np.arange(tasks)[:, None]
    return points - 6 * (rng.random((tasks, runs)) < 0.1) if kind == "collapse" else points


def by_task(points: np.ndarray) -> dict[str, np.ndarray]:
    return {str(task): own for task, own in enumerate(points)}


def middle_half() -> Iterator[Row]:
    for kind in ("normal", "collapse"):
        for share in (0.0, 0.5):
            for tasks, counts in ((1, (6, 12)), (3, (6, 12)), (6, (6, 12))):
                rng = np.random.default_rng(0)
                whole = scores(rng, tasks, MANY, share, kind, rng.standard_normal(MANY))
                truth = float(stats.trim_mean(whole, 0.25, axis=None))
                for runs in counts:

                    def study(rng: Rng, tasks=tasks, runs=runs, share=share, kind=kind):
                        points = scores(rng, tasks, runs, share, kind, rng.standard_normal(runs))
                        found = interquartile_mean(
                            by_task(points), resamples=399, seed=int(rng.integers(2**31))
                        )
                        return found.low, found.high

                    yield f"interquartile mean, {kind}, {tasks} tasks, seeds {share:g}", runs, study, truth


def improvement() -> Iterator[Row]:
    for kind in ("normal", "collapse"):
        for better in (0.0, 1.0, 2.0):
            rng = np.random.default_rng(0)
            one, other = (
                scores(rng, 1, MANY, 0.0, kind, np.zeros(MANY))[0] + shift for shift in (better, 0.0)
            )
            truth = float((one > other).mean())
            for share in (0.0, 0.5):
                for tasks in (1, 3):
                    for runs in (6, 12):

                        def study(rng: Rng, tasks=tasks, runs=runs, share=share, kind=kind, better=better):
                            seeds = rng.standard_normal(runs)
                            x, y = (scores(rng, tasks, runs, share, kind, seeds) for _ in range(2))
                            found = probability_of_improvement(by_task(x + better), by_task(y))
                            return found.low, found.high

                        name = f"improvement {truth:.2f}, {kind}, {tasks} tasks, seeds {share:g}"
                        yield name, runs, study, truth


def profile() -> Iterator[Row]:
    """One threshold a study, drawn so that all shares come up."""
    for tasks in (1, 3):
        for share in (0.0, 0.5):
            for runs in (5, 12):
                at = np.linspace(-1.5, 1.5 + 3 * (tasks - 1), 13)
                truths = np.mean(
                    [stats.norm.sf(at - 3 * task) for task in range(tasks)], axis=0
                )  # of runs above each

                def study(rng: Rng, tasks=tasks, runs=runs, share=share, at=at, truths=truths):
                    points = scores(rng, tasks, runs, share, "normal", rng.standard_normal(runs))
                    k = int(rng.integers(len(at)))
                    found = performance_profile(by_task(points), [at[k]]).iloc[0]
                    return found["low"] - truths[k], found["high"] - truths[k]

                yield f"profile, {tasks} tasks, seeds {share:g}", runs, study, 0.0


def choice() -> Iterator[Row]:
    """Points below the best step; of several schedules six runs in ten have their seed's."""
    for kind, truth in (("normal", 2.0), ("exponential", 1.0), ("half of them 0", 0.5)):
        for schedules in (1, 6):
            for seeds in (5, 6, 12, 20):

                def study(rng: Rng, schedules=schedules, seeds=seeds, kind=kind):
                    own, shared = (draw_loss(rng, kind, (seeds, n)) for n in (schedules, 1))
                    loss = np.where(rng.random(own.shape) < 0.6, shared, own) if schedules > 1 else own
                    names = [f"{s}-{k}" for s in range(seeds) for k in range(schedules)]
                    of_run = pd.Series(loss.ravel(), index=names)
                    units = pd.Series([name.split("-")[0] for name in names], index=names)
                    found = bootstrap_mean("regret", of_run, units, 0.95, 999, int(rng.integers(2**31)))
                    return found.low, found.high

                yield f"choice, {kind}, {schedules} schedules", seeds, study, truth


def draw_loss(rng: Rng, kind: str, shape: tuple[int, int]) -> np.ndarray:
    if kind == "normal":
        return 2 + rng.standard_normal(shape)
    loss = rng.exponential(size=shape)
    return loss * (rng.random(shape) < 0.5) if kind == "half of them 0" else loss


def languages() -> Iterator[Row]:
    """Spearman over 7 or 15 languages of three families, mean over the schedules of a seed. The languages are those of
    the study: what it would say of them with very many seeds is the truth."""
    for count in (7, 15):
        for schedules in (1, 6):
            for seeds in (5, 12):

                def study(rng: Rng, count=count, schedules=schedules, seeds=seeds):
                    family = rng.integers(3, size=count)
                    level = rng.standard_normal((2, 3))[:, family] + 0.7 * rng.standard_normal((2, count))
                    z = correlations(rng, level, schedules, 2000)
                    truth = float(np.tanh(z.mean()))
                    own = correlations(rng, level, schedules, seeds)
                    names = [f"{s}-{k}" for s in range(seeds) for k in range(schedules)]
                    of_run = pd.Series(np.tanh(own.ravel()), index=names)
                    units = pd.Series([name.split("-")[0] for name in names], index=names)
                    found = mean_correlation("spearman", of_run, units, 0.95)
                    return found.low - truth, found.high - truth

                yield f"over {count} languages, {schedules} schedules", seeds, study, 0.0


def correlations(rng: Rng, level: np.ndarray, schedules: int, seeds: int) -> np.ndarray:
    """Fisher's z `[seeds, schedules]` of what a feature and the score have in each language; a seed shifts both."""
    shape = (2, seeds, schedules, level.shape[1])
    of_seed = 0.7 * rng.standard_normal((2, seeds, 1, level.shape[1]))
    values = level[:, None, None, :] + of_seed + 0.7 * rng.standard_normal(shape)
    ranks = values.argsort(axis=-1).argsort(axis=-1).astype(float)
    ranks -= ranks.mean(axis=-1, keepdims=True)
    r = (ranks[0] * ranks[1]).sum(-1) / (ranks[0] ** 2).sum(-1)
    return np.arctanh(np.clip(r, -1 + 1e-9, 1 - 1e-9))


def low_data() -> Iterator[Row]:
    for kind, truth in (("normal", 0.0), ("collapse", -0.6)):
        for runs in (3, 5, 12):

            def study(rng: Rng, runs=runs, kind=kind):
                points = scores(rng, 1, runs, 0.0, kind, np.zeros(runs))[0]
                table = pd.DataFrame({"schedule": "gu", "examples": 100, "average": points})
                found = low_data_curve(table).iloc[0]
                return found["low"], found["high"]

            yield f"mean of a low-data curve, {kind}", runs, study, truth


def shares() -> Iterator[Row]:
    for truth in (0.05, 0.1, 0.3):
        for runs in (6, 12, 36):

            def study(rng: Rng, runs=runs, truth=truth):
                state = np.where(rng.random(runs) < 0.1, DIVERGED, TRAINED).astype(object)
                state[(state == TRAINED) & (rng.random(runs) < truth)] = COLLAPSED
                found = collapse_shares(pd.DataFrame({"schedule": "gu", "state": state})).iloc[0]
                return found["low"], found["high"]

            yield f"share of collapsed runs, {truth:g}", runs, study, truth


KINDS = {
    "middle-half": middle_half, "improvement": improvement, "profile": profile, "choice": choice,
    "languages": languages, "low-data": low_data, "shares": shares,
}  # fmt: skip


def measure(kinds: list[str], studies: int) -> None:
    print("| interval | seeds | covers | none |\n|---|---|---|---|")
    for kind in kinds:
        for name, runs, study, truth in KINDS[kind]():
            rng = np.random.default_rng([runs, *name.encode()])
            ends = np.array([study(rng) for _ in range(studies)], dtype=float)
            given = np.isfinite(ends).all(axis=1)
            inside = (ends[given, 0] <= truth + 1e-12) & (truth - 1e-12 <= ends[given, 1])
            covers = f"{100 * inside.mean():.1f} %" if given.any() else "–"
            print(f"| {name} | {runs} | {covers} | {100 * (1 - given.mean()):.1f} % |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    measure(options.kinds, options.studies)
