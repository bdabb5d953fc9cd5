"""The Ray engine: the same runs, over a cluster.

A run is one Ray task that asks for `threads` CPUs and `gpus` GPUs and starts the same process as the local
engine. A node lost in the middle costs the time of its current runs since their last checkpoint: Ray starts the
task again on another node, and training resumes from the run directory. That directory lies on a file system
that all nodes share, or, with `store`, in an object store that it is mirrored to (see `mirror`).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fishlens.errors import InputError
from fishlens.sweep.execute import Outcome, outcome, start
from fishlens.sweep.mirror import Mirror
from fishlens.sweep.plan import PlannedRun

LOST_NODES = 10  # how often a run is started again because its node was lost


def run_on_ray(
    runs: Sequence[PlannedRun],
    *,
    address: str | None,
    threads: int,
    gpus: float = 0.0,
    store: str | None = None,
) -> Iterator[Outcome]:
    """Runs all of `runs` on the cluster at `address` and yields each one's outcome as it ends.

    Args:
        address: of the cluster's head (`auto` for the one this machine belongs to); None starts one on this machine.
        threads: CPUs a run asks for, and torch threads it gets.
        gpus: GPUs a run asks for; fractions share one.
        store: fsspec URL (`s3://bucket/folder`, `file:///mnt/x`) where run directories are kept when the nodes share no
            file system. The finished directories are fetched from there into the study's own folder.

    Raises:
        InputError: Ray is not installed, or no cluster answers at `address`.
    """
    try:
        import ray
    except ImportError:
        raise InputError(
            "the Ray engine needs Ray, which is not installed: pip install 'fishlens[ray]'"
        ) from None
    if not ray.is_initialized():
        try:
            ray.init(
                address=address, log_to_driver=False, include_dashboard=False if address is None else None
            )
        except ConnectionError as error:
            raise InputError(f"no Ray cluster answers at {address!r}: {error}") from None
    task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=LOST_NODES)(_run_on_a_node)
    pending = {}
    for run in runs:
        kept = None if store is None else f"{store.rstrip('/')}/{run.folder.parent.name}/{run.name}"
        given = (
            run.name,
            str(run.folder.resolve()),
            dict(run.recipe),
            threads,
            kept,
            run.trust,
            str(Path.cwd()),
        )
        pending[task.remote(*given)] = (
            run,
            kept,
        )
    try:
        while pending:
            (ready, *_), _ = ray.wait(list(pending), num_returns=1)
            run, kept = pending.pop(ready)
            try:
                ended = ray.get(ready)
            except ray.exceptions.RayError as error:
                ended = Outcome(run.name, 0.0, str(error).strip().splitlines()[-1])
            if kept is not None:
                Mirror(run.folder, kept).fetch()
            yield ended
    finally:
        for reference in pending:
            ray.cancel(reference, force=True)


def _run_on_a_node(
    name: str,
    folder: str,
    recipe: Mapping[str, Any],
    threads: int,
    kept: str | None,
    trust: Sequence[str] = (),
    cwd: str | None = None,
) -> Outcome:
    started = time.monotonic()
    if kept is None:
        process = start(Path(folder), recipe, threads, trust, cwd)
        process.wait()
        return outcome(name, Path(folder), process, started)
    with tempfile.TemporaryDirectory(prefix=f"fishlens-{os.getpid()}-") as scratch:
        mirror = Mirror(Path(scratch) / name, kept)
        mirror.fetch()
        process = start(mirror.local, recipe, threads, trust, cwd)
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(mirror.pause)
            mirror.push()
        return outcome(name, mirror.local, process, started)
