"""tr(F) while the adapters trained: curves, features, blocks."""

import pandas as pd
from fishlens.analysis import figures
from fishlens.analysis.dynamics import CURVE_FEATURES, RUN_FEATURES, block_features
from fishlens.analysis.figures.bands import RANGE_UP_TO

from ..parts import Column, Item, Missing, Picture, Section, Table, rows_of
from ..study import Study

LABELS = {
    "peak": "peak",
    "peak_step": "peak at step",
    "width": "width at half peak (steps)",
    "area": "area",
    "early_area": "early area",
    "final": "final level",
    "drop": "drop from peak",
    "decay_rate": "decay (per step)",
    "depth_centroid": "depth centroid",
    "order_agreement": "agreement with top-down (τ)",
}
_DIGITS = {"peak_step": 0, "width": 0, "drop": 2, "depth_centroid": 3, "order_agreement": 2, "decay_rate": 5}


def fisher_curves(study: Study) -> Section:
    title = "Fisher information during training"
    if not study.total["value"].notna().any():
        missing = Missing("No curve:", "no run has a probe with a finite trace of every block")
        return Section("fisher", title, "", [missing])
    text = (
        "tr(F) is the trace of the Fisher information matrix of a block's parameters, raw, as the journals have it. "
        "Frozen blocks are measured too."
    )
    items: list[Item] = [_trace(study), *_with_validation(study), _heat_map(study)]
    items += [_by_schedule(study), _by_block(study), _by_run(study)]
    return Section("fisher", title, text, items)


def _spread(study: Study) -> str:
    if max(map(len, study.by_schedule.values())) < 2:
        return "one run each"
    return (
        "lines are means over runs (geometric on a logarithmic axis), bands reach from the lowest to the highest run, "
        f"and with more than {RANGE_UP_TO} runs from the 10th to the 90th percentile"
    )


def _trace(study: Study) -> Picture:
    figure = figures.trace_over_steps(study.total, study.thawed, label="tr(F), all blocks")
    caption = (
        f"Sum over all {len(study.blocks)} blocks (without the head), frozen or not; {_spread(study)}; "
        "number of runs in brackets. Ticks below: a run of the schedule unfroze a block."
    )
    return Picture("trace", "tr(F) over training", caption, figure, study.by_schedule)


def _with_validation(study: Study) -> list[Picture | Missing]:
    if study.validation.empty:
        return [Missing("No validation curve:", "the journals hold no validation scores")]
    metric = ", ".join(sorted(map(str, study.validation["metric"].unique())))
    figure = figures.trace_with_validation(
        study.normalised, study.validation, score=f"validation {metric} (points)"
    )
    caption = (
        "Above: sum over the trainable blocks divided by their number, as in the paper. Below: validation score. "
        f"Vertical lines: the peak of each schedule's curve; {_spread(study)}."
    )
    return [
        Picture("validation", "Normalised tr(F) and validation score", caption, figure, study.by_schedule)
    ]


def _heat_map(study: Study) -> Picture:
    figure = figures.block_heat_map(study.traces, study.blocks, study.thawed)
    caption = (
        "Blocks from bottom to top; geometric mean over the runs of a schedule. "
        "White bars: a run unfroze the block."
    )
    return Picture("blocks-map", "tr(F) by block and step", caption, figure, study.by_schedule)


def _columns(names: dict[str, str], *, spread: bool) -> list[Column]:
    return [
        Column(name, LABELS[name], _DIGITS.get(name, 3), plus_minus=f"{name}_sd" if spread else None)
        for name in names
    ]


def _averaged(frame: pd.DataFrame, by: str, names: dict[str, str]) -> dict[str, dict[str, float]]:
    """Group -> each feature's mean and `_sd` over runs (NaN for one run), and `runs`."""
    groups = frame.groupby(by, observed=True)
    means, sds = groups[list(names)].mean(), groups[list(names)].std(ddof=1).add_suffix("_sd")
    joined = means.join(sds).join(groups["run"].nunique().rename("runs"))
    return joined.to_dict("index")


def _by_schedule(study: Study) -> Table:
    names = {**CURVE_FEATURES, **RUN_FEATURES}
    found = _averaged(study.features, "schedule", names)
    rows = [{"schedule": schedule, **found[schedule]} for schedule in study.schedules if schedule in found]
    columns = [Column("schedule", "schedule"), Column("runs", "runs"), *_columns(names, spread=True)]
    smooth = f"smoothed over {study.window:g} steps" if study.window else "not smoothed"
    note = (
        f"Of the normalised curve, {smooth}; mean ± standard deviation over runs. Area: tr(F) × steps. "
        "Depth centroid: 0 is the bottom block, 1 the top one."
    )
    return Table("features", "Features of the curves by schedule", columns, rows, study.by_schedule, note)


def _by_block(study: Study) -> Table:
    found = _averaged(block_features(study.runs, window=study.window), "block", CURVE_FEATURES)
    rows = [{"block": block, **found[block]} for block in [*study.blocks, "head"] if block in found]
    columns = [Column("block", "block"), Column("runs", "runs"), *_columns(CURVE_FEATURES, spread=True)]
    note = "Raw traces; mean ± standard deviation over all runs, whatever their schedule."
    behind = {str(row["block"]): study.all_runs["all runs"] for row in rows}
    if len(study.factors) > 40:
        behind = dict(study.all_runs)
    return Table("block-features", "Features by block", columns, rows, behind, note, folded=True)


def _by_run(study: Study) -> Table:
    names = {**CURVE_FEATURES, **RUN_FEATURES}
    rows = rows_of(study.features)
    columns = [Column("run", "run"), Column("schedule", "schedule"), *_columns(names, spread=False)]
    columns.append(Column("reason", "what is missing, and why"))
    behind = {row["run"]: (row["run"],) for row in rows}
    return Table("run-features", "Features by run", columns, rows, behind, folded=True)
