"""`fishlens evaluate`: test a finished training again, on other files or languages."""

from pathlib import Path
from typing import Annotated

import typer

from fishlens.cli.output import Trust, allow_code, say
from fishlens.cli.runs import AsJson, print_json


def evaluate(
    run: Annotated[Path, typer.Argument(help="The run's directory.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="What is tested otherwise, e.g. -s data.test=new/{language}.tsv."),
    ] = None,
    trust: Annotated[bool, Trust] = False,
    as_json: AsJson = False,
) -> None:
    r"""Test the best weights of a run whose training is over; nothing is trained, earlier results are kept.

    For a test that could not be read, and for new languages: -s 'data.targets=\[sw, ta]', -s data.test=…,
    -s language_adapters=….
    """
    from fishlens.recipe.loading import load_recipe
    from fishlens.training.evaluate_run import evaluate_run

    if (run / "recipe.yaml").is_file():
        allow_code(load_recipe(run / "recipe.yaml", overrides=set_ or []).own_code, trust)
    result = evaluate_run(run, set_ or [])
    if as_json:
        print_json({"run": str(run), "test": result.test, "warnings": list(result.warnings)})
    else:
        say(f"{run}: {result.summary}")
