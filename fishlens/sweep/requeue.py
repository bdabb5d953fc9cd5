"""A SLURM job that runs out of time stops its runs and puts itself back into the queue.

SIGUSR1, which `#SBATCH --signal=B:USR1@120` has SLURM send before the end, asks for it. SIGTERM does not: it also comes
from `scancel`, and a cancelled job must not come back.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from fishlens.errors import InputError


@dataclass
class Requeue:
    """The job as `scontrol` names it, and whether SLURM has said that its time is over."""

    job: str
    asked: bool = False

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Requeue":
        """Raises `InputError` outside a SLURM job, or where there is no scontrol."""
        array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
        job = f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID")
        if not job:
            raise InputError("--requeue is for a job of SLURM's, and SLURM_JOB_ID is not set; leave it out")
        if shutil.which("scontrol", path=environment.get("PATH", os.defpath)) is None:
            raise InputError("--requeue calls scontrol, which is not on this node's PATH")
        return cls(job)

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
        done = subprocess.run(["scontrol", "requeue", self.job], capture_output=True, text=True)
        return (
            None
            if done.returncode == 0
            else (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        )
