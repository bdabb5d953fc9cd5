"""tr(F) while the adapters trained: curves, features, blocks."""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import pandas as pd

from ... import figures
from ...dynamics import CURVE_FEATURES, RUN_FEATURES, Feature, block_features
from ...figures.bands import RANGE_UP_TO
from ..parts import Column, Item, Missing, Picture, Section, Table, rows_of
from ..study import Study

_PERCENTILES = f", and with more than {RANGE_UP_TO} runs from the 10th to the 90th percentile"
_FEWER = " (in brackets over how many, where not all have the feature: those that do are not a fair sample)"


def fisher_curves(study: Study) -> Section:
    title = "Fisher information during training"
    if not study.total["value"].notna().any():
        missing = Missing("No curve:", "no run has a probe with a finite trace of every block")
        return Section("fisher", title, "", [missing])
    text = (
        "tr(F) is the trace of the Fisher information matrix of a block's parameters, raw, as the journals have it. "
        "Frozen blocks are measured too."
    )
    items: list[Item] = [_trace(study)]
    items += [] if study.brief else [*_with_validation(study), _heat_map(study), _at_the_end(study)]
    items += [_by_schedule(study), _by_block(study), _by_run(study)]
    return Section("fisher", title, text, items)


def _spread(study: Study, percentiles: str = _PERCENTILES) -> str:
    if max(map(len, study.by_schedule.values())) < 2:
        return "one run each"
    return (
        "lines are means over runs (geometric on a logarithmic axis, which ends a decade below them), bands reach from "
        f"the lowest to the highest run{percentiles}"
    )


def _trace(study: Study) -> Picture:
    draw = partial(figures.trace_over_steps, study.total, study.thawed, label="tr(F), all blocks")
    caption = (
        f"Sum over all {len(study.blocks)} blocks (without the head), frozen or not; {_spread(study)}; "
        "number of runs in brackets. Ticks below: a run of the schedule unfroze a block."
    )
    return Picture("trace", "tr(F) over training", caption, draw, study.by_schedule)


def _with_validation(study: Study) -> list[Picture | Missing]:
    if study.validation.empty:
        return [Missing("No validation curve:", "the journals hold no validation scores")]
    metric = ", ".join(sorted(map(str, study.validation["metric"].unique())))
    draw = partial(
        figures.trace_with_validation,
        study.normalised,
        study.validation,
        score=f"validation {metric} (points)",
    )
    caption = (
        "Above: sum over the trainable blocks divided by their number, as in the paper. Below: validation score. "
        "Vertical lines: the peak of each schedule's curve; a triangle at its end: it is highest at the last probe, so "
        "its peak was not reached. The first scores may lie below the axis, which is cut where schedules can be told "
        f"apart; {_spread(study)}."
    )
    return [Picture("validation", "Normalised tr(F) and validation score", caption, draw, study.by_schedule)]


def _heat_map(study: Study) -> Picture:
    draw = partial(figures.block_heat_map, study.traces, study.blocks, study.thawed)
    caption = (
        "Blocks from bottom to top; geometric mean over the runs of a schedule. "
        "White bars: a run unfroze the block."
    )
    return Picture("blocks-map", "tr(F) by block and step", caption, draw, study.by_schedule)


def _at_the_end(study: Study) -> Picture:
    draw = partial(figures.blocks_at_the_end, study.ends, study.blocks, width=figures.PAGE * 0.6)
    lines = _spread(study, percentiles="")
    caption = f"tr(F) of each block at the last probe of each run, frozen or not; {lines}; runs in brackets."
    return Picture("blocks-end", "tr(F) by block at the end", caption, draw, study.by_schedule)


def _columns(features: Mapping[str, Feature[Any]], *, spread: bool) -> list[Column]:
    return [
        Column(
            name,
            feature.label,
            feature.digits,
            plus_minus=f"{name}_sd" if spread else None,
            count=f"{name}_n" if spread else None,
            of="runs" if spread else None,
        )
        for name, feature in features.items()
    ]


def _averaged(frame: pd.DataFrame, by: str, names: Iterable[str]) -> dict[str, dict[str, float]]:
    """Group -> each feature's mean, `_sd` (NaN for one run) and `_n` over the runs that have it, and `runs`."""
    groups = frame.groupby(by, observed=True)
    means, sds = groups[list(names)].mean(), groups[list(names)].std(ddof=1).add_suffix("_sd")
    counts = groups[list(names)].count().add_suffix("_n")
    joined = means.join(sds).join(counts).join(groups["run"].nunique().rename("runs"))
    return joined.to_dict("index")


def _by_schedule(study: Study) -> Table:
    named: dict[str, Feature[Any]] = {**CURVE_FEATURES, **RUN_FEATURES}
    found = _averaged(study.features, "schedule", named)
    rows = [{"schedule": schedule, **found[schedule]} for schedule in study.schedules if schedule in found]
    columns = [Column("schedule", "schedule"), Column("runs", "runs"), *_columns(named, spread=True)]
    rising = _still_rising(study.features).groupby(study.features["schedule"]).sum()
    if rising.any():
        rows = [{**row, "rising": int(rising[str(row["schedule"])])} for row in rows]
        place = next(i for i, column in enumerate(columns) if column.key == "peak_step") + 1
        columns.insert(place, Column("rising", "peak not reached (runs)"))
    smooth = f"smoothed over {study.window:g} steps" if study.window else "not smoothed"
    note = (
        f"Of the normalised curve, {smooth}; mean ± standard deviation over runs{_FEWER}. Area: tr(F) × steps. "
        "Depth centroid: 0 is the bottom block, 1 the top one."
    )
    if rising.any():
        note += (
            " Peak not reached: the curve is highest at the last probe, so its peak, its time and what comes after it "
            "are only what was seen until then."
        )
    return Table("features", "Features of the curves by schedule", columns, rows, study.by_schedule, note)


def _still_rising(features: pd.DataFrame) -> pd.Series:
    """Whether a run's curve is highest at its last probe."""
    return features["peak_step"].notna() & (features["peak_step"] >= features["last_step"])


def _by_block(study: Study) -> Table:
    found = _averaged(block_features(study.runs, window=study.window), "block", CURVE_FEATURES)
    rows = [{"block": block, **found[block]} for block in [*study.blocks, "head"] if block in found]
    columns = [Column("block", "block"), Column("runs", "runs"), *_columns(CURVE_FEATURES, spread=True)]
    note = f"Raw traces; mean ± standard deviation over runs, all runs, whatever their schedule{_FEWER}."
    source_runs = {str(row["block"]): study.all_runs["all runs"] for row in rows}
    if len(study.factors) > 40:
        source_runs = dict(study.all_runs)
    return Table("block-features", "Features by block", columns, rows, source_runs, note, folded=True)


def _labelled(reasons: str, features: Mapping[str, Feature[Any]]) -> str:
    """Reasons with what features are called on the page."""
    for name, feature in features.items():
        reasons = re.sub(rf"(^|; ){name}: ", rf"\g<1>{feature.label}: ", reasons)
    return reasons


def _by_run(study: Study) -> Table:
    named: dict[str, Feature[Any]] = {**CURVE_FEATURES, **RUN_FEATURES}
    labelled = study.features["reason"].map(lambda reasons: _labelled(reasons, named))
    reasons = labelled.where(
        ~_still_rising(study.features),
        "peak: not reached, the curve is highest at the last probe; " + labelled,
    )
    rows = rows_of(study.features.assign(reason=reasons.str.removesuffix("; ")))
    columns = [Column("run", "run"), Column("schedule", "schedule"), *_columns(named, spread=False)]
    columns.append(Column("reason", "what is missing, and why"))
    source_runs = {row["run"]: (row["run"],) for row in rows}
    return Table("run-features", "Features by run", columns, rows, source_runs, folded=True)
