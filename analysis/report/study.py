"""One group of comparable runs, and everything that several sections of its report need, computed once."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from fishlens.journal import Runs

from ..collapse import DIVERGED, collapse_shares, collapsed_runs
from ..dynamics import features
from ..figures import schedule_order
from ..outcomes import language_scores, run_baselines
from ..own import AVERAGE, Outcome, with_outcome
from ..paired import scored_runs
from ..selection import Comparable
from ..series import HEAD, curves
from .comparison import NOT_STATED, Comparison, comparison
from .evidence import Evidence
from .parts import SourceRuns


@dataclass(frozen=True)
class Study:
    """`window`: steps over which curves are smoothed before features are read off; `baseline`: a schedule; `metric`: of
    the scores, None for the task's headline; `guess`: points that guessing scores, None for what is known of the task;
    `brief`: one of so many groups that only its main figures are drawn."""

    group: Comparable
    window: float = 0
    baseline: str = "standard"
    margin: float | None = None  # points; None: no equivalence is tested
    metric: str | None = None
    brief: bool = False
    guess: float | None = None
    covariates: pd.DataFrame | None = None  # one row per language
    outcome: Outcome = AVERAGE  # what features are asked about, and schedules are compared by

    @property
    def runs(self) -> Runs:
        return self.group.runs

    @cached_property
    def factors(self) -> pd.DataFrame:
        """One row per run, indexed by name, with `schedule` and `seed` even where no run says them."""
        table = self.runs.runs.astype({"run": str}).set_index("run")
        if "schedule" not in table:
            table["schedule"] = NOT_STATED
        if "seed" not in table:
            table["seed"] = None
        return table.assign(schedule=table["schedule"].astype(object).fillna(NOT_STATED).astype(str))

    @property
    def schedules(self) -> list[str]:
        """In the order in which every table and figure shows them."""
        return schedule_order(self.factors["schedule"])

    @cached_property
    def by_schedule(self) -> SourceRuns:
        """Schedule -> names of its runs."""
        names = self.factors.groupby("schedule").groups
        return {schedule: tuple(names[schedule]) for schedule in self.schedules}

    @property
    def all_runs(self) -> SourceRuns:
        return {"all runs": tuple(self.factors.index)}

    @cached_property
    def blocks(self) -> list[str]:
        """Blocks that were measured, bottom to top, without the head."""
        column = self.runs.fisher["block"]
        present = set(map(str, column.unique()))
        return [b for b in map(str, column.cat.categories) if b in present and b != HEAD]

    @cached_property
    def source(self) -> str | None:
        """The language all runs were trained on, where they say the same."""
        known = set(self.factors["source"].dropna().astype(str)) if "source" in self.factors else set()
        return known.pop() if len(known) == 1 else None

    def with_schedule(self, frame: pd.DataFrame) -> pd.DataFrame:
        """`frame` with the `schedule` of each row's `run`."""
        names = frame["run"].astype(str)
        return frame.assign(run=names, schedule=names.map(self.factors["schedule"]))

    @cached_property
    def traces(self) -> pd.DataFrame:
        """Every trace of every probe: schedule, step, block, trace; millions of rows, so names stay categorical."""
        rows = self.runs.fisher[["run", "step", "block", "trace"]]
        run = rows["run"].cat
        of_run = pd.Categorical(self.factors["schedule"].reindex([str(name) for name in run.categories]))
        schedule = pd.Categorical.from_codes(of_run.codes[run.codes], of_run.categories)
        return rows.drop(columns="run").assign(schedule=schedule)

    @cached_property
    def ends(self) -> pd.DataFrame:
        """The traces of each run's last probe: run, schedule, block, trace."""
        rows = self.runs.fisher[["run", "step", "block", "trace"]]
        last = (
            rows["step"].to_numpy() == rows.groupby("run", observed=True)["step"].transform("max").to_numpy()
        )
        return self.with_schedule(rows[last]).astype({"block": str})

    @cached_property
    def total(self) -> pd.DataFrame:
        """tr(F) of all blocks together: run, schedule, step, value."""
        return self.with_schedule(curves(self.runs, curve="all"))

    @cached_property
    def normalised(self) -> pd.DataFrame:
        """tr(F) of the trainable blocks by their number, as the paper plots it: run, schedule, step, value."""
        return self.with_schedule(curves(self.runs, curve="normalised"))

    @cached_property
    def features(self) -> pd.DataFrame:
        return self.with_schedule(features(self.runs, window=self.window))

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Final scores: run, schedule, language, metric, value; empty where nothing was tested."""
        return self.with_schedule(language_scores(self.runs, metric=self.metric))

    @cached_property
    def scored(self) -> pd.DataFrame:
        """Outcomes per run: run, schedule, seed, source, average, lowest, lowest_language, languages, reason, and an
        outcome of one's own."""
        found = scored_runs(self.runs, metric=self.metric)
        return self.with_schedule(with_outcome(found, self.runs, self.outcome, self.metric))

    @cached_property
    def run_table(self) -> pd.DataFrame:
        """One row per run: schedule, seed, features, the outcome, and the baselines (`source` is one of them here)."""
        baselines = run_baselines(self.runs, metric=self.metric).drop(
            columns=self.outcome.name, errors="ignore"
        )
        outcomes = self.scored[["run", self.outcome.name]]
        seeds = self.factors["seed"].rename_axis("run").reset_index()
        table = self.features.merge(seeds, on="run").merge(outcomes, on="run").merge(baselines, on="run")
        return table.assign(diverged=table["run"].isin(self.diverged))

    @cached_property
    def evidence(self) -> Evidence:
        return Evidence(self.run_table, self.outcome)

    @cached_property
    def comparison(self) -> Comparison:
        return comparison(
            self.scored, self.schedules, self.baseline, self.margin, self.outcome, self.diverged
        )

    @cached_property
    def states(self) -> pd.DataFrame:
        """Whether each run learnt the source and kept the targets, as `collapsed_runs` has it."""
        return collapsed_runs(self.runs, self.guess, metric=self.metric)

    @cached_property
    def twins(self) -> pd.DataFrame:
        """Schedules that made the same run of a seed: one row per `schedules` (a tuple) and seed. The same run has the
        same score in every language and the same tr(F) at every step: a schedule that took another's order."""
        of_run: dict[str, list[object]] = {run: [] for run in self.factors.index}
        for frame, keys in ((self.scores, ["language", "metric"]), (self.total, ["step"])):
            for run, own in frame.groupby("run"):
                own = own.sort_values(keys)
                of_run[str(run)] += [tuple(own[key]) for key in (*keys, "value")]
        made: dict[tuple[Any, ...], list[str]] = {}
        whole, seeds = 5, self.factors["seed"]  # languages, metrics, scores; steps, tr(F)
        for run, found in of_run.items():
            if len(found) == whole and pd.notna(seeds[run]):
                made.setdefault((seeds[run], *found), []).append(run)
        alike = {key: schedule_order(self.factors.loc[runs, "schedule"]) for key, runs in made.items()}
        rows = [(tuple(schedules), key[0]) for key, schedules in alike.items() if len(schedules) > 1]
        return pd.DataFrame(rows, columns=["schedules", "seed"])

    @property
    def diverged(self) -> frozenset[str]:
        """Names of the runs that did not learn the source."""
        return frozenset(self.states.loc[self.states["state"] == DIVERGED, "run"])

    @cached_property
    def collapse(self) -> pd.DataFrame:
        """Per schedule how many runs diverged, and how many lost the targets; empty where guessing's score, or the
        number of examples, is not known."""
        found = collapse_shares(
            self.states.assign(schedule=lambda table: table["run"].map(self.factors["schedule"]))
        )
        return found.set_index("schedule").reindex([s for s in self.schedules if s in set(found["schedule"])])

    @cached_property
    def validation(self) -> pd.DataFrame:
        """Validation in the headline metric: run, schedule, step, value."""
        rows = self.runs.evaluation
        wanted = (rows["split"] == "validation").to_numpy() & rows["headline"].to_numpy(dtype=bool)
        return self.with_schedule(rows.loc[wanted, ["run", "step", "value", "metric", "language"]])

    @cached_property
    def thawed(self) -> pd.DataFrame:
        """When each run unfroze each block: run, schedule, block, step, event, score, margin."""
        rows = self.with_schedule(self.runs.unfreezing)
        return rows.astype({"block": str}).drop_duplicates(["run", "block"])

    @cached_property
    def order(self) -> pd.DataFrame:
        """Place of each block in its run's order: run, schedule, block, position (ties share their mean place).

        Runs that thawed all blocks at once have no order and are not here.
        """
        rows = self.thawed[self.thawed["block"].isin(self.blocks)]
        several = rows.groupby("run")["event"].transform("nunique") > 1
        rows = rows[several.to_numpy()]
        return rows.assign(position=rows.groupby("run")["event"].rank(method="average"))


def slug(text: str) -> str:
    """Text as a name for ids and files: letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "runs"
