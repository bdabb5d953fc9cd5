"""The answer, before any table: does a feature of the Fisher curve go with transfer, and which schedule differs?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from .cells import not_enough_words, p_text, plain_text
from .comparison import Comparison
from .evidence import POWER, Evidence, Level
from .parts import Row, Statement, rows_of
from .words import label

ALPHA = 0.05


def about_features(evidence: Evidence | None, runs: str = "these runs") -> Statement:
    """Whether any feature goes with transfer: the strongest coefficient, what is left of it, what could be seen."""
    if evidence is None or not evidence.scored:
        return Statement(
            "Whether the Fisher curve goes with transfer cannot be said:",
            f"none of {runs} has a score in every target language.",
        )
    level = evidence.main
    if level is None:
        reasons = dict.fromkeys(note for found in evidence.plain.values() for note in found["note"] if note)
        return Statement(
            "Whether the Fisher curve goes with transfer cannot be said:",
            f"{next(iter(reasons), 'no value')}.",
        )
    found = evidence.plain[level]
    rows = rows_of(found[found["estimate"].notna()])
    corrected = corrected_by(found)
    # a perfect agreement has no interval, and few runs agree perfectly by chance
    sure = [row for row in rows if row[corrected] < ALPHA and row["low"] == row["low"]]
    first = (
        min(sure, key=lambda row: row[corrected]) if sure else max(rows, key=lambda row: abs(row["estimate"]))
    )
    given = _row_of(evidence.given.get(level), first["feature"])
    claim = _claim(first, given, sure, level, evidence)
    parts = [
        f"{'' if sure else 'Strongest: '}{_coefficient(first, level)} over {int(first['n'])} runs, p "
        f"{_equals(first['p'])}, {p_text(first[corrected])} corrected for {len(rows)} features"
        f"{'; ' + first['note'] if first['note'] else ''}.",
        _given_words(given, evidence),
        _gain_words(evidence),
        _seen_words(evidence, level, sure=bool(sure)),
    ]
    return Statement(claim, " ".join(filter(None, parts)))


def corrected_by(found: pd.DataFrame) -> str:
    """The corrected p that a verdict rests on: of the largest coefficient where there is one, else Holm's."""
    return "p_max" if found["p_max"].notna().any() else "p_holm"


def _claim(first: Row, given: Row | None, sure: Sequence[Row], level: Level, evidence: Evidence) -> str:
    name = label(first["feature"])
    if not sure:
        about = "transfer" if evidence.outcome.name == "average" else f"the {evidence.outcome.noun}"
        return f"No feature of the Fisher curve was shown to go with {about}."
    more = f" (and {len(sure) - 1} more)" if len(sure) > 1 else ""
    direction = evidence.outcome.direction(up=first["estimate"] > 0)
    claim = f"{name[:1].upper()}{name[1:]}{more} goes with {direction} {level.words}"
    if given is None or math.isnan(given["estimate"]):
        return f"{claim}; whether the baselines explain it cannot be said."
    if given["p"] < ALPHA and given["estimate"] * first["estimate"] > 0:
        return f"{claim}, also given the baselines."
    return f"{claim}, but not beyond what the baselines say."


def _coefficient(row: Row, level: Level) -> str:
    ends = _interval(row["low"], row["high"], 2)
    return f"{label(row['feature'])}, ρ = {plain_text(row['estimate'], 2)}{ends} {level.words}"


def _interval(low: float, high: float, digits: int) -> str:
    return "" if math.isnan(low) else f" [{plain_text(low, digits)}, {plain_text(high, digits)}]"


def _equals(p: Any) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def _row_of(found: pd.DataFrame | None, feature: str) -> Row | None:
    rows = [] if found is None else rows_of(found[found["feature"] == feature])
    return rows[0] if rows else None


def _given_words(given: Row | None, evidence: Evidence) -> str:
    names = ", ".join(map(label, evidence.baselines))
    if given is None:
        return ""
    if math.isnan(given["estimate"]):
        return f"Given the baselines ({names}): {not_enough_words(given['note'])}."
    ends = _interval(given["low"], given["high"], 2)
    return f"Given the baselines ({names}) ρ = {plain_text(given['estimate'], 2)}{ends}, p {_equals(given['p'])}."


def _gain_words(evidence: Evidence) -> str:
    found = evidence.held_out
    rows = rows_of(found[found["model"] == "baselines + features"]) if len(found) else []
    if not rows or math.isnan(rows[0].get("gain", math.nan)):
        return ""
    row = rows[0]
    p = "" if math.isnan(row["gain_p"]) else f", p {_equals(row['gain_p'])}"
    return f"For schedules left out, features change the baselines' R² by {_signed(row['gain'], 2)}{p}."


def _seen_words(evidence: Evidence, level: Level, *, sure: bool) -> str:
    smallest = evidence.smallest(level)
    if math.isnan(smallest):
        return ""
    if smallest > 0.95:
        return "So few runs could hardly have shown any correlation."
    seen = f"|ρ| of {plain_text(smallest, 2)} or more in {POWER:.0%} of such studies"
    return f"These runs show {seen}." if sure else f"These runs show {seen}: a smaller one remains possible."


def about_schedules(comparison: Comparison) -> Statement:
    """Which schedule differs from the baseline, and by how much, on the seeds that both have."""
    baseline = comparison.baseline
    if comparison.missing is not None:
        return Statement(f"How schedules differ from {baseline} cannot be said:", f"{comparison.missing}.")
    rows = rows_of(comparison.main)
    known = [row for row in rows if row["estimate"] == row["estimate"]]
    if not known:
        few = "; ".join(dict.fromkeys(row["note"] for row in rows if row["note"]))
        seen = _shared_means(comparison)
        return Statement(f"Whether a schedule differs from {baseline} cannot be said:", f"{few}.{seen}")
    sure = [row for row in known if row["p_holm"] < ALPHA]
    if sure:
        claim = "; ".join(
            f"{row['schedule']} is {'above' if row['estimate'] > 0 else 'below'} {baseline} by {_points(row)}"
            for row in sure
        )
        rest = len(known) - len(sure)
        largest = p_text(max(row["p_holm"] for row in sure))
        of = (
            "average over target languages"
            if comparison.outcome.name == "average"
            else comparison.outcome.noun
        )
        text = f"{of.capitalize()}, paired by seed; p (Holm) at most {largest}."
        return Statement(f"{claim}.", text + (f" {rest} more not told apart from it." if rest else ""))
    first = max(known, key=lambda row: abs(row["estimate"]))
    pairs = int(first["n"])
    tested = [row for row in known if row["p"] == row["p"]]
    p = f", p {_equals(first['p'])}" if first["p"] == first["p"] else ""
    text = (
        f"Largest difference of the {comparison.outcome.noun}: {first['schedule']}, "
        f"{_signed(first['estimate'], 1)} points{_interval(first['low'], first['high'], 1)} over {pairs} shared seeds"
        f"{p}{'; ' + first['note'] if first['note'] else ''}."
    )
    left = [row["schedule"] for row in rows if row not in known]
    if left:
        text += f" Too few shared seeds for {', '.join(left)}."
    if not tested:
        return Statement(f"Whether a schedule differs from {baseline} cannot be said:", _lowered(text))
    return Statement(f"No schedule was shown to differ from {baseline}.", text)


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def about_collapse(shares: pd.DataFrame) -> Statement | None:
    """Whether runs lost every target language: `shares` is `Study.collapse`. None where that is not known."""
    if shares.empty:
        return None
    runs, diverged, collapsed = (int(shares[name].sum()) for name in ("runs", "diverged", "collapsed"))
    if not diverged and not collapsed:
        return Statement(
            "No run collapsed.", f"All {runs} score above guessing, in the source and the targets."
        )
    lost = ", ".join(
        f"{row['schedule']} {row['collapsed']} of {row['runs'] - row['diverged']}"
        for row in rows_of(shares.reset_index())
        if row["collapsed"]
    )
    parts = [f"{collapsed} of {runs} runs kept the source and lost the targets: {lost}."] if collapsed else []
    parts += [f"{diverged} of {runs} did not learn the source either."] if diverged else []
    return Statement("Means hide runs that score as guessing does.", " ".join(parts))


def _shared_means(comparison: Comparison) -> str:
    """Where there are too few pairs for an interval: the means on the seeds that both have, as what they are."""
    parts = [
        f"{row['schedule']} {plain_text(row['own'], 1)} against {plain_text(row['baseline'], 1)} ({row['pairs']})"
        for row in comparison.shared
        if row["pairs"]
    ]
    return f" On shared seeds (how many): {'; '.join(parts)}." if parts else ""


def _points(row: Mapping[str, Any]) -> str:
    return f"{plain_text(abs(row['estimate']), 1)} points {_interval(*_outwards(row), 1).strip()}"


def _outwards(row: Mapping[str, Any]) -> tuple[float, float]:
    return (row["low"], row["high"]) if row["estimate"] > 0 else (-row["high"], -row["low"])


def _signed(number: float, digits: int) -> str:
    text = plain_text(number, digits)
    return f"+{text}" if number > 0 else text
