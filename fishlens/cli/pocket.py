"""`fishlens pocket …`: the embedded languages, shown and rebuilt."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fishlens.cli.output import say

pocket = typer.Typer(help="The embedded artificial languages.", no_args_is_help=True)


@pocket.command("show")
def show(
    sentences: Annotated[int, typer.Option(min=1, help="Meanings to say in every language.")] = 2,
    seed: Annotated[int, typer.Option(help="Which meanings.")] = 0,
) -> None:
    """The same meanings in every pocket language, nearest to the source first, with distances."""
    from random import Random

    from fishlens.pocket.languages import make_family, text_of
    from fishlens.pocket.meanings import World, gloss

    family, world, random = make_family(), World(), Random(f"show {seed}")
    meanings = [world.event(random, modifiers=0.6) for _ in range(sentences)]
    say(f"{'':<4}{'':<8}{'distance':>8} {'cognates':>9}  order")
    for language in family.languages:
        say(
            f"{language.code:<4}{language.name:<8}{family.distance(language.code):>8.2f}"
            f" {100 * language.cognates:>7.0f} %  {language.grammar.order}"
        )
    for meaning in meanings:
        say(f"\n{gloss(meaning)}")
        for language in family.languages:
            say(f"  {language.code}  {text_of(language.say(meaning))}")


@pocket.command("build")
def build(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder; what ships and work/ go there.")],
    quick: Annotated[bool, typer.Option(help="A tiny encoder and few steps: seconds, for a look.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of languages, world, tasks and training.")] = 0,
) -> None:
    """Rebuild everything that ships from seeds. The same command resumes an interrupted build."""
    from fishlens.pocket.build import QUICK, BuildPlan
    from fishlens.pocket.build import build as make
    from fishlens.pretraining.masked_lm import Interrupted

    plan = replace(QUICK if quick else BuildPlan(), seed=seed)
    try:
        make(output, plan, note=say)
    except Interrupted as stop:
        say(f"interrupted after step {stop.step}; the same command goes on from there", err=True)
        raise typer.Exit(130) from None
