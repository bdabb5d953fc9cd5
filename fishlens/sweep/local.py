"""The local engine: processes on this machine, each with its share of the cores."""

from __future__ import annotations

import os
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fishlens.sweep.execute import Outcome, outcome, start
from fishlens.sweep.gpus import Gpu, least_used
from fishlens.sweep.plan import PlannedRun

POLL = 0.2  # seconds between two looks at the running processes
PATIENCE = 30.0  # seconds that an interrupted run gets to write its last record


@dataclass
class _Running:
    run: PlannedRun
    process: subprocess.Popen[bytes]
    started: float
    gpu: str | None = None


def usable_cores() -> int:
    """Cores this process may run on: a container's share, where the system says so, and no more than SLURM gave."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return _at_most("SLURM_CPUS_PER_TASK", there)


def threads_of_a_run(jobs: int) -> int:
    """Threads of each of so many runs: its share of the cores, and no more than OMP_NUM_THREADS says, where it is set:
    who starts several sweeps beside one another, or has a share of a machine, says so there."""
    return _at_most("OMP_NUM_THREADS", max(1, usable_cores() // jobs))


def _at_most(variable: str, count: int) -> int:
    """`count`, or what the environment's variable says where that is a number, and a smaller one."""
    given = os.environ.get(variable, "")
    return min(count, int(given)) if given.isdecimal() and int(given) > 0 else count


def run_locally(runs: Sequence[PlannedRun], jobs: int, gpus: Sequence[Gpu] = ()) -> Iterator[Outcome]:
    """Runs all of `runs`, `jobs` at a time, and yields each one's outcome as it ends.

    Each run sees one of `gpus`, the one that the fewest others use.

    When the caller is interrupted, the running processes are asked to stop (by SIGTERM: each leaves a resumable run)
    before the interruption is passed on.
    """
    threads = threads_of_a_run(jobs)
    waiting, running = deque(runs), list[_Running]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.popleft()
                try:
                    gpu = least_used(gpus, [one.gpu for one in running])
                    process = start(run.folder, run.recipe, threads, run.trust, gpu=gpu)
                except OSError as error:  # a folder that cannot be made or written: the others go on
                    yield Outcome(run.name, 0.0, f"{error.strerror}: {error.filename}")
                    continue
                running.append(_Running(run, process, time.monotonic(), gpu))
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                yield outcome(one.run.name, one.run.folder, one.process, one.started)
            time.sleep(POLL)
    finally:
        _stop([one.process for one in running])


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
