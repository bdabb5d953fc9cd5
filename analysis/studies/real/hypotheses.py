"""H1 to H7 of PLAN.md, each as the table that answers it."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd
from confirmatory import Task  # type: ignore[import-not-found]
from fishlens.analysis import (
    collapse_shares,
    compare,
    compare_over,
    correlate,
    paired_difference,
    predict,
    targets,
)
from fishlens.analysis.power import paired_power
from scipy import stats

CURVE = ["peak", "peak_step", "width", "early_area", "area", "final", "drop", "depth_centroid"]
BASELINES = ["source", "final_loss", "gradient_norm"]
FORETELLERS = ["log_trace", "log_gradient", "score"]
POWER = 0.8


def schedules(task: Task, keep: bool = True) -> pd.DataFrame:
    """H1: each schedule against standard, paired by seed; `detectable`: the difference seen with a chance of 80 %."""
    table = task.kept if keep else task.table
    found = compare(table).set_index("schedule")
    wide = table.pivot(index="seed", columns="schedule", values=["average", "source"])
    rows = []
    for name, row in found.iterrows():
        if name == "standard":
            rows.append(row.to_dict() | {"schedule": name})
            continue
        differences = (wide["average"][name] - wide["average"]["standard"]).dropna()
        source = (wide["source"][name] - wide["source"]["standard"]).loc[differences.index]
        adjusted = at_equal_source(differences.to_numpy(), source.to_numpy())
        spread, pairs = float(differences.std(ddof=1)), len(differences)
        smallest = detectable(partial(paired_power, sd=spread, seeds=pairs), 3 * spread)
        rows.append(row.to_dict() | {"schedule": name, **adjusted, "detectable": smallest})
    return pd.DataFrame(rows)


def at_equal_source(differences: np.ndarray, source: np.ndarray) -> dict[str, float]:
    """The difference where the source's scores are equal: the intercept of the differences on the source's (least
    squares, t)."""
    n = len(differences)
    if n < 4 or np.ptp(source) == 0:
        return {"adjusted": math.nan, "adjusted_low": math.nan, "adjusted_high": math.nan}
    x = np.column_stack([np.ones(n), source])
    solution, *_ = np.linalg.lstsq(x, differences, rcond=None)
    variance = float(np.sum((differences - x @ solution) ** 2)) / (n - 2)
    half = float(stats.t.ppf(0.975, n - 2)) * math.sqrt(variance * np.linalg.inv(x.T @ x)[0, 0])
    return {"adjusted": solution[0], "adjusted_low": solution[0] - half, "adjusted_high": solution[0] + half}


def over_tasks(tasks: Sequence[Task]) -> pd.DataFrame:
    """H1 over tasks: each schedule's difference to standard, the tasks' differences of a seed averaged first, so that a
    seed is one observation; the seeds that all tasks have."""
    return compare_over([task.kept for task in tasks])


def shares(task: Task) -> pd.DataFrame:
    """H1: how many runs of each schedule diverged on the source, and how many of the others lost the targets."""
    return collapse_shares(task.table)


def curve_features(task: Task) -> pd.DataFrame:
    """H2: features of the source's curve with the targets' average, within schedules, seeds taken away; p by max-T."""
    return correlate(task.kept, CURVE, ["average"], strata="schedule")


def held_out(task: Task) -> pd.DataFrame:
    """H2: R² of the average for schedules and seeds left out, by the baselines, by three features, by both."""
    known = [name for name in BASELINES if name in task.kept and task.kept[name].notna().all()]
    return predict(task.kept, "average", ["peak", "early_area", "depth_centroid"], known)


def languages(task: Task, given: Sequence[str] = ()) -> pd.DataFrame:
    """H3: over the languages of a run, a feature of the language with its score."""
    return targets.over_languages(_kept_points(task), given=given)


def slopes(task: Task) -> object:
    """H3: points a standard deviation of the language's log tr(F), source score and distance beside it."""
    points = _kept_points(task).assign(log_trace=lambda table: np.log10(table["trace"]))
    predictors = ["log_trace", "overlap", "entropy", "source", "distance"]
    return targets.language_slopes(points, predictors, random=("language", "run", "schedule", "seed"))


def course(task: Task, feature: str) -> pd.DataFrame:
    """H3: which moves first, the language's own rates of change."""
    found = targets.over_training(_kept_points(task), feature, max_lag=1)
    return found[found["course"] == "own"]


def checkpoints(task: Task) -> pd.DataFrame:
    """H4: what choosing a step by each criterion costs."""
    return targets.choose_steps(_kept_points(task))


def choices(task: Task) -> pd.DataFrame:
    """H4: what choosing a schedule by each criterion costs; the seeds that have all schedules."""
    points = _kept_points(task)
    return targets.choose_schedules(points)


def order(task: Task) -> pd.DataFrame:
    """H5: Kendall's τ between the order in which `fun` thawed the blocks and top-down, one row per seed."""
    own = task.table[task.table["schedule"] == "fun"]
    return own[["seed", "order_agreement"]].sort_values("seed")


def leads(task: Task) -> pd.DataFrame:
    """H6: updates from a date of tr(F), or of a rival, to the source's take-off (positive: it leads), means of seeds;
    and in how many runs it was earlier, at the same step, later."""
    rows = []
    for date in ("rise", "passed", "passed_gradient", "passed_loss"):
        own = task.kept["take_off"] - task.kept[date]
        by_seed = own.groupby(task.kept["seed"]).mean()
        row = paired_difference(by_seed.to_numpy(), quantity="lead of tr(F), updates").as_row()
        counts = {
            "earlier": int((own > 0).sum()),
            "same": int((own == 0).sum()),
            "later": int((own < 0).sum()),
        }
        rows.append({"date": date, **row, **counts})
    return pd.DataFrame(rows)


def foretold(task: Task, steps: Sequence[int]) -> pd.DataFrame:
    """H6: log tr(F) at a step with the date of the take-off, within schedules, seeds taken away.

    Only runs that have not taken off by then. Beside it the norm of the gradient and the source's score at that step.
    """
    rows = []
    for step in steps:
        waiting = task.kept[task.kept["take_off"] > step].copy()
        waiting["log_trace"] = np.log10(task.curves.loc[step, waiting["run"]].to_numpy())
        waiting["log_gradient"] = np.log10(task.gradients.loc[step, waiting["run"]].to_numpy())
        waiting["score"] = task.validation.loc[step, waiting["run"]].to_numpy()
        found = correlate(waiting, FORETELLERS, ["take_off"], strata="schedule")
        rows.append(found.assign(step=step, waiting=len(waiting)))
    return pd.concat(rows, ignore_index=True)


def mediated(task: Task, schedule: str) -> dict[str, float]:
    """H7: the difference to standard, and what is left of it at equal dates of the take-off; bootstrap of seeds."""
    wide = task.kept.pivot(index="seed", columns="schedule", values=["average", "take_off"])
    pairs = pd.DataFrame(
        {name: wide[name][schedule] - wide[name]["standard"] for name in ("average", "take_off")}
    ).dropna()
    y, x = pairs["average"].to_numpy(), pairs["take_off"].to_numpy()
    rng = np.random.default_rng(0)
    changes = []
    for _ in range(9999):
        chosen = rng.integers(0, len(y), len(y))
        if np.ptp(x[chosen]) > 0:
            changes.append(y[chosen].mean() - at_equal_source(y[chosen], x[chosen])["adjusted"])
    low, high = np.quantile(changes, [0.025, 0.975])
    held = at_equal_source(y, x)
    return {
        "pairs": len(y), "difference": y.mean(), "later": x.mean(), "held": held["adjusted"],
        "held_low": held["adjusted_low"], "held_high": held["adjusted_high"],
        "change": y.mean() - held["adjusted"], "change_low": low, "change_high": high,
    }  # fmt: skip


def beside(task: Task, control: Task) -> pd.DataFrame:
    """A control: for each schedule its average over the targets, that of the same seeds' runs of the task, and the
    difference, paired by seed; last, `all`: of a seed the mean over its schedules."""
    pairs = control.table.merge(task.table, on=["schedule", "seed"], suffixes=("_control", "_task"))
    pairs["difference"] = pairs["average_control"] - pairs["average_task"]
    rows = []
    for name, own in [*pairs.groupby("schedule"), ("all", pairs)]:
        of_seeds = own.groupby("seed")["difference"].mean()
        means = {"control": own["average_control"].mean(), "task": own["average_task"].mean()}
        rows.append(
            {"schedule": name, "runs": len(own), **means, **paired_difference(of_seeds.to_numpy()).as_row()}
        )
    return pd.DataFrame(rows)


def detectable(power: Callable[[float], float], largest: float) -> float:
    """The smallest effect whose power is 80 %, by bisection; NaN if not even `largest` has it."""
    if power(largest) < POWER:
        return math.nan
    low, high = 0.0, largest
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


def _kept_points(task: Task) -> pd.DataFrame:
    return task.points[task.points["run"].isin(task.kept["run"])]
