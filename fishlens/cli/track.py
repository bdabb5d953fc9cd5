"""`fishlens track`: a recipe, or somebody else's training script as it stands."""

import os
import shutil
import signal
import subprocess
import sys
import time
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from fishlens.cli.output import Trust, allow_code, say
from fishlens.errors import InputError


class Labels(str, Enum):
    auto = "auto"
    exact = "exact"
    mc = "mc"
    empirical = "empirical"
    mode = "mode"


# our own options stand before the target; whatever follows it belongs to the script
SETTINGS = {"allow_interspersed_args": False, "ignore_unknown_options": False, "allow_extra_args": True}

LAUNCHERS = ("torch.distributed.run", "torch.distributed.launch", "accelerate.commands.launch")
"""Modules that run another script, whose name counts."""


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
        Path | None, typer.Option(help="Directory of the run [runs/<name of the recipe or script>].")
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
            help="Scripts: blocks by adapter, layer, module or a pattern over parameter names [auto]."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(help="Scripts: what the model predicts, e.g. classification or causal_lm [auto]."),
    ] = None,
    head: Annotated[bool, typer.Option("--head/--no-head", help="Scripts: the head as a block.")] = True,
    embeddings: Annotated[bool, typer.Option(help="Scripts: the embeddings as a block.")] = False,
    report: Annotated[
        list[str] | None,
        typer.Option("--report", help="Scripts: tensorboard, wandb, mlflow or trackio as well."),
    ] = None,
) -> None:
    """Train by a recipe, or run a training script unchanged, and follow the Fisher information of every block.

    A script is run as Python itself would run it, with the arguments that follow it; every transformers Trainer that
    it makes is tracked, also in child processes.
    """
    command = None if module else _command(target)
    if module:
        command = [sys.executable, "-m", target]
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
    from fishlens.tracking.clock import make_clock
    from fishlens.tracking.reporters import check_reporters

    make_clock(every)  # a mistake is said before the script begins
    check_reporters(report or [])
    if output is not None:
        _check_output(output)
    script = _script([*command, *context.args] if module else [target, *context.args])
    name = Path(script).stem if script.endswith(".py") else script.rpartition(".")[2]
    settings = {
        "run": str((run or _default_run(name)).resolve()),
        "every": every,
        "examples": examples,
        "labels": labels.value,
        "reporters": report or [],
        "factors": {"script": script},
        "head": head,
        "embeddings": embeddings,
    }
    settings |= {key: value for key, value in (("blocks", blocks), ("output", output)) if value is not None}
    _run(command + context.args, settings)


def _check_output(output: str) -> None:
    from fishlens.fisher.outputs import OUTPUTS

    if output not in ("auto", *OUTPUTS):
        raise InputError(f"--output {output!r} is unknown; expected auto or one of {', '.join(OUTPUTS)}")


def _script(command: list[str]) -> str:
    """The script or module that a command runs, behind whatever launches it; the command itself if there is none."""
    for number, word in enumerate(command):
        if word.endswith(".py"):
            return word
        if number and word in ("-m", "--module") and number + 1 < len(command):
            following = command[number + 1]
            if following in LAUNCHERS:
                continue
            return command[number + 2] if following == "--" and number + 2 < len(command) else following
    return Path(command[0]).name


def _refuse_script_options(context: typer.Context) -> None:
    """A recipe has fields of its own for what these say: ignoring them would measure something else than asked."""
    fields = {"every": "tracking.every", "examples": "tracking.examples", "labels": "tracking.labels"}
    for option in (*fields, "report", "blocks", "output", "head", "embeddings"):
        source = context.get_parameter_source(option)
        if source is not None and source.name == "COMMANDLINE":
            instead = f": use -s {fields[option]}=…" if option in fields else ""
            raise InputError(f"--{option} is for scripts{instead}")


def _command(target: str) -> list[str] | None:
    """What runs a target that is not a recipe; None for a recipe. Raises `InputError` for neither."""
    if target.endswith(".py"):
        if not Path(target).is_file():
            raise InputError(f"{target} does not exist; expected a Python script")
        return [sys.executable, target]
    from fishlens.recipe.loading import bundled_recipes

    bundled = bundled_recipes()
    if target in bundled or target.endswith((".yaml", ".yml")) or Path(target).is_dir() or "://" in target:
        return None
    program = shutil.which(target)
    if program is not None:
        return [program]
    raise InputError(
        f"{target!r} is nothing to track; expected a bundled recipe ({', '.join(bundled)}), a recipe file (.yaml), a "
        "Python script (.py), a module (-m) or a command"
    )


def _default_run(name: str) -> Path:
    """A name that no other run has: scripts are run again and again."""
    from fishlens.journal import attempts

    stamp = time.strftime("%Y%m%d-%H%M%S")
    place = Path("runs") / f"{name}-{stamp}"
    return place if not attempts(place) else place.with_name(f"{place.name}-{os.getpid()}")


def _run(command: list[str], settings: dict[str, object]) -> None:
    """Become the command, so that arguments, exit status, signals and tracebacks are Python's own; what is not Python
    (a shell, or anything on Windows) runs as a child, because somebody has to say at the end what was tracked."""
    from fishlens.tracking.attach import account_of, end, environment
    from fishlens.tracking.guard import shielded

    sys.stdout.flush()
    if os.name == "posix" and _is_python(command[0]):
        os.execve(command[0], command, environment(settings))
    variables = environment(settings, process=-1)
    with subprocess.Popen(command, env=variables) as child:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the child's, which gets it too
        signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(number))
        status = child.wait()
    shielded(end, account_of(variables))
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    raise typer.Exit(status)


def _is_python(program: str) -> bool:
    """Is it the interpreter, or a script of its (as launchers are)?"""
    if program == sys.executable:
        return True
    with Path(program).open("rb") as file:
        first = file.readline(200)
    return first.startswith(b"#!") and b"python" in first


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
