"""One planned run, executed in a process of its own.

`python -m fishlens.sweep.execute RUN_FOLDER` reads the resolved recipe as one line of JSON from standard input
and trains. A process of its own, because a run that is killed for memory must not take the sweep with it, and
because torch's threads are set once a process. Its standard input stays open: when that ends, whoever started
the run is gone, and the run goes too, so that no two processes ever work in one run directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

LOG = "output.log"  # what the run printed, beside its journal


@dataclass(frozen=True)
class Outcome:
    """What became of one run. `error` is its last line of output, or None for a run that finished."""

    name: str
    seconds: float
    error: str | None


def start(folder: Path, recipe: Mapping[str, Any], threads: int) -> subprocess.Popen[bytes]:
    """Starts a run's process; its output goes to `output.log` in the run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **{name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}}
    with (folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fishlens.sweep.execute", str(folder)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the sweep alone, which then ends its runs in order
        )
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(recipe).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it died at once: its exit status and its log say why
    return process


def outcome(name: str, folder: Path, process: subprocess.Popen[bytes], started: float) -> Outcome:
    """The outcome of a process that has ended."""
    seconds = time.monotonic() - started
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    if process.returncode == 0:
        return Outcome(name, seconds, None)
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    reason = lines[-1].strip() if lines else "it printed nothing"
    if process.returncode < 0:
        reason = f"killed by signal {-process.returncode} ({reason})"
    return Outcome(name, seconds, f"{reason} (see {folder / LOG})")


def main() -> None:
    """Trains the recipe on standard input in the folder named on the command line, resuming what is there."""
    import typer

    from fishlens.recipe.loading import load_recipe
    from fishlens.training import train

    folder = Path(sys.argv[1])
    recipe = load_recipe(json.loads(sys.stdin.readline()))
    Thread(target=_end_with_the_sweep, daemon=True).start()
    result = train(recipe, folder, resume="auto", progress=False)
    typer.echo(result.summary)
    if result.status != "finished":
        sys.exit(1)


def _end_with_the_sweep() -> None:
    sys.stdin.read()
    os._exit(
        1
    )  # at once, as by kill -9, which a run directory survives: another process may be resuming it already


if __name__ == "__main__":
    main()
