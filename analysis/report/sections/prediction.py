"""Does the Fisher curve go with transfer? Coefficients over runs, and whether baselines explain them."""

import re
from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd

from fishlens.errors import InputError
from fishlens.names import counted

from ... import figures
from ...correlation.leadlag import lead_lag
from ...correlation.prediction import NO_INTERVAL
from ...models import MixedModel, mixed_model
from ...outcomes import BASELINES
from ..cells import methods_words, not_enough_words, reasons, reconciled
from ..evidence import FEATURED, OVER_SCHEDULES, WITHIN_SCHEDULES, Evidence, Level
from ..parts import Column, Item, Missing, Picture, Section, SourceRuns, Table, rows_of
from ..study import Study
from ..words import label, unit


def prediction(study: Study) -> Section:
    title = "Does the Fisher curve go with transfer?"
    evidence = study.evidence
    if not evidence.scored:
        why = "no run has a score in every target language, so there is no average to explain"
        return Section("prediction", title, "", [Missing("No coefficient:", why)])
    text = (
        f"Outcome: {evidence.outcome.words}. Languages of one run are not counted as "
        "independent. Given the baselines, a feature that only says how well the source language was learnt, or how "
        "far the loss fell, is explained away."
    )
    if len(evidence.levels) > 1:
        text += (
            " Nor are the seeds of one schedule: a coefficient over schedules counts schedules, one within schedules "
            "asks whether of runs with the same schedule those with more of a feature "
            f"{'transfer better' if evidence.outcome.name == 'average' else f'have a higher {evidence.outcome.noun}'}."
        )
    items: list[Item] = [*forest(evidence, study.all_runs), *correlations(evidence, study.all_runs)]
    if not study.brief:
        items += _scatters(study, evidence)
    items += [*held_out(evidence, study.all_runs), *_mixed(study, evidence)]
    items += [*_covariates(study, evidence), *_lead_lag(study)]
    return Section("prediction", title, text, items)


def forest(evidence: Evidence, source_runs: SourceRuns) -> list[Picture]:
    """Every coefficient with its interval, on one axis."""
    parts = []
    for words, found in ((level.words, evidence.plain[level]) for level in evidence.levels):
        parts.append(found.assign(series=words))
    for level, found in evidence.given.items():
        parts.append(found.assign(series=f"{level.words}, given the baselines"))
    rows = pd.concat(parts, ignore_index=True)
    rows = rows[rows["estimate"].notna()]
    if rows.empty:
        return []
    rows = rows.assign(label=rows["feature"].map(label))
    rows = rows.sort_values("feature", key=lambda names: names.map(evidence.features.index), kind="stable")
    better = "better transfer" if evidence.outcome.name == "average" else f"a higher {evidence.outcome.noun}"
    caption = (
        f"Spearman's ρ of each feature and {evidence.outcome.words.split(',')[0]}, with 95% intervals where there are "
        f"any. Right of 0: more of the feature, {better}. Intervals are not corrected for the number of "
        "features."
    )
    draw = partial(figures.forest, rows[["label", "series", "estimate", "low", "high"]])
    return [Picture("forest", "All features and transfer", caption, draw, source_runs)]


def correlations(evidence: Evidence, source_runs: SourceRuns) -> list[Item]:
    return [item for level in evidence.levels for item in _correlations(evidence, level, source_runs)]


def _correlations(evidence: Evidence, level: Level, source_runs: SourceRuns) -> list[Item]:
    plain = evidence.plain[level]
    if plain["estimate"].isna().all():
        why = evidence.remark(reasons(plain["note"]), level)
        return [Missing(f"No coefficient {level.words}:", why)]
    columns = [
        Column("label", "feature"),
        Column("n", "runs"),
        Column("estimate", "Spearman's ρ [95% interval]", 2, interval=("low", "high"), bounded=True),
        Column("p", "p", p_value=True),
        Column("p_max", "p (largest of all)", p_value=True),
        Column("p_holm", "p (Holm)", p_value=True),
        Column("p_bh", "p (Benjamini–Hochberg)", p_value=True),
    ]
    if level.cluster:
        columns.insert(2, Column("clusters", f"{level.cluster}s"))
    rows = plain.assign(label=plain["feature"].map(label), remark=_remarks(plain, evidence, level))
    counted_ones = plain["estimate"].notna() | plain["note"].str.contains("needed")
    rows["clusters"] = plain["clusters"].where(
        counted_ones
    )  # where nothing differs there is nothing to count
    note = f"{methods_words(plain['method'])}. Corrected over the features."
    baselines, given = evidence.baselines, evidence.given.get(level)
    if given is not None and given["estimate"].notna().any():
        rows = rows.join(given[["estimate", "low", "high", "p", "p_holm"]].add_prefix("given_"))
        rows["remark"] = [
            one
            if one == other or not other
            else "; ".join(filter(None, (one, f"given the baselines: {other}")))
            for one, other in zip(rows["remark"], _remarks(given, evidence, level), strict=True)
        ]
        columns += [
            Column(
                "given_estimate",
                "ρ given the baselines",
                2,
                interval=("given_low", "given_high"),
                bounded=True,
            ),
            Column("given_p", "p", p_value=True),
            Column("given_p_holm", "p (Holm)", p_value=True),
        ]
        note += f" Baselines: {_words(baselines)}. {methods_words(given['method'])}."
    elif given is not None:
        why = not_enough_words(evidence.remark(reasons(given["note"]), level))
        note += f" Given the baselines ({_words(baselines)}): {why}."
    columns.append(Column("remark", "remark"))
    title = f"Features and {evidence.outcome.subject}, {level.words}"
    table = Table(level.name, title, columns, rows_of(rows), source_runs, note)
    return [table, *_of_those_that_learnt(evidence, level, table)]


def _of_those_that_learnt(evidence: Evidence, level: Level, whole: Table) -> list[Item]:
    """The same coefficients where some runs did not learn the source, without these."""
    found = evidence.of_learnt.get(level)
    if found is None or found["estimate"].isna().all():
        return []
    rows = found.assign(label=found["feature"].map(label), remark=_remarks(found, evidence, level))
    left_out = counted(evidence.diverged, "runs")
    return [
        Table(
            f"{level.name}-learnt",
            f"{whole.title}, without the {left_out} that did not learn the source",
            [column for column in whole.columns if not column.key.startswith("given_")],
            rows_of(rows),
            {
                f"{name}, those that learnt": _learnt(evidence, runs)
                for name, runs in whole.source_runs.items()
            },
            "A run that learnt nothing has a low score and a curve of its own: a few can be a whole correlation. "
            f"{methods_words(found['method'])}. Corrected over the features.",
        )
    ]


def _learnt(evidence: Evidence, runs: tuple[str, ...]) -> tuple[str, ...]:
    gone = set(evidence.table.loc[evidence.table["diverged"].astype(bool), "run"])
    return tuple(run for run in runs if run not in gone)


def _remarks(found: pd.DataFrame, evidence: Evidence, level: Level) -> list[str]:
    """What is to be said about each row; a row without a number says that, and why."""
    return [
        "; ".join(filter(None, (evidence.remark(row["note"], level), reconciled(row))))
        if row["estimate"] == row["estimate"]
        else not_enough_words(evidence.remark(row["note"], level))
        for row in rows_of(found)
    ]


def _words(names: list[str]) -> str:
    return ", ".join(map(label, names))


def _summary(feature: str, found: Mapping[Level, pd.DataFrame]) -> str:
    """The coefficients that there are, for the picture they belong to."""
    lines = []
    for level, plain in found.items():
        for row in rows_of(plain[(plain["feature"] == feature) & plain["estimate"].notna()]):
            ends = f", 95% [{row['low']:.2f}, {row['high']:.2f}]" if row["low"] == row["low"] else ""
            lines.append(f"{level.words}: ρ = {row['estimate']:.2f}{ends}")
    return "\n".join(lines)


def _scatters(study: Study, evidence: Evidence) -> list[Picture]:
    pictures = []
    table = evidence.table
    within = any(level.name == WITHIN_SCHEDULES.name for level in evidence.levels)
    for feature in FEATURED:
        summary = _summary(feature, evidence.plain)
        if not summary:
            continue
        points = table.rename(columns={feature: "x", evidence.outcome.name: "y"})[["schedule", "x", "y"]]
        positive = bool((points["x"].dropna() > 0).all())
        draw = partial(
            figures.correlation_scatter,
            points,
            feature=f"{label(feature)} ({unit(feature)})",
            outcome=f"{evidence.outcome.label} (points)",
            summary=summary.replace("-", "−"),
            log=positive and bool(points["x"].max() > 20 * points["x"].min()),
            within=within,
            width=figures.PAGE * 0.6,
        )
        caption = "One point a run. " + (
            "Lines: least squares with one slope for all schedules and a level for each, the slope that a coefficient "
            "within schedules is about; crosses: the means of schedules."
            if within
            else "The line is a least-squares fit, to guide the eye."
        )
        title = f"{label(feature).capitalize()} and {evidence.outcome.subject}"
        name = f"scatter-{feature.replace('_', '-')}"
        pictures.append(
            Picture(name, title, f"{caption} Coefficients are Spearman's.", draw, study.by_schedule)
        )
    return pictures


def held_out(evidence: Evidence, source_runs: SourceRuns) -> list[Table | Missing]:
    found = evidence.held_out
    if found.empty or found["estimate"].isna().all():
        why = reasons(found["note"]) if len(found) else "nothing to predict from"
        return [Missing("Not enough runs to predict schedules that were left out:", why)]
    found = found.assign(which=[_words(names.split(", ")) for names in found["predictors"]])
    found["remark"] = [
        row["note"]
        .replace("rows", "runs")
        .replace("row ", "run ")
        .replace(f"; {NO_INTERVAL}", "")
        .replace(NO_INTERVAL, "")
        if row["estimate"] == row["estimate"]
        else not_enough_words(row["note"])
        for row in rows_of(found)
    ]
    columns = [
        Column("model", "predictors"),
        Column("which", "which"),
        Column("n", "runs"),
        Column("clusters", "schedules"),
        Column("estimate", "held-out R²", 2, bounded=True),
        Column("p", "p", p_value=True),
        Column("chance", "R² that chance reaches in 5%", 2, bounded=True),
        Column("rmse", "error (points)", 2),
        Column("gain", "R² above the baselines", 2, bounded=True),
        Column("gain_p", "p", p_value=True),
        Column("remark", "remark"),
    ]
    note = (
        "Least squares fitted without one schedule (and without the runs of the same seed) and used on it. R² is 0 for "
        "the mean of the other schedules and negative for what predicts worse than that. p: whole schedules and whole "
        "seeds change places. No intervals: held-out errors share their fits. All three rows are of the runs that have "
        "every predictor."
    )
    return [
        Table(
            "held-out", "Predicting a schedule that was left out", columns, rows_of(found), source_runs, note
        )
    ]


def _mixed(study: Study, evidence: Evidence) -> list[Table | Missing]:
    """Within schedules where these have several runs: what lies between six schedules is six observations."""
    table, controls = evidence.table, evidence.baselines
    long, random, within = _by_language(study, evidence)
    rows, why, methods = [], [], []
    for feature in FEATURED:
        if table[feature].isna().all():
            why.append(f"no run has {_a(label(feature))}")
            continue
        try:
            model = mixed_model(long, [feature, *controls], random=random)
        except InputError as collinear:
            why.append(_with_labels(str(collinear), [feature, *controls]))
            continue
        if not isinstance(model, MixedModel):
            why.append(_with_labels(model.note, [feature, *controls]))
        elif not model.converged:
            why.append(f"{label(feature)}: the model did not converge ({'; '.join(model.messages)})")
        else:
            methods.append(model.method.replace(f"language × {feature}", "language × feature"))
            slope = model.fixed.set_index("term").loc[feature]
            row = {"feature": label(feature), "rows": model.n, **slope}
            rows.append({**row, "runs": model.levels["run"], "note": _of_slope(model.messages, feature)})
    if not rows:
        return [Missing("Not enough runs for a mixed model:", reasons(why))]
    columns = [
        Column("feature", "feature"),
        Column("rows", "run × language"),
        Column("runs", "runs"),
        Column(
            "estimate",
            "points per standard deviation [95% interval]",
            2,
            interval=("low", "high"),
            bounded=True,
        ),
        Column("p", "p", p_value=True),
        *(
            [Column("freedom", "degrees of freedom", 1)]
            if any(r["freedom"] == r["freedom"] for r in rows)
            else []
        ),
        Column("note", "remark"),
    ]
    less = "Features and baselines less what schedule and seed do to all their runs. " if within else ""
    method = _with_labels(methods_words(methods), controls)
    note = (
        f"Score in each target language, a model for each feature, beside {_words(controls) or 'nothing else'}. {less}"
        f"{method}. p is for each row alone. {reasons(why)}"
    )
    where = ", within schedules" if within else ""
    title = f"Mixed model over languages{where}"
    return [Table("mixed-model", title, columns, rows, study.all_runs, note.strip())]


def _with_labels(text: str, names: Sequence[str]) -> str:
    """A sentence of a model with what its columns are called on the page."""
    for name in names:
        text = re.sub(rf"\b{name}\b", label(name), text)
    return text


def _of_slope(messages: Sequence[str], feature: str) -> str:
    """What a model says of this slope: that others do not vary by language says nothing about it."""
    zero = f"the variance of language × {feature} is estimated as zero"
    left = [one for one in messages if not one.startswith("the variance of ")]
    return "; ".join(
        [*(["its slope was not seen to differ between languages"] if zero in messages else []), *left]
    )


def _by_language(study: Study, evidence: Evidence) -> tuple[pd.DataFrame, tuple[str, ...] | None, bool]:
    """One row per run and target language, what has an intercept (None: `mixed_model`'s default), and whether
    features are taken within schedules."""
    table = evidence.table
    scores = study.scores[study.scores["language"] != study.source]
    within = evidence.levels[0].name == OVER_SCHEDULES.name and len(evidence.levels) > 1
    known = table[["run", *(["seed"] if "seed" in table else []), *FEATURED, *BASELINES]]
    long = scores[["run", "schedule", "language", "value"]].merge(known, on="run")
    return long, None if within else ("language", "run"), within


def _covariates(study: Study, evidence: Evidence) -> list[Table | Missing]:
    """What else transfer is regressed on, alone and beside the features and baselines."""
    if study.covariates is None:
        return []
    long, random, _ = _by_language(study, evidence)
    long = long.astype({"language": str}).merge(study.covariates, on="language", how="left")
    others = [name for name in (*FEATURED, *evidence.baselines) if evidence.table[name].notna().any()]
    rows = []
    for name in map(str, study.covariates.columns.drop("language")):
        alone, beside = _slope(long, name, [], random), _slope(long, name, others, random)
        remark = str(alone.pop("remark", ""))
        if not remark and "remark" in beside:
            remark = f"beside the others: {beside['remark']}"
        languages = int(long.dropna(subset=[name])["language"].nunique())
        without = sorted(set(long.loc[long[name].isna(), "language"]))
        if without:
            remark = "; ".join(filter(None, [f"no number for {', '.join(without)}", remark]))
        both = alone | {f"beside_{key}": value for key, value in beside.items()}
        rows.append({"covariate": name, "languages": languages, **both, "remark": remark})
    title = "What else transfer is regressed on"
    if all("estimate" not in row for row in rows):
        return [Missing(f"{title}:", "; ".join(dict.fromkeys(str(row["remark"]) for row in rows)))]
    ends = "points per standard deviation [95% interval]"
    columns = [
        Column("covariate", "of a language"),
        Column("languages", "languages"),
        Column("estimate", f"alone: {ends}", 2, interval=("low", "high"), bounded=True),
        Column("p", "p", p_value=True),
        Column("freedom", "degrees of freedom"),
        Column(
            "beside_estimate", f"beside features and baselines: {ends}", 2, interval=("beside_low", "beside_high"),
            bounded=True,
        ),
        Column("beside_p", "p", p_value=True),
        Column("remark", "remark"),
    ]  # fmt: skip
    note = (
        "Mixed models as above with a number of each language among the predictors. It differs between languages only, "
        f"which are as many observations. The others: {_words(others)}."
    )
    return [Table("covariates", title, columns, rows, study.all_runs, note)]


def _slope(
    long: pd.DataFrame, name: str, others: list[str], random: tuple[str, ...] | None
) -> dict[str, float | str]:
    try:
        model = mixed_model(long, [name, *others], random=random)
    except InputError as collinear:
        return {"remark": str(collinear)}
    if not isinstance(model, MixedModel):
        return {"remark": not_enough_words(model.note)}
    if not model.converged:
        return {"remark": f"did not converge: {'; '.join(model.messages)}"}
    slope = model.fixed.set_index("term").loc[name]
    return {key: float(slope[key]) for key in ("estimate", "low", "high", "p", "freedom")}


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _lead_lag(study: Study) -> list[Table | Missing]:
    within = len(study.evidence.levels) > 1
    found = lead_lag(study.runs, window=study.window, within="schedule" if within else None)
    if found.empty or found["estimate"].isna().all():
        why = reasons(found["note"]) if len(found) else "no run has both curves"
        return [Missing("Not enough runs to say whether tr(F) or the score moves first:", why)]
    rows = rows_of(found[found["estimate"].notna()])
    columns = [
        Column("course", "course"),
        Column("lag", "lag (validations)"),
        Column("n", "runs"),
        Column("estimate", "mean r [95% interval]", 2, interval=("low", "high"), bounded=True),
        Column("p", "p", p_value=True),
        Column("p_max", "p over all lags", p_value=True),
        Column("note", "remark"),
    ]
    interval = found["interval"].iloc[0]
    note = (
        f"Changes of normalised tr(F) against changes of the validation score; one lag is {interval:g} steps, and at "
        "lag +1 tr(F) moves first. “whole”: the course that all runs share is in it, so a coefficient far from zero "
        "says little and has no p. “own”: only what a run does differently from the others"
        + (" with its schedule, and beyond what its seed does in every schedule." if within else ".")
    )
    return [Table("lead-lag", "Which moves first", columns, rows, study.all_runs, note)]
