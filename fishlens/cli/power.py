"""`fishlens power`: how many seeds would show a difference of a given size, from the spread of runs that there are."""

import json
from typing import Annotated

import typer

from fishlens.cli.output import say
from fishlens.errors import InputError


def power(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Run directories: a pilot, for the spread of its differences.")
    ] = None,
    effect: Annotated[float, typer.Option(help="Difference that should be seen, in points.")] = 2.0,
    sd: Annotated[
        float | None, typer.Option(help="Standard deviation of paired differences, instead of a pilot's.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Print the power of so many seeds instead of searching.")
    ] = None,
    target: Annotated[float, typer.Option("--power", help="Chance of seeing it.")] = 0.8,
    baseline: Annotated[str, typer.Option(help="Schedule that the others are compared with.")] = "standard",
    outcome: Annotated[str, typer.Option(help="average, lowest or source.")] = "average",
    comparisons: Annotated[
        int, typer.Option(min=1, help="Comparisons that Holm's correction is for: p below 0.05 / so many.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """How many seeds show a difference between two schedules, by simulating the sign-flip test that `report` does."""
    from fishlens.analysis.power import paired_power, seeds_needed

    if sd is None and not runs:
        raise InputError("neither runs of a pilot nor --sd are given; expected one of them")
    spreads: dict[str, tuple[float, int | None]]
    spreads = {"given": (sd, None)} if sd is not None else _pilot(list(runs or ()), baseline, outcome)
    rows = []
    for name, (spread, pairs) in spreads.items():
        level = 1 - 0.05 / comparisons
        size = seeds_needed(effect, spread, power=target, level=level)
        row = {
            "task": name,
            "sd": spread,
            "degrees of freedom": pairs,
            "effect": effect,
            "needed": size.needed,
        }
        if seeds is not None:
            row |= {
                "seeds": seeds,
                "power": paired_power(effect, spread, seeds, level=level, simulations=20_000),
            }
        rows.append(row | {"method": size.method})
    if as_json:
        say(json.dumps(rows, indent=1, allow_nan=False, default=str))
        return
    for row in rows:
        what = (
            ""
            if sd is not None
            else f"{row['task']}: sd {row['sd']:.2f} ({row['degrees of freedom']} d.f.); "
        )
        needed = row["needed"] if row["needed"] is not None else "more than 100"
        text = f"{what}{effect:g} points are seen with {needed} seeds in {target:.0%} of studies"
        if seeds is not None:
            text += f"; with {seeds} seeds in {row['power']:.1%}"
        say(text)


def _pilot(runs: list[str], baseline: str, outcome: str) -> dict[str, tuple[float, int | None]]:
    import pandas as pd

    from fishlens.analysis.paired import scored_runs
    from fishlens.analysis.power import pilot_spread
    from fishlens.analysis.selection import only
    from fishlens.journal import load_runs

    loaded = load_runs(runs)
    table = loaded.runs
    groups = table.groupby("task", observed=True) if "task" in table else [("", table)]
    # task by task: an average is over the languages that the runs of one task share
    parts = [scored_runs(only(loaded, rows["run"])) for _, rows in groups]
    return dict(pilot_spread(pd.concat(parts, ignore_index=True), outcome, baseline=baseline))
