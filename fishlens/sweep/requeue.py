"""A SLURM job that runs out of time stops its runs and puts itself back into the queue.

SIGUSR1, which `#SBATCH --signal=B:USR1@120` has SLURM send before the end, asks for it. SIGTERM does not: it also comes
from `scancel`, and a cancelled job must not come back. Nor must one in which no run got further: it would come back for
ever.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fishlens.errors import InputError


def furthest(folders: Sequence[Path]) -> dict[Path, tuple[int, bool]]:
    """Of each run directory the step of its newest checkpoint (-1: none), and whether it has results."""
    steps = {f: [p.name.removeprefix("step-") for p in f.glob("checkpoints/step-*")] for f in folders}
    return {
        f: (max((int(s) for s in found if s.isdecimal()), default=-1), (f / "results.json").exists())
        for f, found in steps.items()
    }


@dataclass
class Requeue:
    """The job as `scontrol` names it, the runs' folders, and whether SLURM has said that its time is over."""

    job: str
    folders: Sequence[Path] = ()
    asked: bool = False

    def __post_init__(self) -> None:
        self._before = furthest(self.folders)

    @classmethod
    def of(cls, environment: Mapping[str, str], folders: Sequence[Path] = ()) -> "Requeue":
        """Raises `InputError` outside a SLURM job, or where there is no scontrol."""
        array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
        job = f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID")
        if not job:
            raise InputError("--requeue is for a job of SLURM's, and SLURM_JOB_ID is not set; leave it out")
        if shutil.which("scontrol", path=environment.get("PATH", os.defpath)) is None:
            raise InputError("--requeue calls scontrol, which is not on this node's PATH")
        return cls(job, folders)

    @contextmanager
    def on_signal(self) -> Iterator[None]:
        """Within it SIGUSR1 is remembered, and interrupts as Ctrl-C does."""

        def ask(*_: object) -> None:
            if not self.asked:  # a second one comes too late to mean anything
                self.asked = True
                raise KeyboardInterrupt

        before = signal.signal(signal.SIGUSR1, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGUSR1, before)

    def back(self) -> str | None:
        """Put the job back into the queue; what went wrong, None if nothing did."""
        if self.folders and furthest(self.folders) == self._before:
            return "no run got further in the time that it had (--time, less what --signal takes)"
        done = subprocess.run(["scontrol", "requeue", self.job], capture_output=True, text=True)
        return (
            None
            if done.returncode == 0
            else (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        )
