"""What the tables and figures of the real study are made of: runs, their scores, and the dates of their take-offs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from fishlens.analysis import collapsed_runs, features, run_baselines, scored_runs, targets

from fishlens.journal import Runs, load_runs

HERE = Path(__file__).parent
CHANCE = {"nli": 100 / 3, "topic": 100 / 7}
FOLDERS = {  # of data/: the runs of a task (in two precisions, by seed), and the controls beside them
    "nli": ("nli", ["nli"]),
    "topic": ("topic", ["topic", "topic-cpu"]),
    "warm-up": ("nli", ["warm-up"]),
    "source-adapter": ("topic", ["source-adapter"]),
    "source-adapter-nli": ("nli", ["source-adapter-nli"]),
    "topic-controls": ("topic", ["topic-controls"]),
}
NOT_A_BLOCK = "head"


@dataclass(frozen=True)
class Task:
    """One task's confirmatory runs.

    table: one row per run: schedule, seed, source and average test score (points), the features of its tr(F) curve,
        baselines of the source, `state` (`collapsed_runs`), `diverged`, `take_off` (NaN if diverged) and `rise`.
    curves: step × run, tr(F) over the blocks without the head. validation: step × run, the source's score.
    gradients, losses: step × run, the norm of the gradient of what trained, and the loss of the batches.
    points: run × language × step: the target's score, and what was measured of it; none of a control.
    """

    name: str
    runs: Runs
    table: pd.DataFrame
    curves: pd.DataFrame
    validation: pd.DataFrame
    gradients: pd.DataFrame
    losses: pd.DataFrame
    points: pd.DataFrame

    @property
    def kept(self) -> pd.DataFrame:
        return self.table[~self.table["diverged"]]


def read(name: str) -> Task:
    """The exported runs of a task, or of a control."""
    task, folders = FOLDERS[name]
    runs = load_runs([HERE / "data" / folder for folder in folders])
    curves, validation = _curves(runs), _validation(runs)
    gradients, losses = (_training(runs, name) for name in ("gradient_norm", "loss"))
    table = scored_runs(runs).merge(features(runs).drop(columns="reason"), on="run")
    table = table.merge(run_baselines(runs), on="run", suffixes=("", "_baseline"))
    states = collapsed_runs(runs, CHANCE[task]).set_index("run")["state"]
    table["state"] = table["run"].map(states)
    table["diverged"] = table["state"] == "diverged"
    table["take_off"] = [
        np.nan if gone else take_off(validation[run], task)
        for run, gone in zip(table["run"], table["diverged"], strict=True)
    ]
    table["rise"] = [steepest_rise(curves[run]) for run in table["run"]]
    table["passed"] = [passes_its_middle(np.log(curves[run])) for run in table["run"]]
    table["passed_gradient"] = [passes_its_middle(np.log(gradients[run])) for run in table["run"]]
    table["passed_loss"] = [passes_its_middle(-losses[run]) for run in table["run"]]
    languages = pd.read_csv(HERE / "data" / "languages.csv").set_index("language")
    distance = languages["syntactic"].to_dict()
    points = targets.language_points(runs, distance=distance) if name == task else pd.DataFrame()
    return Task(name, runs, table, curves, validation, gradients, losses, points)


def take_off(validation: pd.Series, task: str) -> float:
    """The first step at which the source's score is past the middle between guessing and its last value, of a run that
    did not diverge."""
    scores = validation.dropna()
    return float(scores.index[(scores >= (CHANCE[task] + scores.iloc[-1]) / 2).to_numpy()][0])


def steepest_rise(curve: pd.Series) -> float:
    """The step that ends the interval in which tr(F) grew most."""
    steps = curve.dropna()
    return float(steps.index[int(steps.diff().to_numpy()[1:].argmax()) + 1])


def passes_its_middle(curve: pd.Series) -> float:
    """The first step at which a curve is past the middle between its first value and the mean of its last three, as the
    take-off is read off the score. Not in the plan."""
    values = curve.dropna()
    return float(values.index[(values >= (values.iloc[0] + values.iloc[-3:].mean()) / 2).to_numpy()][0])


def _curves(runs: Runs) -> pd.DataFrame:
    rows = runs.fisher[(runs.fisher["block"] != NOT_A_BLOCK) & (runs.fisher["purpose"] == "track")]
    return rows.astype({"run": str}).groupby(["step", "run"])["trace"].sum().unstack("run")


def _validation(runs: Runs) -> pd.DataFrame:
    rows = runs.evaluation
    rows = rows[(rows["split"] == "validation") & rows["headline"].astype(bool)]
    return rows.astype({"run": str}).pivot_table(index="step", columns="run", values="value")


def _training(runs: Runs, what: str) -> pd.DataFrame:
    return runs.training.astype({"run": str}).pivot_table(index="step", columns="run", values=what)
