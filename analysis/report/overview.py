"""All groups beside one another: one table over tasks and models, and analyses that put groups together as strata."""

import math
from collections.abc import Sequence

import pandas as pd

from fishlens.names import counted

from ..figures import schedule_order
from ..paired import compare_over
from .answer import ALPHA, about_collapse, about_features, about_schedules
from .cells import p_text, reconciled, with_interval
from .comparison import NOT_STATED
from .evidence import Evidence
from .parts import Column, Group, Item, Row, Section, SourceRuns, Statement, Table
from .sections.prediction import correlations, forest
from .study import Study

AVERAGE = "average over groups"


def pooled(studies: Sequence[Study], titles: Sequence[str]) -> Evidence | None:
    """The runs of all groups in one table, a group being a stratum; None where fewer than two groups have scores."""
    tables = [
        study.run_table.assign(group=title)
        for study, title in zip(studies, titles, strict=True)
        if study.evidence.scored
    ]
    return Evidence(pd.concat(tables, ignore_index=True), studies[0].outcome) if len(tables) > 1 else None


def overview(studies: Sequence[Study], groups: Sequence[Group], evidence: Evidence | None) -> Section:
    baseline = studies[0].baseline
    source_runs: SourceRuns = {
        group.title: study.all_runs["all runs"] for study, group in zip(studies, groups, strict=True)
    }
    items: list[Item] = [_scores(studies, groups, source_runs)]
    differences = over_groups(studies)
    if differences:
        items.append(
            _differences(differences, baseline, studies[0].outcome.words.removeprefix("the "), source_runs)
        )
    if evidence is not None:
        items += [*forest(evidence, source_runs), *correlations(evidence, source_runs)]
    text = (
        "Runs of different tasks, models or settings are never averaged: a mean over groups is one of their means, "
        "each counting once, and a coefficient compares only runs of one group with each other."
    )
    return Section("overview", "All groups", text, items)


def _scores(studies: Sequence[Study], groups: Sequence[Group], source_runs: SourceRuns) -> Table:
    """The paper's Tables 1 and 2 in one: a row a group, a column a schedule, and the average over data sets."""
    schedules = schedule_order(name for study in studies for name in study.schedules if name != NOT_STATED)
    rows: list[Row] = []
    for study, group in zip(studies, groups, strict=True):
        averages = study.scored.groupby("schedule")[study.outcome.name]
        row: dict[str, object] = {"group": group.title}
        for name, mean, sd, count in zip(
            averages.mean().index, averages.mean(), averages.std(ddof=1), averages.count(), strict=True
        ):
            row |= {f"mean {name}": mean, f"sd {name}": sd, f"runs {name}": count}
        rows.append(row)
    whole: dict[str, object] = {"group": AVERAGE}
    for name in schedules:
        means = [row.get(f"mean {name}", math.nan) for row in rows]
        if all(value == value for value in means):
            whole[f"mean {name}"] = sum(means) / len(means)  # type: ignore[arg-type]
    columns = [Column("group", "group")]
    columns += [
        Column(f"mean {name}", name, 2, plus_minus=f"sd {name}", count=f"runs {name}", of="", ranked=True)
        for name in schedules
    ]
    note = f"{_of(studies[0])}, in points: mean ± standard deviation over runs (in brackets how many). "
    if len(whole) > 1:
        rows.append(whole)
        note += f"{AVERAGE.capitalize()}: of schedules that every group has, each group counting once."
    else:
        note += "No average over groups: no schedule was run in all of them."
    return Table(
        "overview",
        "Transfer by schedule, over tasks and models",
        columns,
        rows,
        source_runs,
        note,
        best="row",
    )


def over_groups(studies: Sequence[Study]) -> list[Row]:
    """Each schedule's difference to the baseline, averaged over groups: one number a seed that all groups have."""
    compared = [study for study in studies if study.comparison.missing is None]
    if len(compared) < 2:
        return []
    tables = [study.scored.drop_duplicates(["schedule", "seed"], keep=False) for study in compared]
    found = compare_over(tables, studies[0].outcome.name, baseline=studies[0].baseline).set_index("schedule")
    rows: list[Row] = [
        {"schedule": name, **found.loc[name]} for name in schedule_order(found.index) if name in found.index
    ]
    return [{**row, "note": "; ".join(filter(None, (row["note"], reconciled(row))))} for row in rows]


def _of(study: Study) -> str:
    words = study.outcome.words.removeprefix("the ")
    return words[:1].upper() + words[1:]


def _differences(rows: list[Row], baseline: str, of: str, source_runs: SourceRuns) -> Table:
    columns = [
        Column("schedule", "schedule"),
        Column("groups", "groups"),
        Column("n", "seeds that all these groups have"),
        Column("estimate", "difference [95% interval]", 2, interval=("low", "high"), bounded=True),
        Column("p", "p", p_value=True),
        Column("p_holm", "p (Holm)", p_value=True),
        Column("note", "remark"),
    ]
    note = (
        f"To {baseline}, {of}, in points. For each seed the differences of the groups are "
        "averaged first, so a seed is one observation; Student's t interval, sign-flip p."
    )
    return Table(
        "overview-differences", f"Differences to {baseline}, over groups", columns, rows, source_runs, note
    )


def whole_answer(studies: Sequence[Study], evidence: Evidence | None) -> list[Statement]:
    if len(studies) == 1:
        return study_answer(studies[0])
    counts = pd.concat([study.collapse[["runs", "diverged", "collapsed"]] for study in studies])
    runs = sum(len(study.factors) for study in studies)
    lost = about_collapse(counts.groupby(level=0, sort=False).sum(), runs)
    found = [about_features(evidence, "enough groups"), _schedules_over(studies)]
    return [*found, lost] if lost is not None else found


def study_answer(study: Study) -> list[Statement]:
    """What the runs of one group say, before any table."""
    found = [about_features(study.evidence), about_schedules(study.comparison)]
    lost = about_collapse(study.collapse, len(study.factors))
    return [*found, lost] if lost is not None else found


def _schedules_over(studies: Sequence[Study]) -> Statement:
    baseline = studies[0].baseline
    rows = [row for row in over_groups(studies) if row["estimate"] == row["estimate"]]
    if not rows:
        return Statement(
            f"Whether a schedule differs from {baseline} over all groups cannot be said:",
            "fewer than three seeds are shared by groups that have both; each group's own answer is below.",
        )
    first = max(rows, key=lambda row: abs(row["estimate"]))
    sure = [row for row in rows if row["p_holm"] < ALPHA]
    words = "; ".join(_row_words(row) for row in (sure or [first]))
    names = ", ".join(row["schedule"] for row in sure)
    claim = (
        f"{names} differ{'s' if len(sure) == 1 else ''} from {baseline} on average over groups."
        if sure
        else f"No schedule was shown to differ from {baseline} on average over groups."
        if any(row["p"] == row["p"] for row in rows)
        else f"Whether a schedule differs from {baseline} over all groups cannot be said."
    )
    return Statement(claim, f"{'' if sure else 'Largest difference: '}{words}.")


def _row_words(row: Row) -> str:
    ends = with_interval(row["estimate"], row["low"], row["high"], 2, sign=True).replace(" [", " points [", 1)
    p = f", p = {p_text(row['p'])}, {p_text(row['p_holm'])} corrected" if row["p"] == row["p"] else ""
    note = f"; {row['note']}" if row["note"] else ""
    over = f"{counted(row['groups'], 'groups')} and {counted(row['n'], 'seeds')}"
    return f"{row['schedule']}, {ends} over {over}{p}{note}"
