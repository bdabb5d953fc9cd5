"""`fishlens schedule`: print what a schedule does, without a model."""

from typing import Annotated, Any

import typer

from fishlens.cli.output import Trust, allow_code, say
from fishlens.errors import InputError
from fishlens.own_code import is_own


def schedule(
    name: Annotated[str, typer.Argument(help="gu, fun, fixed, … or your own class as module:Class")],
    layers: Annotated[int, typer.Option("--layers", "-L", min=1, help="Number of blocks.")] = 12,
    every: Annotated[int, typer.Option("--every", "-k", min=1, help="Steps between events.")] = 50,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Length of the run; warns if it is too short.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of a random order.")] = 0,
    trust: Annotated[bool, Trust] = False,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="An option of the schedule, e.g. -s permutation=3."),
    ] = None,
) -> None:
    """Print which blocks a schedule thaws at which step (0 is the bottom block)."""
    from fishlens.schedules import budget_warning, make_schedule

    allow_code({"NAME": name} if is_own(name) else {}, trust)
    blocks = [str(i) for i in range(layers)]
    plan = make_schedule(name, every=every, blocks=blocks, seed=seed, **_options(option or []))
    say(f"{name}: {layers} blocks, an event every {every} steps; the head trains from step 0")
    say(f"{'step':>8}  {'thawed':<28}trainable")
    for line in _rows(plan):
        say(line)
    warning = budget_warning(plan, steps) if steps is not None else None
    if warning:
        say(f"warning: {warning}", err=True)


def _options(settings: list[str]) -> dict[str, Any]:
    import yaml

    from fishlens.recipe.yaml_text import parse_yaml
    from fishlens.schedules.registry import check_options

    options = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator:
            raise InputError(f"-s {setting}; expected option=value, for instance -s permutation=3")
        try:
            options[key] = parse_yaml(value)
        except yaml.YAMLError:
            raise InputError(f"-s {setting}: {value!r} is no YAML value") from None
    check_options(options)
    return options


def _rows(plan: Any) -> list[str]:
    """One line per event that does something; a choice by scores is shown as what it will depend on."""
    from fishlens.schedules import Event, State

    state, rows = State(), []
    total = len(plan.blocks)
    for step in range(0, plan.every * total + 1, plan.every):
        if not plan.is_event(step) or (not plan.frozen(state) and step > 0):
            continue
        if plan.needs_scores(step, state) and plan.complete_at != 0:
            # which block it will be is not known yet: any frozen one keeps the count right
            event = Event(step, (plan.frozen(state)[-1],))
            shown, after = "largest tr(F)", state.after(event)
        elif plan.needs_scores(step, state):
            after = state.after(Event(step, plan.blocks))
            shown = "all, weighted by gradient"
        else:
            event = plan.select(step, state)
            after, shown = state.after(event), " ".join(event.chosen) or "none"
        if len(after.thawed) > len(state.thawed) or step == 0:
            rows.append(f"{step:>8}  {shown:<28}{len(after.thawed)} of {total}")
        state = after
    return rows
