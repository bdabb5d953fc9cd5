"""What was measured, on how many runs, with which estimator."""

import pandas as pd

from fishlens.names import counted

from ...series import HEAD
from ..parts import Column, Section, Table
from ..study import Study

_MEANING = {
    "labels": "whose labels the gradients are of",
    "samples": "label samples an example (mc)",
    "granularity": "what is squared: each example's gradient, or a batch's mean",
    "examples": "examples in a probe",
    "mode": "dropout off (eval) or on (train)",
    "dtype": "of the gradients that are squared",
    "seed": "of the draw of examples and labels",
    "blocks": "how parameters were put into blocks",
    "normalisation": "of the numbers in the journal",
    "output": "what the model predicts",
    "output_from": "how that was known",
    "preset": "a named set of the above",
    "version": "of the estimator",
}


def measured(study: Study) -> Section:
    factors = study.factors
    of_schedules = ", ".join(f"{name} ({len(runs)})" for name, runs in study.by_schedule.items())
    probes = study.runs.fisher.groupby("run", observed=True)["step"].nunique()
    languages = sorted(study.scores["language"].unique())
    parts = [
        counted(len(factors), "runs") + (f" of {study.group.label}" if study.group.label else "") + ".",
        f"Schedules (runs): {of_schedules}.",
        f"Training steps: {_range(factors['steps'])}.",
        f"Probes a run: {_range(probes)}, each of {counted(len(study.blocks), 'blocks')}"
        + (" and the head." if _has_head(study) else "."),
        f"Scores in {counted(len(languages), 'languages')}: {', '.join(languages)}."
        if languages
        else "No test scores.",
    ]
    text = f"{' '.join(parts)}\n\nEstimator: {_estimator_words(study)}."
    return Section("measured", "What was measured", text, [_runs_table(study), _estimator_table(study)])


def _has_head(study: Study) -> bool:
    return HEAD in set(map(str, study.runs.fisher["block"].unique()))


def _range(values: pd.Series) -> str:
    values = values.dropna()
    if values.empty:
        return "none"
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _identity(study: Study) -> dict[str, object]:
    """The estimator's fields as far as the runs say them; values that differ between runs are listed."""
    found: dict[str, object] = {}
    for name in study.factors.columns:
        if name.startswith("estimator_"):
            values = list(dict.fromkeys(study.factors[name].dropna()))
            if values:
                whole = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
                found[name.removeprefix("estimator_")] = ", ".join(map(str, whole))
    return found


def _estimator_words(study: Study) -> str:
    identity = _identity(study)
    if not identity:
        return "the journals do not say"
    words = [f"{name} {identity[name]}" for name in ("preset", "labels", "granularity", "examples", "mode", "dtype")
             if name in identity]  # fmt: skip
    return ", ".join(words) or "see the table"


def _estimator_table(study: Study) -> Table:
    identity = _identity(study)
    if identity.get("labels") != "mc":
        identity.pop("samples", None)  # nothing is sampled
    rows = [
        {"field": name, "value": value, "meaning": _MEANING.get(name.split(".")[0], "")}
        for name, value in identity.items()
    ]
    columns = [Column("field", "field"), Column("value", "value"), Column("meaning", "what it is")]
    return Table("estimator", "The estimator's identity", columns, rows, study.all_runs)


def _lost_probes(study: Study) -> pd.Series:
    """How many probes of each run were lost, as its journal notes."""
    notes = study.runs.notes
    lost = notes["text"].astype(str).str.startswith("probe lost")
    return notes.loc[lost.to_numpy(dtype=bool), "run"].astype(str).value_counts()


def _seed(value: object) -> object:
    """A seed as it was written: a whole number, or a name."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _runs_table(study: Study) -> Table:
    probes = study.total.groupby("run")["value"].agg(whole="count", all="size")
    lost = _lost_probes(study)
    scored = study.scored.set_index("run")
    best = study.validation.groupby("run")["value"].max()
    rows = []
    for run in study.factors.index:
        factor, outcome = study.factors.loc[run], scored.loc[run]
        whole, probed = probes.loc[run] if run in probes.index else (0, 0)
        rows.append(
            {
                "run": run,
                "schedule": factor["schedule"],
                "seed": None if pd.isna(factor["seed"]) else _seed(factor["seed"]),
                "status": factor["status"],
                "steps": factor["steps"],
                "probes": int(whole),
                "lost": int(probed - whole + lost.get(run, 0)),
                "validation": best.get(run),
                **{name: outcome.get(name) for name in ("source", "average", "lowest", "lowest_language")},
            }
        )
    columns = [
        Column("run", "run"),
        Column("schedule", "schedule"),
        Column("seed", "seed"),
        Column("status", "status"),
        Column("steps", "steps"),
        Column("probes", "probes"),
        Column("lost", "lost probes"),
        Column("validation", "best validation", 2),
        Column("source", "source", 2),
        Column("average", "average without source", 2),
        Column("lowest", "lowest", 2),
        Column("lowest_language", "lowest language"),
    ]
    note = "Scores in points. Every number of this report comes from these runs."
    source_runs = {str(row["run"]): (str(row["run"]),) for row in rows}
    return Table("runs", "Runs", columns, rows, source_runs, note, folded=True)
