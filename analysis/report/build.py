"""From journals to a report: choose comparable runs, then let every section say what it can."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pandas as pd

from fishlens import __version__
from fishlens.errors import InputError
from fishlens.journal import Runs
from fishlens.names import one_line

from ..covariates import checked_covariates
from ..own import Outcome, outcome_of
from ..selection import FACTORS, Comparable, select_runs, shown
from .cells import text_of
from .definitions import DEFINITIONS
from .overview import overview, pooled, study_answer, whole_answer
from .parts import Group, Report, Section
from .sections import SECTIONS
from .study import Study, slug

PRESET = "estimator_preset"  # says several things at once
BASELINE = "standard"
_LARGEST = 1e150  # its square is still a float64
MOST_DRAWN = 8  # groups; of more, each shows its main figures only


def _within_reach(runs: Runs) -> Runs:
    """The runs, with infinity for traces that can be neither summed nor drawn in float64."""
    numbers = runs.fisher[["trace", "stderr"]].astype(float)
    if not (numbers.abs() > _LARGEST).any(axis=None):
        return runs
    cut = numbers.mask(numbers.abs() > _LARGEST, np.inf)
    return replace(runs, fisher=runs.fisher.assign(trace=cut["trace"], stderr=cut["stderr"]))


def build_report(
    runs: Runs,
    *,
    title: str = "",
    group: bool = False,
    unfinished: bool = False,
    baseline: str = BASELINE,
    window: float = 0,
    margin: float | None = None,
    across: Sequence[str] = (),
    metric: str | None = None,
    only: Sequence[str] = (),
    guess: float | None = None,
    covariates: pd.DataFrame | None = None,
    outcome: str | Callable[..., float] | Outcome = "average",
) -> Report:
    """All that the runs can say.

    Args:
        runs: as loaded by `fishlens.load_runs`.
        title: of the page; by default what the runs have in common.
        group: put runs of different tasks, models or estimators into groups of their own instead of refusing them.
        unfinished: include runs that did not end; otherwise they are named and left out of every number.
        baseline: the schedule that others are compared with.
        window: smooth the curves over this many steps before features are read off; 0 for not at all.
        margin: points within which two schedules count as equivalent; None tests no equivalence.
        across: fields (`every`, `train.learning_rate`) in which runs may differ and still be put together.
        metric: of the scores; by default the task's headline.
        guess: points that guessing scores, to tell runs that collapsed; by default known for nli, choice and topic.
        covariates: numbers of languages to judge the features beside (`language`, one column for each), such as those
            of `language_distances` and `tokens_per_word`.
        outcome: what features are asked about and schedules are compared by: average, lowest, source, or a function of
            one's own of a run's points by language and its source language (`fishlens.analysis.own`).
        only: names of sections; all of them by default. The answer is always there.

    Raises `InputError` for no finished run, for mixed runs where `group` is not set, and for a metric or a section that
    there is not.
    """
    unknown = [name for name in only if name not in SECTIONS]
    if unknown:
        raise InputError(f"a report has no section {unknown[0]!r}; expected some of {', '.join(SECTIONS)}")
    asked = outcome_of(outcome)
    if covariates is not None:
        covariates = checked_covariates(covariates)
    selection = select_runs(
        _within_reach(runs),
        unfinished="include" if unfinished else "leave out",
        mixed="group" if group else "refuse",
        across=across,
    )
    _check_baseline(baseline, selection.groups)
    labels = _labels(selection.groups)
    brief = len(selection.groups) > MOST_DRAWN
    studies = [
        Study(
            comparable,
            window=window,
            baseline=baseline,
            margin=margin,
            metric=metric,
            brief=brief,
            guess=guess,
            covariates=covariates,
            outcome=asked,
        )
        for comparable in selection.groups
    ]
    wanted = [section for name, section in SECTIONS.items() if not only or name in only]
    groups = [
        Group(
            f"g{place}-{slug(label)}" if len(studies) > 1 else "study",
            label,
            [_with_what_is_left(section(study), brief) for section in wanted],
            study_answer(study),
        )
        for place, (study, label) in enumerate(zip(studies, labels, strict=True), 1)
    ]
    together = pooled(studies, labels) if len(studies) > 1 else None
    made = datetime.now(timezone.utc).strftime(f"fishlens {__version__}, %Y-%m-%d %H:%M UTC")
    subject = groups[0].title if len(groups) == 1 else f"{len(groups)} groups of runs"
    return Report(
        title or f"Fisher information and transfer: {subject}",
        made,
        groups,
        _left_out(runs, selection.left_out),
        _warnings(runs),
        whole_answer(studies, together),
        overview(studies, groups, together) if len(studies) > 1 else None,
        DEFINITIONS,
    )


def _check_baseline(baseline: str, groups: Sequence[Comparable]) -> None:
    """Raises `InputError` for a schedule that no run has; the default may be missing, and is then said to be."""
    there = sorted({str(name) for group in groups for name in group.runs.runs.get("schedule", ())})
    if baseline not in there and baseline != BASELINE:
        raise InputError(
            f"no run has the schedule {baseline!r} to compare with: there are {', '.join(there)}"
        )


def _left_out(runs: Runs, unfinished: Sequence[tuple[str, str]]) -> dict[str, str]:
    """What was not read, and what did not end."""
    unread = {one_line(one.path): one_line(one.reason) for one in runs.left_out}
    return unread | {run: f"{status}, not finished" for run, status in unfinished}


def _with_what_is_left(section: Section, brief: bool) -> Section:
    if not brief or section.name not in ("fisher", "unfreezing", "transfer", "prediction"):
        return section
    said = (
        "Of so many groups only the main figures are drawn: report this one alone (--where) for the others."
    )
    return replace(section, text=f"{section.text}\n\n{said}".strip())


def _labels(groups: Sequence[Comparable]) -> list[str]:
    """A name for each group; those of one name are told apart by what else differs: a learning rate, the estimator."""
    names = [_label(group) for group in groups]
    namesakes = [
        [other for other, its_name in zip(groups, names, strict=True) if its_name == name] for name in names
    ]
    return [
        ", ".join([name, *_told_apart(group, others)])
        for group, name, others in zip(groups, names, namesakes, strict=True)
    ]


def _told_apart(group: Comparable, namesakes: Sequence[Comparable]) -> list[str]:
    """The one field that tells all namesakes apart, the preset before others; else all that differ."""
    values = {key: [repr(other.shared.get(key)) for other in namesakes] for key in group.shared}
    differing = sorted((key for key in values if len(set(values[key])) > 1), key=lambda k: k != PRESET)
    enough = next(([key] for key in differing if len(set(values[key])) == len(namesakes)), differing)
    return [_how(key.removeprefix("estimator_"), group.shared[key]) for key in enough]


def _how(field: str, value: object) -> str:
    name = field.rsplit(".", 1)[-1].replace("_", " ")
    text = shown(value) if isinstance(value, str) else text_of(value, None)
    return f"without {name}" if value is None else f"{name} {text}"


def _label(comparable: Comparable) -> str:
    """What the runs of a group have in common, in a few words: task, model, adapter, source, training examples."""
    known = {key: comparable.shared[key] for key in FACTORS if comparable.shared.get(key) is not None}
    shared = [
        f"{text_of(value, None)} examples" if key == "examples" else shown(value)
        for key, value in known.items()
    ]
    return ", ".join(shared) or "all runs"


def _warnings(runs: Runs) -> list[str]:
    damaged = runs.runs[runs.runs["damaged"] > 0]
    found = []
    if len(damaged):
        named = ", ".join(
            f"{run} ({count})" for run, count in zip(damaged["run"], damaged["damaged"], strict=True)
        )
        found.append(f"Journals with lines that could not be read: {named}.")
    began = runs.runs["began"]
    for _, copies in runs.runs[began.notna() & began.duplicated(keep=False)].groupby("began"):
        named = ", ".join(map(str, copies["run"]))
        found.append(f"Copies of one run, which are counted as several: {named} began at the same moment.")
    return found
