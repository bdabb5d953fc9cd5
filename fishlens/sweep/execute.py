"""One planned run, executed in a process of its own.

It is given the run's folder and the modules that it may import besides fishlens', reads the resolved recipe as one
line of JSON from standard input, and trains. A process of its own, because a run that is killed for memory must not
take the sweep with it, and because torch's threads are set once. Its standard input stays open: when that ends,
whoever started the run is gone, and the run goes too, so that no two processes ever work in one run directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from fishlens.files import open_regular, open_to_append

LOG = "output.log"  # what the run printed, beside its journal
HELD = 75  # exit status of a run that another process is writing (EX_TEMPFAIL: try again later)


@dataclass(frozen=True)
class Outcome:
    """What became of one run. `error` is its last line of output, or None for a run that finished.

    `held`: it was not run, because another process is at it.
    """

    name: str
    seconds: float
    error: str | None
    held: bool = False


# python -m and python -c put the working directory first, where a file of the user's (random.py) would be imported
# instead of a library's
_COMMAND = (
    "import sys; sys.path[:1] = [] if sys.path[:1] == [''] else sys.path[:1]; "
    "from fishlens.sweep.execute import main; main()"
)


def start(
    folder: Path,
    recipe: Mapping[str, Any],
    threads: int,
    trust: Sequence[str] = (),
    cwd: str | None = None,
    gpu: str | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a run's process; its output goes to `output.log` in the run's folder.

    `trust`: modules of one's own that it may import. `cwd`: where relative paths of the recipe begin. `gpu`: the
    only one that it sees (CUDA_VISIBLE_DEVICES); None: as many as its parent.
    Raises `OSError` where the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **{name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}}
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    with open_to_append(folder / LOG) as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, str(folder.resolve()), *trust],
            cwd=cwd if cwd is not None and Path(cwd).is_dir() else None,
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
    if process.returncode == HELD:
        return Outcome(name, seconds, None, held=True)
    reason = _last_line(folder / LOG) or "it printed nothing"
    if process.returncode < 0:
        reason = f"killed by signal {-process.returncode} ({reason})"
    return Outcome(name, seconds, f"{reason} (see {folder / LOG})")


def _last_line(log: Path) -> str:
    """Read from the end: a log may be long."""
    try:
        with open_regular(log) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 64 * 1024))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError as error:
        return f"its log cannot be read: {error.strerror}"
    return lines[-1].strip() if lines else ""


def main() -> None:
    """Trains the recipe on standard input in the folder named on the command line, resuming what is there."""
    from fishlens import own_code
    from fishlens.errors import InputError

    own_code.refuse_all()
    own_code.trust(sys.argv[2:])
    from fishlens.journal import RunHeld
    from fishlens.names import printable
    from fishlens.recipe.loading import load_recipe
    from fishlens.training import train

    folder = Path(sys.argv[1])
    recipe = load_recipe(json.loads(sys.stdin.readline()))
    Thread(target=_end_with_the_sweep, daemon=True).start()
    try:
        result = train(recipe, folder, resume="auto", progress=False)
    except InputError as error:  # one sentence, which the sweep repeats
        sys.stdout.write(printable(error) + "\n")
        sys.exit(HELD if isinstance(error, RunHeld) else 2)
    sys.stdout.write(printable(result.summary) + "\n")
    if result.status != "finished":
        sys.exit(1)


def _end_with_the_sweep() -> None:
    sys.stdin.read()
    os._exit(
        1
    )  # at once, as by kill -9, which a run directory survives: another process may be resuming it already


if __name__ == "__main__":
    main()
