"""`fishlens check`: all that a run does before its first update, and what it will cost."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fishlens.cli.output import Trust, allow_code, say, screen
from fishlens.cli.runs import AsJson, is_terminal, print_json

if TYPE_CHECKING:
    from fishlens.recipe import Recipe


def check(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe or a recipe file.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="Override a field, e.g. -s seed=3.")
    ] = None,
    all_: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Check every parameter for itself, on all examples of a batch: slower by their number.",
        ),
    ] = False,
    trust: Annotated[bool, Trust] = False,
    as_json: AsJson = False,
) -> None:
    """Before a run: is everything readable, every parameter measured, rightly, and what will it cost? Trains nothing.

    Reads every split in every language, loads model and adapters, and refuses whatever `track` would refuse.
    """
    from fishlens.recipe.loading import load_recipe

    settings = load_recipe(recipe, overrides=set_ or [])
    allow_code(settings.own_code, trust)
    from fishlens.training.check import check_recipe

    found = check_recipe(settings, apart=all_)
    if as_json:
        print_json(found.to_json())
    else:
        _print_splits(found.splits)
        _print_blocks(found.check)
        _print_prices(found.check.prices)
        _print_cost(found, settings)
    if not found.check.passed:
        raise typer.Exit(1)


def _print_splits(splits: list[Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("language", "split", "examples", "tokens per word", "<unk>", "cut rows", "file"):
        table.add_column(name, justify="left" if name in ("language", "split", "file") else "right")
    for row in splits:
        cells = (
            row.language,
            row.split,
            str(row.examples),
            _number(row.tokens_per_word),
            _share(row.unknown),
        )
        table.add_row(*(Text(cell) for cell in (*cells, _share(row.cut), row.source)))
    screen(width=None if is_terminal() else 160, file=sys.stdout).print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    if value is None:
        return ""
    return "0" if value == 0 else f"{100 * value:.1f}%" if value >= 0.001 else "<0.1%"


def _print_blocks(found: Any) -> None:
    rules: dict[str, list[str]] = {}
    for row in found.coverage:
        rules.setdefault(row.block, []).append(row.rule)
    checked = {one.block: one for one in found.self_checks}
    for block, used in rules.items():
        named = "; ".join(f"{used.count(rule)} by {rule}" for rule in dict.fromkeys(used))
        if block not in checked:
            names = [row.parameter for row in found.coverage if row.block == block]
            shown = ", ".join([*names[:3], *(["…"] if len(names) > 3 else [])])
            say(f"{block}: {len(used)} parameters that train are not measured: {shown}")
            continue
        one = checked[block]
        verdict = "agrees with" if one.passed else "DIFFERS FROM"
        say(f"{block}: {len(used)} parameters ({named}); {verdict} plain autograd to {one.error:.1e}")


def _print_prices(prices: Sequence[Any]) -> None:
    """What the parameters cost for which there is no rule, as counted."""
    from fishlens.fisher.coverage import PRICES

    for one in prices:
        names = one.parameters
        shown = ", ".join([*names[:3], *(["…"] if len(names) > 3 else [])])
        say(
            f"{len(names)} parameters by {one.rule} ({shown}): a probe of {one.examples} examples takes "
            f"{one.operations} operations instead of {one.without}; {PRICES[one.rule]}"
        )


def _print_cost(found: Any, settings: "Recipe") -> None:
    for text in found.warnings:
        say(f"note: {text}")
    cost, tracking = found.check.forecast, settings.tracking
    if cost is None:
        say("nothing is tracked: tracking.every is null, and the schedule needs no scores")
        return
    say(
        f"a probe of {cost.examples} examples takes {cost.probe_seconds:.3g} s{_memory(cost.memory)}; "
        f"an update of {cost.update_examples} rows {cost.update_seconds:.3g} s{_memory(cost.update_memory)}"
    )
    every = tracking.every
    if isinstance(every, str):
        due = cost.overhead(1) / (float(every[:-1]) / 100)
        say(f"with tracking.every={every}, a probe is due about every {due:.0f} steps")
    elif every is not None:
        listed = isinstance(every, list)
        probes = sum(step <= found.steps for step in every) if listed else found.steps // every + 1
        share = cost.overhead(found.steps / max(probes, 1) if listed else every)
        when = "a probe at each of these steps" if listed else f"a probe every {every} steps"
        say(
            f"with {when}, tracking costs about {100 * share:.1f}% of training: {probes} probes in {found.steps} steps"
        )


def _memory(size: int | None) -> str:
    return "" if size is None else f" and {size / 2**20:.3g} MiB on top of the model"
