"""Does the Fisher curve go with transfer? Coefficients over runs, against what could explain them away."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from fishlens.analysis import figures
from fishlens.analysis.correlate.leadlag import lead_lag
from fishlens.analysis.correlate.prediction import predict
from fishlens.analysis.correlate.table import correlate
from fishlens.analysis.dynamics import CURVE_FEATURES, RUN_FEATURES
from fishlens.analysis.models import MixedModel, mixed_model
from fishlens.analysis.outcomes import BASELINES, run_baselines

from fishlens.errors import InputError

from ..cells import not_enough_words
from ..parts import Column, Item, Missing, Picture, Section, Table, rows_of
from ..study import Study
from .fisher_curves import LABELS

OUTCOME = "average"
# The features that are drawn and put into models, chosen before any run was looked at: how much Fisher information
# there is early on, how high it rises, and where in the network it lies. All features are in the first table.
FEATURED = ("early_area", "peak", "depth_centroid")
UNITS = {**CURVE_FEATURES, **RUN_FEATURES}
BASELINE_WORDS = {
    "source": "score in the source",
    "final_loss": "final loss",
    "gradient_norm": "gradient norm",
}


@dataclass(frozen=True)
class Level:
    """What is counted as one observation of a correlation: `cluster` and `strata` as `correlate` takes them."""

    name: str
    words: str
    cluster: str | None = None
    strata: str | None = None


OVER_RUNS = Level("correlations", "over runs")
OVER_SCHEDULES = Level("correlations", "over schedules", cluster="schedule")
WITHIN_SCHEDULES = Level("correlations-within", "within schedules", strata="schedule")


def prediction(study: Study) -> Section:
    title = "Does the Fisher curve go with transfer?"
    table = _table(study)
    if table[OUTCOME].notna().sum() == 0:
        why = "no run has a score in every target language, so there is no average to explain"
        return Section("prediction", title, "", [Missing("No coefficient:", why)])
    text = (
        "Outcome: the average over the target languages, without the source. Languages of one run are not counted as "
        "independent. Given the baselines, a feature that only says how well the source language was learnt, or how "
        "far the loss fell, is explained away."
    )
    if len(_levels(study)) > 1:
        text += (
            " Nor are the seeds of one schedule: a coefficient over schedules counts schedules, one within schedules "
            "asks whether of runs with the same schedule those with more of a feature transfer better."
        )
    features = [name for name in (*CURVE_FEATURES, *RUN_FEATURES) if table[name].notna().any()]
    found = {level: _coefficients(table, features, level) for level in _levels(study)}
    items: list[Item] = []
    for level, plain in found.items():
        items += _correlations(study, table, level, plain)
    items += [
        *_scatters(study, table, found),
        *_held_out(study, table),
        *_mixed(study, table),
        *_lead_lag(study),
    ]
    return Section("prediction", title, text, items)


def _levels(study: Study) -> list[Level]:
    repeated = any(len(runs) > 1 for runs in study.by_schedule.values())
    if len(study.schedules) < 2 or not repeated:
        return [OVER_RUNS]
    return [OVER_SCHEDULES, WITHIN_SCHEDULES]


def _table(study: Study) -> pd.DataFrame:
    """One row per run: schedule, features, the outcome and the baselines (`source` is a baseline here)."""
    outcomes = study.scored[["run", OUTCOME]]
    return study.features.merge(outcomes, on="run").merge(run_baselines(study.runs), on="run")


def _known_baselines(table: pd.DataFrame) -> list[str]:
    return [name for name in BASELINES if table[name].notna().sum() > 1 and table[name].nunique() > 1]


def _correlations(study: Study, table: pd.DataFrame, level: Level, plain: pd.DataFrame) -> list[Item]:
    if plain["estimate"].isna().all():
        why = "; ".join(sorted(set(plain["note"])))
        return [Missing(f"Not enough runs for a coefficient {level.words}:", why)]
    columns = [
        Column("label", "feature"),
        Column("n", "runs"),
        Column("estimate", "Spearman's ρ [95% interval]", 2, interval=("low", "high"), bounded=True),
        Column("p", "p", p_value=True),
        Column("p_holm", "p (Holm)", p_value=True),
        Column("p_bh", "p (Benjamini–Hochberg)", p_value=True),
    ]
    if level.cluster:
        columns.insert(2, Column("clusters", f"{level.cluster}s"))
    rows = plain.assign(label=plain["feature"].map(LABELS), remark=_remarks(plain))
    note = f"{_methods(plain)}. Corrected over the features."
    baselines = _known_baselines(table)
    given = _coefficients(table, list(plain["feature"]), level, baselines) if baselines else None
    if given is not None and given["estimate"].notna().any():
        rows = rows.join(given[["estimate", "low", "high", "p", "p_holm"]].add_prefix("given_"))
        rows["remark"] = [
            one
            if one == other or not other
            else "; ".join(filter(None, (one, f"given the baselines: {other}")))
            for one, other in zip(rows["remark"], _remarks(given), strict=True)
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
        note += f" Baselines: {_words(baselines)}; {_methods(given)}."
    elif given is not None:
        note += f" Given the baselines ({_words(baselines)}): {'; '.join(dict.fromkeys(_remarks(given)))}."
    columns.append(Column("remark", "remark"))
    title = f"Features and average transfer, {level.words}"
    return [Table(level.name, title, columns, rows_of(rows), study.all_runs, note)]


def _coefficients(
    table: pd.DataFrame, features: list[str], level: Level, controls: Sequence[str] = ()
) -> pd.DataFrame:
    return correlate(
        table, features, [OUTCOME], controls=controls, cluster=level.cluster, strata=level.strata
    )


def _remarks(found: pd.DataFrame) -> list[str]:
    """What is to be said about each row; a row without a number says that, and why."""
    return [
        note if value == value else not_enough_words(note)
        for value, note in zip(found["estimate"], found["note"], strict=True)
    ]


def _methods(found: pd.DataFrame) -> str:
    methods = "; ".join(dict.fromkeys(str(method) for method in found["method"] if method))
    return methods[:1].upper() + methods[1:]


def _words(names: list[str]) -> str:
    return ", ".join({**LABELS, **BASELINE_WORDS}[name] for name in names)


def _summary(feature: str, found: Mapping[Level, pd.DataFrame]) -> str:
    """The coefficients that there are, for the picture they belong to."""
    lines = []
    for level, plain in found.items():
        for row in rows_of(plain[(plain["feature"] == feature) & plain["estimate"].notna()]):
            ends = f", 95% [{row['low']:.2f}, {row['high']:.2f}]" if row["low"] == row["low"] else ""
            lines.append(f"{level.words}: ρ = {row['estimate']:.2f}{ends}")
    return "\n".join(lines)


def _scatters(study: Study, table: pd.DataFrame, found: Mapping[Level, pd.DataFrame]) -> list[Picture]:
    pictures = []
    for feature in FEATURED:
        summary = _summary(feature, found)
        if not summary:
            continue
        points = table.rename(columns={feature: "x", OUTCOME: "y"})[["schedule", "x", "y"]]
        positive = bool((points["x"].dropna() > 0).all())
        wide = positive and points["x"].max() > 20 * points["x"].min()
        figure = figures.correlation_scatter(
            points,
            feature=f"{LABELS[feature]} ({UNITS[feature]})",
            outcome="average without source (points)",
            summary=summary.replace("-", "−"),
            log=wide,
            width=figures.PAGE * 0.6,
        )
        caption = (
            "One point a run; the line is a least-squares fit, to guide the eye. Coefficients are Spearman's."
        )
        title = f"{LABELS[feature].capitalize()} and average transfer"
        pictures.append(
            Picture(f"scatter-{feature.replace('_', '-')}", title, caption, figure, study.by_schedule)
        )
    return pictures


def _held_out(study: Study, table: pd.DataFrame) -> list[Table | Missing]:
    features = [name for name in FEATURED if table[name].notna().any()]
    found = predict(table, OUTCOME, features, _known_baselines(table), group="schedule")
    if found.empty or found["estimate"].isna().all():
        why = "; ".join(sorted(set(found["note"]))) if len(found) else "nothing to predict from"
        return [Missing("Not enough runs to predict schedules that were left out:", why)]
    found["which"] = [_words(names.split(", ")) for names in found["predictors"]]
    found["remark"] = _remarks(found)
    rows = rows_of(found)
    columns = [
        Column("model", "predictors"),
        Column("which", "which"),
        Column("n", "runs"),
        Column("clusters", "schedules"),
        Column("estimate", "held-out R² [95% interval]", 2, interval=("low", "high"), bounded=True),
        Column("rmse", "error (points)", 2),
        Column("gain", "R² above the baselines", 2, interval=("gain_low", "gain_high"), bounded=True),
        Column("remark", "remark"),
    ]
    note = (
        "Least squares fitted without one schedule at a time and used on it. R² is 0 for the mean of the other "
        "schedules and negative for what predicts worse than that. The intervals take the fits as given, so they are "
        "too narrow."
    )
    return [Table("held-out", "Predicting a schedule that was left out", columns, rows, study.all_runs, note)]


def _mixed(study: Study, table: pd.DataFrame) -> list[Table | Missing]:
    """Within schedules where these have several runs: what lies between six schedules is six observations."""
    scores = study.scores[study.scores["language"] != study.source]
    controls = _known_baselines(table)
    within = len(_levels(study)) > 1
    known = table[["run", *FEATURED, *BASELINES]]
    if within:
        values = known.drop(columns="run")
        known = values.sub(values.groupby(table["schedule"]).transform("mean")).assign(run=known["run"])
    random = ("language", "schedule", "run") if within and len(study.schedules) > 2 else ("language", "run")
    long = scores[["run", "schedule", "language", "value"]].merge(known, on="run")
    rows, reasons, method = [], [], ""
    for feature in FEATURED:
        if table[feature].isna().all():
            reasons.append(f"no run has {_a(LABELS[feature])}")
            continue
        try:
            model = mixed_model(long, [feature, *controls], random=random)
        except InputError as collinear:
            reasons.append(str(collinear))
            continue
        if not isinstance(model, MixedModel):
            reasons.append(str(model))
        elif not model.converged:
            reasons.append(f"{LABELS[feature]}: the model did not converge ({'; '.join(model.messages)})")
        else:
            method = model.method
            slope = model.fixed.set_index("term").loc[feature]
            row = {"feature": LABELS[feature], "given": _words(controls), "rows": model.n, **slope}
            rows.append({**row, "runs": model.levels["run"], "note": "; ".join(model.messages)})
    if not rows:
        return [Missing("Not enough runs for a mixed model:", "; ".join(dict.fromkeys(reasons)))]
    columns = [
        Column("feature", "feature"),
        Column("given", "given"),
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
        Column("freedom", "degrees of freedom"),
        Column("note", "remark"),
    ]
    less = "Features and baselines less their mean over the runs of the schedule. " if within else ""
    note = f"Score in each target language. {less}{method}. " + "; ".join(dict.fromkeys(reasons))
    where = ", within schedules" if within else ""
    return [
        Table(
            "mixed-model", f"Mixed model over languages{where}", columns, rows, study.all_runs, note.strip()
        )
    ]


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _lead_lag(study: Study) -> list[Table | Missing]:
    within = len(_levels(study)) > 1
    found = lead_lag(study.runs, window=study.window, within="schedule" if within else None)
    # all runs rise and level off: that their common courses are correlated needs no test
    found.loc[found["course"] == "whole", ["p", "p_max"]] = float("nan")
    if found.empty or found["estimate"].isna().all():
        why = "; ".join(sorted(set(found["note"]))) if len(found) else "no run has both curves"
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
        + (" with its schedule." if within else ".")
    )
    return [Table("lead-lag", "Which moves first", columns, rows, study.all_runs, note)]
