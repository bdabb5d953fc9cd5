"""What was measured in target languages without their labels: what it tells, and what choosing by it costs."""

import pandas as pd

from fishlens.errors import InputError
from fishlens.names import counted

from ... import targets as languages
from ..parts import Column, Item, Missing, Section, Table
from ..study import Study

_WORDS = {
    "trace": "tr(F) of the language",
    "ratio": "tr(F) of the language / of the source",
    "overlap": "overlap with the source's diagonal",
    "rank_overlap": "the same by ranks",
    "drift": "drift of the diagonal since the probe before",
    "cka": "CKA with the source's representation",
    "entropy": "entropy of the predictions",
    "confidence": "confidence of the predictions",
    "atc": "average thresholded confidence",
}


def targets(study: Study) -> Section:
    title = "Target languages without labels"
    try:
        points = languages.language_points(study.runs)
    except InputError as error:
        return Section("targets", title, "", [Missing("Nothing measured:", str(error))])
    source_runs = {"runs with both": tuple(dict.fromkeys(points["run"]))}
    count = points["language"].nunique()
    text = (
        f"In {counted(len(source_runs['runs with both']), 'runs')} the Fisher information of "
        f"{counted(count, 'target languages')} was followed "
        "on unlabelled examples, and the languages were scored at the same steps. The scores chose nothing. "
        "Independent units are seeds: languages, steps and schedules of one seed are not. What is said is of these "
        "languages, not of others."
    )
    items: list[Item] = [_apart(points, source_runs), _choice(points, source_runs)]
    return Section("targets", title, text, items)


def _apart(points: pd.DataFrame, source_runs: dict[str, tuple[str, ...]]) -> Table:
    there = [name for name in _WORDS if points[name].notna().any()]
    alone = languages.over_languages(points, there).set_index("feature")
    given = languages.over_languages(points, there, given=["entropy"]).set_index("feature")
    rows = []
    for name in there:
        row = {"feature": _WORDS[name], "note": alone.loc[name, "note"], "seeds": alone.loc[name, "clusters"]}
        row |= {key: alone.loc[name, key] for key in ("estimate", "low", "high", "p")}
        if name not in ("entropy", "confidence"):  # the rival itself
            row |= {f"given_{key}": given.loc[name, key] for key in ("estimate", "low", "high", "p")}
        rows.append(row)
    columns = [
        Column("feature", "feature"),
        Column("estimate", "with the score", 2, interval=("low", "high"), bounded=True),
        Column("p", "p", 3, p_value=True),
        Column("given_estimate", "beyond entropy", 2, interval=("given_low", "given_high"), bounded=True),
        Column("given_p", "p", 3, p_value=True),
        Column("seeds", "seeds"),
        Column("note", "note"),
    ]
    note = (
        "Spearman's correlation over the languages of one run at one step, mean over steps, runs and seeds; 95 % "
        "intervals over seeds. Beyond entropy: the same of what is left when the ranks of the predictions' entropy, "
        "which needs no gradient, are taken out of both sides. p is for each row alone."
    )
    return Table("apart", "What tells the languages of a run apart", columns, rows, source_runs, note)


def _choice(points: pd.DataFrame, source_runs: dict[str, tuple[str, ...]]) -> Table:
    found = languages.choose_steps(points)
    rows = [
        {
            key: row[key]
            for key in ("criterion", "estimate", "low", "high", "gain", "low_gain", "high_gain", "note")
        }
        for _, row in found.iterrows()
    ]
    columns = [
        Column("criterion", "step chosen by"),
        Column("estimate", "points below the best step", 2, interval=("low", "high"), bounded=True),
        Column("gain", "gained over source validation", 2, interval=("low_gain", "high_gain"), bounded=True),
        Column("note", "note"),
    ]
    note = (
        "Mean over the target languages; all criteria choose among the same steps of a run. 95 % intervals "
        "from resampled seeds (studentised bootstrap), of each number alone. tr(F) and its ratio are read both ways: "
        "taking the better one afterwards is choosing by "
        "labels."
    )
    return Table("choice", "Choosing a step without labels", columns, rows, source_runs, note)
