"""The answer, before any table: does a feature of the Fisher curve go with transfer, and which schedule differs?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fishlens.names import counted

from .cells import not_enough_words, p_text, plain_text, reasons, reconciled, with_interval
from .comparison import Comparison
from .evidence import POWER, Evidence, Level
from .parts import Row, Statement, rows_of
from .words import label

ALPHA = 0.05


def about_features(evidence: Evidence | None, runs: str = "these runs") -> Statement:
    """Whether any feature goes with transfer: its coefficient, what is left of it, what could have been seen."""
    if evidence is None or not evidence.scored:
        return Statement(
            "Whether the Fisher curve goes with transfer cannot be said:",
            f"none of {runs} has a score in every target language.",
        )
    level = evidence.main
    if level is None:
        said = reasons(
            evidence.remark(note, of) for of, found in evidence.plain.items() for note in found["note"]
        )
        return Statement("Whether the Fisher curve goes with transfer cannot be said:", f"{said}.")
    found = evidence.plain[level]
    rows = rows_of(found[found["estimate"].notna()])
    corrected = corrected_by(found)
    # a perfect agreement has no interval, and few runs agree perfectly by chance
    sure = [
        row
        for row in rows
        if row[corrected] < ALPHA and row["low"] == row["low"] and evidence.most_have(row["feature"])
    ]
    sure.sort(key=lambda row: (row[corrected], -abs(row["estimate"])))
    first = sure[0] if sure else min(rows, key=lambda row: (row["p"], -abs(row["estimate"])))
    name = label(first["feature"])
    remark = f"; {evidence.remark(first['note'], level)}" if first["note"] else ""
    if not evidence.most_have(first["feature"]):
        remark += "; less than half of the runs have it, and they are not a fair sample"
    parts = [
        f"{name[:1].upper() + name[1:] if sure else f'Smallest p: {name}'}, {_coefficient(first)} {level.words} "
        f"({_counted(first, level)}), p {_equals(first['p'])}, {p_text(first[corrected])} corrected for "
        f"{counted(len(rows), 'features')}{remark}.",
        _learnt_words(first, level, evidence),
        _given_words(_row_of(evidence.given.get(level), first["feature"]), evidence, level),
        _gain_words(evidence),
        _seen_words(evidence, level, sure=bool(sure)),
    ]
    return Statement(_claim(sure, level, evidence), " ".join(filter(None, parts)))


def corrected_by(found: pd.DataFrame) -> str:
    """The corrected p that a verdict rests on: of the largest coefficient where there is one, else Holm's."""
    return "p_max" if found["p_max"].notna().any() else "p_holm"


def _claim(sure: Sequence[Row], level: Level, evidence: Evidence) -> str:
    """What is found, and what it was not shown to be more than."""
    if not sure:
        about = "transfer" if evidence.outcome.name == "average" else f"the {evidence.outcome.noun}"
        return f"No feature of the Fisher curve was shown to go with {about}."
    parts = []
    for up in (True, False):
        names = [label(row["feature"]) for row in sure if (row["estimate"] > 0) == up]
        if names:
            verb = "goes" if len(names) == 1 else "go"
            parts.append(f"{listed(names)} {verb} with {evidence.outcome.direction(up=up)}")
    claim = f"{', '.join(parts)} {level.words}"
    claim = claim[:1].upper() + claim[1:]
    doubts = []
    left = evidence.of_learnt.get(level)
    if left is not None and not _holding(sure, left):
        doubts.append(f"without the {_diverged(evidence)}")
    given = evidence.given.get(level)
    if (
        given is None
        or given.set_index("feature")["estimate"].reindex([r["feature"] for r in sure]).isna().all()
    ):
        known = "; whether the baselines explain it cannot be said"
    else:
        holding, known = _holding(sure, given), ""
        if not holding:
            doubts.append("beyond the baselines")
        elif not doubts:
            known = f", {'' if len(holding) == len(sure) else listed(holding) + ' '}also given the baselines"
    but = f"; this was not shown {', nor '.join(doubts)}" if doubts else ""
    return f"{claim}{but}{known}."


def _holding(sure: Sequence[Row], found: pd.DataFrame) -> list[str]:
    """Which features have a p below 0.05 and the same sign in other coefficients too."""
    other = found.set_index("feature")
    return [
        label(row["feature"])
        for row in sure
        if row["feature"] in other.index
        and other.loc[row["feature"], "p"] < ALPHA
        and other.loc[row["feature"], "estimate"] * row["estimate"] > 0
    ]


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _coefficient(row: Row) -> str:
    return f"ρ = {with_interval(row['estimate'], row['low'], row['high'], 2)}"


def _counted(row: Row, level: Level) -> str:
    runs = counted(int(row["n"]), "runs")
    return f"{counted(int(row['clusters']), level.cluster + 's')}, {runs}" if level.cluster else runs


def _diverged(evidence: Evidence) -> str:
    return f"{counted(evidence.diverged, 'runs')} that did not learn the source"


def _learnt_words(first: Row, level: Level, evidence: Evidence) -> str:
    """The same coefficient where only runs that learnt the source count."""
    row = _row_of(evidence.of_learnt.get(level), first["feature"])
    if row is None:
        return ""
    begin = f"Without the {_diverged(evidence)}"
    if math.isnan(row["estimate"]):
        return f"{begin}: {not_enough_words(evidence.remark(row['note'], level))}."
    return f"{begin}: {_coefficient(row)}, p {_equals(row['p'])}."


def _equals(p: Any) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def _row_of(found: pd.DataFrame | None, feature: str) -> Row | None:
    rows = [] if found is None else rows_of(found[found["feature"] == feature])
    return rows[0] if rows else None


def _given_words(given: Row | None, evidence: Evidence, level: Level) -> str:
    names = ", ".join(map(label, evidence.baselines))
    if given is None:
        return ""
    if math.isnan(given["estimate"]):
        return f"Given the baselines ({names}): {not_enough_words(evidence.remark(given['note'], level))}."
    return f"Given the baselines ({names}): {_coefficient(given)}, p {_equals(given['p'])}."


def _gain_words(evidence: Evidence) -> str:
    """Held-out R² from the baselines' to that with features: a change of two negative ones is not a success."""
    found = evidence.held_out
    rows = {row["model"]: row for row in rows_of(found)} if len(found) else {}
    both, alone = rows.get("baselines + features"), rows.get("baselines")
    if both is None or alone is None or math.isnan(both.get("gain", math.nan)):
        return ""
    p = "no p" if math.isnan(both["gain_p"]) else f"p {_equals(both['gain_p'])}"
    before, after = (plain_text(row["estimate"], 2) for row in (alone, both))
    return f"R² of schedules left out: {before} by the baselines, {after} with features ({p})."


def _seen_words(evidence: Evidence, level: Level, *, sure: bool) -> str:
    smallest = evidence.smallest(level)
    if math.isnan(smallest):
        return ""
    if smallest > 0.95:
        return "So few runs could hardly have shown any correlation."
    seen = f"Of such studies {POWER:.0%} find a |ρ| of {plain_text(smallest, 2)}"
    return f"{seen}." if sure else f"{seen}: a smaller one remains possible."


def about_schedules(comparison: Comparison) -> Statement:
    """Which schedule differs from the baseline, and by how much, on the seeds that both have."""
    baseline = comparison.baseline
    if comparison.missing is not None:
        return Statement(f"How schedules differ from {baseline} cannot be said:", f"{comparison.missing}.")
    rows = rows_of(comparison.main)
    known = [row for row in rows if row["estimate"] == row["estimate"]]
    if not known:
        few = reasons(row["note"] for row in rows)
        seen = _shared_means(comparison)
        return Statement(f"Whether a schedule differs from {baseline} cannot be said:", f"{few}.{seen}")
    sure = [row for row in known if row["p_holm"] < ALPHA]
    if sure:
        return _which_differ(sure, len(known) - len(sure), comparison)
    first = max(known, key=lambda row: abs(row["estimate"]))
    tested = [row for row in known if row["p"] == row["p"]]
    if tested:
        first = min(tested, key=lambda row: (row["p"], -abs(row["estimate"])))
    begin = f"{'Smallest p' if tested else 'Largest difference'} of the {comparison.outcome.noun}"
    text = f"{begin}: {first['schedule']}, {_difference(first)}{_p_words(first, len(tested))}."
    text += _learnt_difference(first["schedule"], comparison)
    left = [row["schedule"] for row in rows if row not in known]
    if left:
        text += f" Too few shared seeds for {', '.join(left)}."
    if not tested:
        return Statement(f"Whether a schedule differs from {baseline} cannot be said:", _lowered(text))
    return Statement(f"No schedule was shown to differ from {baseline}.", text)


def _which_differ(sure: Sequence[Row], rest: int, comparison: Comparison) -> Statement:
    baseline = comparison.baseline
    claim = "; ".join(
        f"{row['schedule']} is {'above' if row['estimate'] > 0 else 'below'} {baseline} by {_points(row)}"
        for row in sure
    )
    kept = comparison.learnt
    holding = kept[kept["p"] < ALPHA]["schedule"].tolist() if kept is not None else []
    gone = [row["schedule"] for row in sure if row["schedule"] not in holding] if kept is not None else []
    if gone:
        which = "" if len(gone) == len(sure) else f"of {listed(gone)} "
        claim += f"; {which or 'this '}was not shown without runs that did not learn the source"
    of = "average over target languages" if comparison.outcome.name == "average" else comparison.outcome.noun
    largest = p_text(max(row["p_holm"] for row in sure))
    text = f"{of.capitalize()}, paired by seed; p (Holm) at most {largest}."
    text += "".join(_learnt_difference(name, comparison) for name in gone)
    return Statement(f"{claim}.", text + (f" {rest} more not told apart from it." if rest else ""))


def _difference(row: Row) -> str:
    ends = with_interval(row["estimate"], row["low"], row["high"], 2, sign=True)
    return f"{ends.replace(' [', ' points [', 1)} over {counted(int(row['n']), 'shared seeds')}"


def _p_words(row: Row, tested: int) -> str:
    if row["p"] != row["p"]:
        return f"; {row['note']}" if row["note"] else ""
    corrected = (
        f", {p_text(row['p_holm'])} corrected for {counted(tested, 'comparisons')}" if tested > 1 else ""
    )
    why = reconciled(row)
    return f", p {_equals(row['p'])}{corrected}{'; ' + row['note'] if row['note'] else ''}{'; ' + why if why else ''}"


def _learnt_difference(schedule: str, comparison: Comparison) -> str:
    """The same difference where only runs that learnt the source count; nothing where all of its pairs did."""
    kept, whole = comparison.learnt, comparison.main
    if kept is None:
        return ""
    rows, all_rows = (rows_of(table[table["schedule"] == schedule]) for table in (kept, whole))
    if not rows or rows[0]["n"] == all_rows[0]["n"]:
        return ""
    (row,) = rows
    begin = " Without runs that did not learn the source"
    if math.isnan(row["estimate"]):
        return f"{begin}: {not_enough_words(row['note'])}."
    p = f", p {_equals(row['p'])}" if row["p"] == row["p"] else ""
    return f"{begin}: {_difference(row)}{p}."


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def about_collapse(shares: pd.DataFrame, runs: int) -> Statement | None:
    """Whether runs lost every target language: `shares` is `Study.collapse`, of those of `runs` runs whose score of
    guessing is known. None where that is not known of any."""
    if shares.empty:
        return None
    known, diverged, collapsed = (int(shares[name].sum()) for name in ("runs", "diverged", "collapsed"))
    of = f"{known} runs" if known == runs else f"{known} runs (of {runs}) whose score of guessing is known"
    if not diverged and not collapsed:
        return Statement(
            "No run collapsed.", f"All {of} score above guessing, in the source and the targets."
        )
    parts = []
    if diverged:
        parts.append(f"{diverged} of {of} did not learn the source ({_each(shares, 'diverged')})")
    if collapsed:
        parts.append(
            f"{collapsed} of {of} kept the source and lost the targets ({_each(shares, 'collapsed')})"
        )
    return Statement(
        "Some runs score as guessing does, and stand in every mean here unless it says otherwise:",
        f"{'; '.join(parts)}.",
    )


def _each(shares: pd.DataFrame, what: str) -> str:
    """How many of each schedule."""
    rows = rows_of(shares.reset_index())
    left = {row["schedule"]: row["runs"] - (row["diverged"] if what == "collapsed" else 0) for row in rows}
    return ", ".join(f"{row['schedule']} {row[what]} of {left[row['schedule']]}" for row in rows if row[what])


def _shared_means(comparison: Comparison) -> str:
    """Where there are too few pairs for an interval: the means on the seeds that both have, as what they are."""
    parts = [
        f"{row['schedule']} {plain_text(row['own'], 1)} against {plain_text(row['baseline'], 1)} ({row['pairs']})"
        for row in comparison.shared
        if row["pairs"]
    ]
    return f" On shared seeds (how many): {'; '.join(parts)}." if parts else ""


def _points(row: Mapping[str, Any]) -> str:
    text = with_interval(abs(row["estimate"]), *_outwards(row), 2)
    return text.replace(" [", " points [", 1) if " [" in text else f"{text} points"


def _outwards(row: Mapping[str, Any]) -> tuple[float, float]:
    return (row["low"], row["high"]) if row["estimate"] > 0 else (-row["high"], -row["low"])
