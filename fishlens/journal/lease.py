"""Who may write in a run's folder, on one machine or on several that share it.

The journal files are the leases: attempt n belongs to whoever created `journal-<n>.jsonl`, which the file system lets
only one do. Its holder gives a sign of life every `BEAT` seconds, a number in `journal-<n>.alive`. The rule for going
on with a run whose last attempt has no end:

- its process is on this machine: wait for nobody. Alive: refused. Gone: taken over at once.
- its process is elsewhere: look for `PATIENCE` seconds. A sign of life: refused. None: taken over.

Taking over is creating the next journal. A holder that was only asleep finds it, and stops before it writes a
checkpoint again. No clock of two machines is ever compared: only whether a file changed while one of them looked.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fishlens.errors import InputError
from fishlens.files import open_regular, open_to_append
from fishlens.journal.records import is_alive, this_process

BEAT = 10.0  # seconds between two signs of life
PATIENCE = 60.0  # seconds without one, until a run elsewhere counts as dead
_LOOK = 2.0


class RunHeld(InputError):
    """Another process is writing this run, or has just begun to."""


def alive_file(journal: Path) -> Path:
    return journal.with_suffix(".alive")


def next_journal(journal: Path) -> Path:
    """The file that whoever takes the run over creates."""
    attempt = int(journal.stem.rpartition("-")[2])
    return journal.with_name(f"journal-{attempt + 1}.jsonl")


def signs(journal: Path) -> tuple[bytes, int]:
    """What changes while a holder lives: its number, and the length of its journal."""
    try:
        with open_regular(alive_file(journal)) as file:
            number = file.read(64)
    except OSError:
        number = b""
    try:
        return number, journal.stat().st_size
    except OSError:
        return number, -1


class Watch:
    """Is the holder of an attempt without an end alive? Asked as often as one likes; only the time spent counts."""

    def __init__(self, journal: Path, process: dict[str, Any] | None, now: float, signed: bool = True):
        """`signed`: its version gives signs of life; one that never did is not waited for."""
        self._journal, self._process = journal, process
        self._first, self._since = signs(journal), now
        self._signed = signed

    def verdict(self, now: float) -> bool | None:
        """True: it lives. False: it is gone. None: nobody can tell yet."""
        here = is_alive(self._process)
        if here is not None:
            return here
        if next_journal(self._journal).exists() or signs(self._journal) != self._first:
            return True
        if not self._signed:
            return False
        return False if now - self._since >= PATIENCE else None


def wait_until_gone(
    journal: Path,
    process: dict[str, Any] | None,
    signed: bool,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Returns when the attempt's holder is gone. Raises `RunHeld` where it lives."""
    if process == this_process():
        return  # resumed inside the process that was interrupted
    watch = Watch(journal, process, clock(), signed)
    while (lives := watch.verdict(clock())) is None:
        sleep(_LOOK)
    if lives:
        whose = f"process {(process or {}).get('pid')}"
        if is_alive(process) is None:
            whose += f" on {(process or {}).get('host')}"
        raise RunHeld(
            f"{journal.parent} is being written by {whose} ({journal.name}): wait for it, or give this run another name"
        )


class Heartbeat:
    """Signs of life of one attempt, given by a thread of its own until `stop` or the end of the process."""

    def __init__(self, journal: Path):
        self._path = alive_file(journal)
        self._stopped = threading.Event()
        self._pid = os.getpid()
        self.beat(0)
        threading.Thread(target=self._run, name="fishlens-heartbeat", daemon=True).start()

    def _run(self) -> None:
        number = 0
        while not self._stopped.wait(BEAT):
            number += 1
            self.beat(number)

    def beat(self, number: int) -> None:
        """Written and closed, so that other machines see it (close-to-open consistency of NFS)."""
        with (
            contextlib.suppress(OSError),
            open_to_append(self._path) as file,
        ):  # a full disk: its length is a sign too
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), b"%d %d\n" % (self._pid, number))

    def stop(self) -> None:
        self._stopped.set()
        if os.getpid() == self._pid:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
