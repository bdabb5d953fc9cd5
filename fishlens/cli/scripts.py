"""Running somebody else's program: which program runs it, its name, and handing the process over to it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import typer

from fishlens.errors import InputError

LAUNCHERS = ("torch.distributed.run", "torch.distributed.launch", "accelerate.commands.launch")
"""Modules that run another script, whose name counts."""


def command_of(target: str) -> list[str] | None:
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


def script_of(command: list[str]) -> str:
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


def default_run(name: str) -> Path:
    """A name that no other run has: scripts are run again and again."""
    from fishlens.journal import attempts

    stamp = time.strftime("%Y%m%d-%H%M%S")
    place = Path("runs") / f"{name}-{stamp}"
    return place if not attempts(place) else place.with_name(f"{place.name}-{os.getpid()}")


def become(command: list[str], settings: dict[str, object]) -> None:
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
