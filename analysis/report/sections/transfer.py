"""How well the adapters transferred: by schedule, by language, and against the baseline."""

import math
from dataclasses import replace
from functools import partial
from itertools import chain

import pandas as pd

from fishlens.names import counted

from ... import figures
from ...own import RUN_OUTCOMES
from ...paired import table_one
from ...power import seeds_needed
from ..cells import methods_words, not_enough_words, reasons, reconciled
from ..parts import Column, Item, Missing, Picture, Section, Table, rows_of
from ..study import NOT_STATED, Study


def transfer(study: Study) -> Section:
    title = "Zero-shot transfer"
    if study.scores.empty:
        return Section("transfer", title, "", [Missing("No scores:", "the journals hold no test scores")])
    metric = ", ".join(sorted(study.scores["metric"].unique()))
    text = f"Scores are final test scores in points ({metric})."
    if study.source is None:
        text += " The runs do not name one source language, so there is no average without it."
    text += _same_runs(study)
    items: list[Item] = [*_table_one(study), *_collapsed(study), *_against_baseline(study)]
    items += [] if study.brief else [_grid(study)]
    items += [_by_language(study), _by_run(study)]
    return Section("transfer", title, text, items)


def _same_runs(study: Study) -> str:
    """Which schedules made the same run, in words."""
    words = [
        f"{' and '.join(own['schedules'].iloc[0])} made the same run with {counted(len(own), 'seeds')} "
        f"({', '.join(str(seed) for seed in own['seed'])})"
        for _, own in study.twins.groupby("schedules")
    ]
    if not words:
        return ""
    alike = "the same score in every language and the same tr(F) at every step, as where one takes the other's order"
    return f" {'; '.join(words)}: {alike}. Where runs are counted, both count."


def _table_one(study: Study) -> list[Table | Missing]:
    if study.schedules == [NOT_STATED]:
        return [Missing("No comparison of schedules:", "no run says which schedule it followed")]
    found = table_one(study.runs, baseline=study.baseline, metric=study.metric).set_index("schedule")
    rows = [{"schedule": s, **found.loc[s]} for s in study.schedules if s in found.index]
    fixed = rows[0]["lowest_language"]
    columns = [
        Column("schedule", "schedule"),
        Column("runs", "runs"),
        _score("source", f"source ({study.source})" if study.source else "source"),
        _score("lowest_fixed", f"lowest ({fixed})" if fixed else "lowest"),
        _score("lowest_own", "each run's own lowest"),
        _score("average", "average without source"),
    ]
    rows, unequal = _with_shared_seeds(study, rows)
    if unequal:
        columns += [
            Column("pairs", f"seeds shared with {study.baseline}"),
            Column("own", f"{study.outcome.noun} on these seeds", 2, bounded=True, error="own_sd"),
            Column("baseline", f"{study.baseline} on them", 2, bounded=True, error="baseline_sd"),
        ]
    note = (
        "Mean ± standard deviation over runs, in points. The lowest language is one for all rows, as in the paper's "
        f"Table 1: the lowest of {study.baseline} on average. Being chosen by {study.baseline}'s scores, it flatters "
        "the other schedules a little; each run's own lowest does not."
    )
    if unequal:
        note += " Schedules were run with different seeds: compare them on those they share, not by all their means."
    return [Table("table-1", "Transfer by schedule", columns, rows, study.by_schedule, note)]


def _collapsed(study: Study) -> list[Table]:
    """Where any run did: otherwise the answer says that none did."""
    found = study.collapse
    if not (found["collapsed"].sum() or found["diverged"].sum()):
        return []
    columns = [
        Column("schedule", "schedule"),
        Column("runs", "runs"),
        Column("diverged", "diverged"),
        Column("collapsed", "collapsed in the targets"),
        Column(
            "percent", "% of those not diverged [95% interval]", 0, interval=("low", "high"), bounded=True
        ),
    ]
    percent = (100 * found[["share", "low", "high"]]).rename(columns={"share": "percent"})
    rows = rows_of(found[["runs", "diverged", "collapsed"]].join(percent).reset_index())
    note = (
        "Diverged: the source's score is no more than two standard errors above guessing, or the loss stopped being a "
        "number. Collapsed: the source is above that, and the average over the targets is not. Wilson's interval. Such "
        "runs are in every other number of this report, unless it says that they are not."
    )
    return [
        Table("collapsed", "Runs that lost every target language", columns, rows, study.by_schedule, note)
    ]


def _score(key: str, label: str) -> Column:
    return Column(key, label, 2, f"{key}_sd", count=f"{key}_n", of="runs", ranked=True)


def _with_shared_seeds(study: Study, rows: list[dict]) -> tuple[list[dict], bool]:
    """The rows with their means on the seeds shared with the baseline, and whether any was run with other seeds too."""
    shared = {row["schedule"]: row for row in study.comparison.shared}
    counts = {row["schedule"]: row["runs"] for row in rows}
    unequal = any(
        row["pairs"] < counts.get(name, 0) or row["pairs"] < counts.get(study.baseline, 0)
        for name, row in shared.items()
    )
    keys = ("pairs", "own", "own_sd", "baseline", "baseline_sd")
    return [{**row, **{k: shared.get(row["schedule"], {}).get(k) for k in keys}} for row in rows], unequal


def _against_baseline(study: Study) -> list[Item]:
    title = f"No comparison with {study.baseline}:"
    found = study.comparison
    if found.missing is not None:
        return [Missing(title, found.missing)]
    differences, scored = found.table, study.scored[study.scored["schedule"] != NOT_STATED]
    known = differences[differences["estimate"].notna()]
    if known.empty:
        return [Missing("Not enough runs for differences between schedules:", reasons(differences["note"]))]
    items: list[Item] = [_bars(study, known), _differences(study, differences)]
    if found.learnt is not None:
        title = f"Differences to {study.baseline} without runs that did not learn the source"
        table = _differences(study, found.learnt)
        items.append(replace(table, name="differences-learnt", title=title))
    return [*items, *_seeds(study, scored, known)]


def _bars(study: Study, known: pd.DataFrame) -> Picture:
    tidy = known.rename(columns={"estimate": "difference"})
    tidy = tidy.assign(outcome=tidy["outcome"].map(_labels(study)).str.replace(" ", "\n", n=1))
    draw = partial(figures.relative_performance, tidy, baseline=study.baseline, width=figures.PAGE * 0.75)
    caption = f"Difference to {study.baseline} in points, paired by seed: means and 95% intervals."
    return Picture("relative", "Relative performance", caption, draw, study.by_schedule)


def _labels(study: Study) -> dict[str, str]:
    """What each outcome is called."""
    return {one.name: one.label for one in (*RUN_OUTCOMES.values(), study.outcome)}


def _differences(study: Study, differences: pd.DataFrame) -> Table:
    rows, labels = [], _labels(study)
    for row in rows_of(differences):
        enough = row["estimate"] == row["estimate"]
        # the mean of three pairs or fewer is not shown without its interval: the row says what is missing instead
        note = (
            "; ".join(filter(None, (row["note"], reconciled(row))))
            if enough
            else not_enough_words(row["note"])
        )
        rows.append({**row, "outcome": labels[row["outcome"]], "pairs": row["n"], "note": note})
    columns = [
        Column("schedule", "schedule"),
        Column("outcome", "outcome"),
        Column("pairs", "pairs"),
        Column("estimate", "difference [95% interval]", 2, interval=("low", "high"), bounded=True),
        Column("p", "p", p_value=True),
        Column("p_holm", "p (Holm)", p_value=True),
    ]
    if study.margin is not None:
        columns += [
            Column("equivalence_p", f"p of equivalence (±{study.margin:g})", p_value=True),
            Column("equivalence_p_holm", "p of equivalence (Holm)", p_value=True),
            Column("equivalent", "equivalent"),
        ]
    columns.append(Column("note", "remark"))
    methods = methods_words(differences["method"])
    note = f"Paired by seed with {study.baseline}. {methods}. Holm's correction within an outcome."
    compared = int((differences.groupby("outcome")["p"].count()).max())
    most = int(differences["n"].max())
    if compared > 1 and compared * 2 / 2**most > 0.05:
        note += f" With {compared} comparisons of {most} pairs no corrected p is below {compared * 2 / 2**most:.3g}."
    pairs = {
        schedule: tuple(chain(study.by_schedule[schedule], study.by_schedule[study.baseline]))
        for schedule in study.schedules
        if schedule != study.baseline
    }
    return Table("differences", f"Differences to {study.baseline}", columns, rows, pairs, note)


def _seeds(study: Study, scored: pd.DataFrame, known: pd.DataFrame) -> list[Table]:
    """How many seeds it would take to see what was seen here in the outcome."""
    wide = scored.pivot(index="seed", columns="schedule", values=study.outcome.name)
    rows, methods = [], set()
    seen = known[known["outcome"] == study.outcome.name].set_index("schedule")
    seen = seen.loc[[name for name in study.schedules if name in seen.index]].reset_index()
    for row in rows_of(seen):
        spread = float((wide[row["schedule"]] - wide[study.baseline]).std(ddof=1))
        if not spread > 0:
            continue
        size = seeds_needed(row["estimate"], spread)
        methods.add(size.method.split(",")[0])
        needed = size.needed if size.needed is not None else f"more than {size.largest}"
        error = spread / math.sqrt(row["n"])
        rows.append({**row, "sd_difference": spread, "error": error, "needed": needed})
    if not rows:
        return []
    columns = [
        Column("schedule", "schedule"),
        Column("n", "pairs so far"),
        Column("estimate", "difference seen", 2, bounded=True, error="error"),
        Column("sd_difference", "sd of the differences", 2, bounded=True, error="error"),
        Column("needed", "seeds needed"),
    ]
    note = (
        f"Seeds with which a difference of that size in the {study.outcome.noun} would give p < 0.05, before any "
        f"correction, in 80% of studies; {'; '.join(sorted(methods))}. A difference that was singled out because it "
        "was large is probably smaller: read the numbers as lower bounds."
    )
    pairs = {row["schedule"]: study.by_schedule[row["schedule"]] for row in rows}
    pairs[study.baseline] = study.by_schedule[study.baseline]
    return [Table("seeds-needed", "How many seeds would show it", columns, rows, pairs, note)]


def _grid(study: Study) -> Picture:
    baseline = study.baseline if study.baseline in study.schedules and len(study.schedules) > 1 else None
    paired = baseline is not None and study.comparison.missing is None
    scores = study.scores
    if paired:
        seeds = study.factors["seed"]
        scores = scores.assign(seed=scores["run"].map(seeds)).dropna(subset=["seed"])
    draw = partial(figures.language_grid, scores, baseline=baseline, width=figures.PAGE * 0.6)
    caption = "Mean score over runs, in points. Shade: " + (
        "the score itself."
        if not baseline
        else f"difference to {baseline}{', on the seeds that both have' if paired else ''}."
    )
    return Picture("languages", "Languages and schedules", caption, draw, study.by_schedule)


def _languages(study: Study) -> list[str]:
    """The source first, then by mean score, highest first."""
    means = study.scores.groupby("language")["value"].mean().sort_values(ascending=False)
    return sorted(means.index, key=lambda language: language != study.source)


def _by_language(study: Study) -> Table:
    groups = study.scores.groupby(["language", "schedule"])["value"]
    wide = groups.mean().unstack("schedule").add_prefix("mean ")
    for what, found in (("sd", groups.std(ddof=1)), ("runs", groups.count())):
        wide = wide.join(found.unstack("schedule").add_prefix(f"{what} "))
    scored = study.scores.groupby("schedule")["run"].nunique()
    wide = wide.assign(**{f"all {name}": count for name, count in scored.items()})
    rows = rows_of(wide.reindex(_languages(study)).reset_index())
    columns = [Column("language", "language")]
    columns += [
        Column(
            f"mean {name}",
            name,
            2,
            plus_minus=f"sd {name}",
            count=f"runs {name}",
            of=f"all {name}",
            ranked=True,
        )
        for name in study.schedules
    ]
    note = "Mean ± standard deviation over runs, in points; in brackets over how many, where not all have a score."
    return Table("language-scores", "Scores by language", columns, rows, study.by_schedule, note, best="row")


def _by_run(study: Study) -> Table:
    wide = study.scores.pivot(index="run", columns="language", values="value").add_prefix("score ")
    wide = wide.reindex([run for run in study.factors.index if run in wide.index])
    wide.insert(0, "schedule", study.factors["schedule"].reindex(wide.index))
    rows = rows_of(wide.reset_index())
    columns = [Column("run", "run"), Column("schedule", "schedule")]
    columns += [Column(f"score {language}", language, 2) for language in _languages(study)]
    source_runs = {str(row["run"]): (str(row["run"]),) for row in rows}
    return Table("run-scores", "Scores by run", columns, rows, source_runs, folded=True)
