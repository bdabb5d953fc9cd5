"""In which order blocks were unfrozen, and how clear the choices were."""

from functools import partial

from ... import figures
from ...figures.style import block_labels
from ..parts import Column, Item, Missing, Picture, Section, Table
from ..study import Study


def unfreezing(study: Study) -> Section:
    title = "Unfreezing"
    order = study.order
    if order.empty:
        why = (
            "no run unfroze its blocks one after another"
            if len(study.thawed)
            else "no unfreezing was recorded"
        )
        return Section("unfreezing", title, "", [Missing("No order:", why)])
    ordered = set(order["run"])
    source_runs = {s: tuple(run for run in runs if run in ordered) for s, runs in study.by_schedule.items()}
    source_runs = {s: runs for s, runs in source_runs.items() if runs}
    left = [s for s in study.schedules if s not in source_runs]
    text = f"Without an order of their own (all blocks at once, or none): {', '.join(left)}." if left else ""
    drawn = [
        Picture(
            "order",
            "Unfreezing order",
            "Place of each block in the order, 1 = first; mean over the runs of a schedule.",
            partial(figures.unfreezing_order, order, study.blocks),
            source_runs,
        ),
        Picture(
            "top-down",
            "Unfreezing order against top-down",
            "The dotted diagonal is the top-down order (gu). Points: mean over runs; bars: lowest to highest place.",
            partial(
                figures.order_against_top_down,
                order,
                study.blocks,
                width=figures.PAGE if len(source_runs) > 2 else figures.COLUMN,
            ),
            source_runs,
        ),
    ]
    items: list[Item] = [*([] if study.brief else drawn), _table(study)]
    return Section("unfreezing", title, text, items)


def _table(study: Study) -> Table:
    rows = []
    prefix, labels = block_labels(study.blocks)
    short = dict(zip(study.blocks, labels, strict=True))
    agreement = study.features.set_index("run")["order_agreement"]
    for run, events in study.order.groupby("run"):
        events = events.sort_values(["event", "position"])
        margins = events["margin"].dropna()
        rows.append(
            {
                "run": run,
                "schedule": events["schedule"].iloc[0],
                "order": " ".join(short[block] for block in events["block"]),
                "first": int(events["step"].min()),
                "last": int(events["step"].max()),
                "agreement": agreement.get(run),
                "margin": float(margins.median()) if len(margins) else None,
            }
        )
    columns = [
        Column("run", "run"),
        Column("schedule", "schedule"),
        Column("first", "first at step"),
        Column("last", "last at step"),
        Column("agreement", "agreement with top-down (τ)", 2),
        Column("order", f"order (of {prefix}*)" if prefix else "order"),
    ]
    note = ""
    if any(row["margin"] is not None for row in rows):
        columns.insert(-1, Column("margin", "median margin (s.e.)", 1))
        note = (
            "Margin: by how many standard errors of their difference the chosen block's tr(F) led the next frozen "
            "block's. A margin under 2 is a choice that another probe might have made differently."
        )
    source_runs = {str(row["run"]): (str(row["run"]),) for row in rows}
    return Table("orders", "Unfreezing orders", columns, rows, source_runs, note, folded=len(rows) > 12)
