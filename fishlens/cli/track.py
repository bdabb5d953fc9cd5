"""`fishlens track`: a recipe, or somebody else's training script as it stands."""

import os
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from fishlens.cli.output import Trust, allow_code, say
from fishlens.cli.scripts import become, command_of, default_run, script_of
from fishlens.cli.texts import texts_of_languages
from fishlens.errors import InputError


class Labels(str, Enum):
    auto = "auto"
    exact = "exact"
    mc = "mc"
    empirical = "empirical"
    mode = "mode"


class Granularity(str, Enum):
    example = "example"
    batch = "batch"


# our own options stand before the target; whatever follows it belongs to the script
SETTINGS = {"allow_interspersed_args": False, "ignore_unknown_options": False, "allow_extra_args": True}


def track(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            help="A bundled recipe, a recipe file, a Python script, or a command like accelerate."
        ),
    ],
    module: Annotated[bool, typer.Option("-m", help="TARGET is a module, as in python -m.")] = False,
    run: Annotated[
        Path | None,
        typer.Option(help="Directory of the run.", show_default="runs/<name of the recipe or script>"),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="Recipes: override a field, e.g. -s seed=3.")
    ] = None,
    page: Annotated[
        bool, typer.Option("--page/--no-page", help="Recipes: leave a report.html in the run's directory.")
    ] = True,
    trust: Annotated[bool, Trust] = False,
    every: Annotated[
        str, typer.Option(help="Scripts: probe every so many steps (50), or a share of the time (2%).")
    ] = "50",
    examples: Annotated[int, typer.Option(min=1, help="Scripts: examples per probe.")] = 128,
    labels: Annotated[Labels, typer.Option(help="Scripts: whose labels the scores are of.")] = Labels.auto,
    blocks: Annotated[
        str | None,
        typer.Option(
            help="Scripts: blocks by adapter, layer, module or a pattern over parameter names.",
            show_default="auto",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            help="Scripts: what the model predicts, e.g. classification or causal_lm.", show_default="auto"
        ),
    ] = None,
    head: Annotated[bool, typer.Option("--head/--no-head", help="Scripts: the head as a block.")] = True,
    embeddings: Annotated[bool, typer.Option(help="Scripts: the embeddings as a block.")] = False,
    samples: Annotated[int, typer.Option(min=1, help="Scripts: label samples an example (mc).")] = 1,
    granularity: Annotated[
        Granularity, typer.Option(help="Scripts: what is squared, an example's gradient or a batch's.")
    ] = Granularity.example,
    preset: Annotated[
        str | None, typer.Option(help="Scripts: published: as the published code estimates it.")
    ] = None,
    noise_scale: Annotated[
        bool, typer.Option("--noise-scale", help="Scripts: the gradient noise scale too.")
    ] = False,
    diagonals: Annotated[
        str | None, typer.Option(help="Scripts: steps at which the diagonal is kept, e.g. 0,100.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Scripts: of labels that are drawn, and of texts.")] = 0,
    languages: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE=FILE",
            help="Scripts: unlabelled texts of a language, measured at every probe too: raw text (.txt) or a table. "
            "May be repeated; or text/{language}.txt for every language that has such a file.",
        ),
    ] = None,
    languages_every: Annotated[
        int | None, typer.Option(min=1, help="Scripts: measure them only at steps that it divides.")
    ] = None,
    columns: Annotated[
        str, typer.Option(help="Scripts: the tables' column of texts; two for pairs: premise,hypothesis.")
    ] = "text",
    max_length: Annotated[
        int | None,
        typer.Option(min=2, help="Scripts: tokens at which these texts are cut.", show_default="128"),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Scripts: for these texts.", show_default="the Trainer's, or the model's"),
    ] = None,
    factor: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Scripts: what the run is, for reports. May be repeated."),
    ] = None,
    report: Annotated[
        list[str] | None,
        typer.Option("--report", help="Scripts: tensorboard, wandb, mlflow or trackio as well."),
    ] = None,
) -> None:
    """Train by a recipe, or run a training script unchanged, and follow the Fisher information of every block.

    A script is run as Python itself would run it, with the arguments that follow it; every transformers Trainer that
    it makes is tracked, also in child processes.
    """
    command = [sys.executable, "-m", target] if module else command_of(target)
    if command is None:
        if "--help" in context.args:
            say(context.get_help())
            return
        _refuse_script_options(context)
        _train(target, context.args, set_ or [], run, page, trust)
        return
    if set_:
        raise InputError(
            f"--set {set_[0]} is for recipes, and {target} is a script: give it its own arguments"
        )
    script = script_of([*command, *context.args] if module else [target, *context.args])
    name = Path(script).stem if script.endswith(".py") else script.rpartition(".")[2]
    told = {
        "blocks": blocks,
        "output": output,
        "preset": preset,
        "languages_every": languages_every,
        "max_length": max_length,
        "tokenizer": tokenizer,
    }
    settings: dict[str, Any] = {
        "run": str((run or default_run(name)).resolve()),
        "every": every,
        "examples": examples,
        "labels": labels.value,
        "samples": samples,
        "granularity": granularity.value,
        "noise_scale": noise_scale,
        "diagonals": _steps(diagonals),
        "seed": seed,
        "reporters": report or [],
        "factors": {**_factors(factor or []), "script": script},
        "head": head,
        "embeddings": embeddings,
        **{key: value for key, value in told.items() if value is not None},
    }
    if languages:
        settings["languages"] = texts_of_languages(languages, columns, examples, seed)
    _check(settings)
    become([*command, *context.args], settings)


def _check(settings: dict[str, Any]) -> None:
    """A mistake is said before the script begins. Raises `InputError`."""
    from fishlens.tracking.clock import make_clock
    from fishlens.tracking.reporters import check_reporters

    make_clock(settings["every"])
    check_reporters(settings["reporters"])
    for option in ("languages_every", "max_length", "tokenizer"):
        if option in settings and "languages" not in settings:
            raise InputError(f"--{option.replace('_', '-')} is for --languages, which names none")
    usual = {"labels": "auto", "samples": 1, "granularity": "example"}
    if {"output", "preset", "languages"} & settings.keys() or any(
        settings[key] != usual[key] for key in usual
    ):
        _check_estimator(settings)


def _check_estimator(settings: dict[str, Any]) -> None:
    """Loads torch, so only where something was asked for."""
    from fishlens.fisher.labels import check_labels
    from fishlens.fisher.outputs import OUTPUTS
    from fishlens.fisher.probe import PRESETS, check_choices
    from fishlens.tracking.languages import check_targets_labels

    output, preset, labels = settings.get("output", "auto"), settings.get("preset"), settings["labels"]
    if output not in ("auto", *OUTPUTS):
        raise InputError(f"--output {output!r} is unknown; expected auto or one of {', '.join(OUTPUTS)}")
    if preset is not None and preset not in PRESETS:
        raise InputError(f"--preset {preset!r} is unknown; expected one of {', '.join(PRESETS)}")
    check_labels(labels, settings["samples"], settings["seed"])
    check_choices(settings["granularity"], labels)
    check_targets_labels(settings.get("languages", ()), labels, preset)


def _steps(given: str | None) -> list[int]:
    words = [word.strip() for word in given.split(",")] if given is not None else []
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) < 16):
            raise InputError(f"--diagonals is {given!r:.60}; expected steps, as 0,100")
    return [int(word) for word in words]


def _factors(given: list[str]) -> dict[str, str]:
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (name.strip() and equals):
            raise InputError(f"--factor is {one!r:.60}; expected NAME=VALUE, as task=xnli")
        found[name.strip()] = value
    return found


FIELDS = {
    "every": "tracking.every",
    "examples": "tracking.examples",
    "labels": "tracking.labels",
    "samples": "tracking.samples",
    "granularity": "tracking.granularity",
    "preset": "tracking.preset",
    "noise_scale": "tracking.noise_scale",
    "diagonals": "tracking.diagonals",
    "seed": "seed",
    "languages": "tracking.languages",
    "languages_every": "tracking.languages_every",
    "max_length": "train.max_length",
    "report": "report_to",
}
"""What an option of scripts is called in a recipe."""


def _refuse_script_options(context: typer.Context) -> None:
    """A recipe has fields of its own for what these say: ignoring them would measure something else than asked."""
    for option in (*FIELDS, "blocks", "output", "head", "embeddings", "columns", "tokenizer", "factor"):
        source = context.get_parameter_source(option)
        if source is not None and source.name == "COMMANDLINE":
            instead = f": use -s {FIELDS[option]}=…" if option in FIELDS else ""
            raise InputError(f"--{option.replace('_', '-')} is for scripts{instead}")


def _train(
    target: str, arguments: list[str], settings: list[str], run: Path | None, page: bool, trust: bool
) -> None:
    """Train by a recipe; its options may stand after it too."""
    from fishlens.training import load_recipe, train

    if "--trust" in arguments:
        trust, arguments = True, [one for one in arguments if one != "--trust"]
    settings, run, page = _recipe_arguments(arguments, settings, run, page)
    if run is None and Path(target).is_dir():
        run = Path(target)  # a run's folder: go on in it, whatever its recipe is called
    recipe = load_recipe(target, overrides=settings)
    allow_code(recipe.own_code, trust)
    result = train(recipe, run)
    say(f"{result.run_dir}: {result.summary}")
    if result.status == "interrupted":
        raise typer.Exit(130)
    if page and "RANK" not in os.environ:  # under a launcher the processes would all write it
        from fishlens.cli.report import write_page

        write_page(result.run_dir)


def _recipe_arguments(
    arguments: list[str], settings: list[str], run: Path | None, page: bool
) -> tuple[list[str], Path | None, bool]:
    """`-s field=value`, `--run` and `--no-page` after the recipe. Raises `InputError` for anything else."""
    settings, rest = list(settings), list(arguments)
    while rest:
        option, _, value = rest.pop(0).partition("=") if rest[0].startswith("--") else (rest.pop(0), "", "")
        if option.startswith("-s") and len(option) > 2:
            option, value = "-s", option[2:]
        if option in ("--page", "--no-page"):
            page = option == "--page"
            continue
        if option not in ("-s", "--set", "--run"):
            raise InputError(
                f"{option!r} is not an option for a recipe; expected -s field=value, --run directory or --no-page"
            )
        if not value:
            if not rest:
                raise InputError(f"{option} needs a value")
            value = rest.pop(0)
        if option == "--run":
            run = Path(value)
        else:
            settings.append(value)
    return settings, run, page
