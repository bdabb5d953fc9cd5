"""The GPUs of this machine that a sweep may use, and how many runs they take at a time.

Asked of `nvidia-smi`, so that the sweep itself loads no torch and holds no memory on a GPU. One small run leaves a
large GPU idle most of the time: on an H200 fourteen runs at a time made 147 updates a second, one alone 25.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST_ON_ONE = 14  # runs that share one GPU: more were not measured
ROOM = 6 * 2**30  # bytes that a run of a base model takes, with room to spare


@dataclass(frozen=True)
class Gpu:
    """`name`: what CUDA_VISIBLE_DEVICES calls it. `free`: bytes of its memory that nobody uses now."""

    name: str
    free: int


def usable_gpus() -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES leaves visible, all of them if it is not set; none without `nvidia-smi`."""
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.free", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return visible(told, os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible(told: str, chosen: str | None) -> list[Gpu]:
    """From the lines `index, uuid, MiB free` of nvidia-smi; `chosen`: CUDA_VISIBLE_DEVICES, in its order."""
    rows = [[cell.strip() for cell in line.split(",")] for line in told.splitlines() if line.count(",") == 2]
    there = {index: int(free) * 2**20 for index, _, free in rows if free.isdecimal()}
    of_uuid = {uuid: index for index, uuid, _ in rows}
    if chosen is None:
        return [Gpu(index, free) for index, free in there.items()]
    found = []
    for word in (word.strip() for word in chosen.split(",")):
        index = (
            word
            if word in there
            else next((i for u, i in of_uuid.items() if word and u.startswith(word)), "")
        )
        if index not in there:
            break  # CUDA itself stops at the first that is not there
        found.append(Gpu(word, there[index]))
    return found


def default_jobs(cores: int, gpus: Sequence[Gpu]) -> int:
    """Runs at a time: one per two cores; with GPUs what their free memory takes, and no more than there are cores."""
    if not gpus:
        return max(1, cores // 2)
    return max(1, min(cores, sum(max(1, min(MOST_ON_ONE, gpu.free // ROOM)) for gpu in gpus)))


def least_used(gpus: Sequence[Gpu], running: Iterable[str | None]) -> str | None:
    """The GPU for one more run: that on which the fewest are running; None where there is none to choose."""
    taken = list(running)
    return min(gpus, key=lambda gpu: taken.count(gpu.name)).name if gpus else None
