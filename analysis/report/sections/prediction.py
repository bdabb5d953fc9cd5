"""Does the Fisher curve go with transfer? Coefficients over runs, against what could explain them away."""

import pandas as pd
from fishlens.analysis import figures
from fishlens.analysis.correlate.leadlag import lead_lag
from fishlens.analysis.correlate.prediction import predict
from fishlens.analysis.correlate.table import correlate
from fishlens.analysis.dynamics import CURVE_FEATURES, RUN_FEATURES
from fishlens.analysis.models import MixedModel, mixed_model
from fishlens.analysis.outcomes import BASELINES, run_baselines

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


def prediction(study: Study) -> Section:
    title = "Does the Fisher curve go with transfer?"
    table = _table(study)
    if table[OUTCOME].notna().sum() == 0:
        why = "no run has a score in every target language, so there is no average to explain"
        return Section("prediction", title, "", [Missing("No coefficient.", why)])
    text = (
        "Outcome: the average over the target languages, without the source. Coefficients are over runs; languages of "
        "one run are not counted as independent. Given the baselines, a feature that only says how well the source "
        "language was learnt, or how far the loss fell, is explained away."
    )
    items = [*_correlations(study, table), *_held_out(study, table), *_mixed(study, table), *_lead_lag(study)]
    return Section("prediction", title, text, items)


def _table(study: Study) -> pd.DataFrame:
    """One row per run: schedule, features, the outcome and the baselines (`source` is a baseline here)."""
    outcomes = study.scored[["run", OUTCOME]]
    return study.features.merge(outcomes, on="run").merge(run_baselines(study.runs), on="run")


def _known_baselines(table: pd.DataFrame) -> list[str]:
    return [name for name in BASELINES if table[name].notna().sum() > 1 and table[name].nunique() > 1]


def _correlations(study: Study, table: pd.DataFrame) -> list[Item]:
    features = [name for name in (*CURVE_FEATURES, *RUN_FEATURES) if table[name].notna().any()]
    plain = correlate(table, features, [OUTCOME])
    if plain["estimate"].isna().all():
        return [Missing("Not enough runs for a coefficient:", "; ".join(sorted(set(plain["note"]))))]
    columns = [
        Column("label", "feature"),
        Column("n", "runs"),
        Column("estimate", "Spearman's ρ [95% interval]", 2, interval=("low", "high")),
        Column("p", "p", p_value=True),
        Column("p_holm", "p (Holm)", p_value=True),
        Column("p_bh", "p (Benjamini–Hochberg)", p_value=True),
    ]
    rows = plain.assign(label=plain["feature"].map(LABELS), remark=_remarks(plain))
    note = f"{_methods(plain)}. Corrected over the features."
    baselines = _known_baselines(table)
    if baselines:
        given = correlate(table, features, [OUTCOME], controls=baselines)
        rows = rows.join(given[["estimate", "low", "high", "p", "p_holm"]].add_prefix("given_"))
        rows["remark"] = [
            one
            if one == other or not other
            else "; ".join(filter(None, (one, f"given the baselines: {other}")))
            for one, other in zip(rows["remark"], _remarks(given), strict=True)
        ]
        columns += [
            Column("given_estimate", "ρ given the baselines", 2, interval=("given_low", "given_high")),
            Column("given_p", "p", p_value=True),
            Column("given_p_holm", "p (Holm)", p_value=True),
        ]
        note += f" Baselines: {_words(baselines)}; {_methods(given)}."
    columns.append(Column("remark", "remark"))
    made = Table(
        "correlations",
        "Features and average transfer",
        columns,
        rows_of(rows),
        study.all_runs,
        note,
    )
    return [made, *_scatters(study, table, plain)]


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


def _scatters(study: Study, table: pd.DataFrame, found: pd.DataFrame) -> list[Picture]:
    plain = found[found["estimate"].notna()].set_index("feature")
    pictures = []
    for feature in FEATURED:
        if feature not in plain.index:
            continue
        row = plain.loc[feature]
        ends = f"[{row['low']:.2f}, {row['high']:.2f}]"
        summary = f"Spearman's ρ = {row['estimate']:.2f}, 95% {ends}, {int(row['n'])} runs"
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
            "One point a run; the line is a least-squares fit, to guide the eye. The coefficient is of ranks."
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
        Column("estimate", "held-out R² [95% interval]", 2, interval=("low", "high")),
        Column("rmse", "error (points)", 2),
        Column("gain", "R² above the baselines", 2, interval=("gain_low", "gain_high")),
        Column("remark", "remark"),
    ]
    note = (
        "Least squares fitted without one schedule at a time and used on it. R² is 0 for the mean of the other "
        "schedules and negative for what predicts worse than that."
    )
    return [Table("held-out", "Predicting a schedule that was left out", columns, rows, study.all_runs, note)]


def _mixed(study: Study, table: pd.DataFrame) -> list[Table | Missing]:
    scores = study.scores[study.scores["language"] != study.source]
    known = table[["run", *FEATURED, *BASELINES]]
    long = scores[["run", "schedule", "language", "value"]].merge(known, on="run")
    controls = _known_baselines(table)
    rows, reasons, method = [], [], ""
    for feature in FEATURED:
        model = mixed_model(long, [feature, *controls])
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
        Column("estimate", "points per standard deviation [95% interval]", 2, interval=("low", "high")),
        Column("p", "p", p_value=True),
        Column("freedom", "degrees of freedom"),
        Column("note", "remark"),
    ]
    note = f"Score in each target language; {method}. " + "; ".join(dict.fromkeys(reasons))
    return [Table("mixed-model", "Mixed model over languages", columns, rows, study.all_runs, note.strip())]


def _lead_lag(study: Study) -> list[Table | Missing]:
    found = lead_lag(study.runs, window=study.window)
    if found.empty or found["estimate"].isna().all():
        why = "; ".join(sorted(set(found["note"]))) if len(found) else "no run has both curves"
        return [Missing("Not enough runs to say whether tr(F) or the score moves first:", why)]
    rows = rows_of(found[found["estimate"].notna()])
    columns = [
        Column("course", "course"),
        Column("lag", "lag (validations)"),
        Column("n", "runs"),
        Column("estimate", "mean r [95% interval]", 2, interval=("low", "high")),
        Column("p", "p", p_value=True),
        Column("p_max", "p over all lags", p_value=True),
        Column("note", "remark"),
    ]
    interval = found["interval"].iloc[0]
    note = (
        f"Changes of normalised tr(F) against changes of the validation score; one lag is {interval:g} steps, and at "
        "lag +1 tr(F) moves first. “whole”: the course that all runs share is in it, so a coefficient far from zero "
        "says little. “own”: only what a run does differently from the others."
    )
    return [Table("lead-lag", "Which moves first", columns, rows, study.all_runs, note)]
