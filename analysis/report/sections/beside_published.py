"""The published results beside ours, where task and method match."""

import pandas as pd

from ... import published as paper
from ...selection import shown
from ..parts import Column, Item, Missing, Section, Table, rows_of
from ..study import Study

TITLE = "Beside the published results"


def published(study: Study) -> Section:
    named = [
        name for key in ("recipe", "dataset", "task") if key in study.factors for name in study.factors[key]
    ]
    named = [str(name) for name in pd.unique(pd.Series(named, dtype=object).dropna())]
    dataset = paper.dataset_of(*named)
    if dataset is None:
        tasks = pd.unique(study.factors["task"].dropna()).tolist() if "task" in study.factors else []
        given = ", ".join(map(str, tasks)) or "a task that they do not state"
        return _nothing(f"the paper has results on {', '.join(paper.DATASETS)}; these runs are of {given}")
    if study.scores.empty:
        return _nothing("these runs have no test scores")
    targets = sorted(set(study.scores["language"]) - {study.source})
    if not set(targets) & set(paper.languages_of(dataset)):
        return _nothing(
            f"the paper tests {dataset} in none of the languages of these runs: {', '.join(targets)}"
        )
    items: list[Item] = []
    for metric in sorted(study.scores["metric"].unique()):
        rows = paper.published_beside(dataset, metric, targets)
        if len(rows):
            items.append(_table(study, dataset, metric, rows))
        else:
            items.append(Missing("Nothing to put beside:", f"the paper has no {metric} on {dataset}"))
    text = (
        "Published numbers are those printed in “FUN with Fisher” (Liu et al., NAACL 2024). They were got with the "
        "paper's models, data and budgets: they stand beside ours for orientation, and no test compares them."
    )
    return Section("published", TITLE, text, items)


def _nothing(why: str) -> Section:
    return Section("published", TITLE, "", [Missing("Nothing to put beside:", why)])


def _table(study: Study, dataset: str, metric: str, rows: pd.DataFrame) -> Table:
    ours = study.scored.groupby("schedule")
    models = sorted({shown(v) for v in study.factors.get("model", []) if v == v})
    adapters = sorted({str(v) for v in study.factors.get("adapter", []) if v == v})
    lines = []
    source_runs = {}
    for schedule in study.schedules:
        method = paper.method_of(schedule)
        same = rows[rows["method"] == method]
        if same.empty:
            continue
        members = ours.get_group(schedule)
        shared = str(same.iloc[0]["shared_languages"])
        own = study.scores[
            (study.scores["schedule"] == schedule) & study.scores["language"].isin(shared.split(","))
        ]
        source_runs[f"ours, {schedule}"] = tuple(members["run"])
        lines.append(
            {
                "method": f"ours, {schedule}",
                "model": ", ".join(models),
                "adapter": ", ".join(adapters),
                "english": members["source"].mean() if study.source == "en" else None,
                "english_sd": members["source"].std(ddof=1),
                "average": members["average"].mean(),
                "sd": members["average"].std(ddof=1),
                "shared": own["value"].mean() if shared else None,
                "shared_sd": own.groupby("run")["value"].mean().std(ddof=1) if shared else None,
                "shared_languages": shared,
                "runs": int(members["average"].notna().sum()),
            }
        )
        for row in rows_of(same):
            lines.append(
                {**row, "method": f"published, {method}", "sd": row["std"], "from": f"Table {row['table']}"}
            )
    columns = [
        Column("method", "method"),
        Column("model", "model"),
        Column("adapter", "adapter"),
        Column("english", "English", 2, bounded=True, error="english_sd"),
        Column("average", "average without source", 2, plus_minus="sd"),
        Column("shared", "over shared languages", 2, bounded=True, error="shared_sd"),
        Column("shared_languages", "shared languages"),
        Column("runs", "runs"),
        Column("from", "printed in"),
    ]
    doubts = paper.caveats(rows[rows["method"].isin([paper.method_of(s) for s in study.schedules])])
    note = f"{dataset}, {metric}, points. " + (
        f"To be treated with care: {'; '.join(doubts)}." if doubts else ""
    )
    known = {paper.model_of(m) for m in models}
    if not known & set(rows["model"]):
        note += f" Our model ({', '.join(models) or 'not stated'}) is none of the paper's: only task and method match."
    return Table(f"published-{metric}", f"{dataset}: ours and published", columns, lines, source_runs, note)
