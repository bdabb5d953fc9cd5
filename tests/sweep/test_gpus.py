"""Runs of a sweep share the GPUs of a machine evenly, and how many run at a time follows from their memory."""

import pytest

from fishlens.sweep import local
from fishlens.sweep.execute import Outcome
from fishlens.sweep.gpus import Gpu, default_jobs, least_used, visible
from fishlens.sweep.plan import PlannedRun, Status

TOLD = "0, GPU-aaaa-1, 80000\n1, GPU-bbbb-2, 4000\n2, GPU-cccc-3, [N/A]\n"


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (None, ["0", "1"]),
        ("1", ["1"]),
        ("1,0", ["1", "0"]),
        ("GPU-bbbb", ["GPU-bbbb"]),
        ("", []),
        ("-1", []),
        ("0,7,1", ["0"]),
    ],
)
def test_what_cuda_visible_devices_leaves(chosen, names):
    assert [gpu.name for gpu in visible(TOLD, chosen)] == names


@pytest.mark.parametrize(
    "told", ["", "No devices were found\n", "NVIDIA-SMI has failed, because, of something\n"]
)
def test_a_machine_without_a_gpu(told):
    assert visible(told, None) == [] and least_used([], []) is None


@pytest.mark.parametrize(
    ("cores", "gib", "jobs"),
    [
        (2, [], 1),
        (16, [], 8),
        (16, [80], 13),
        (64, [140], 14),
        (64, [140, 140], 28),
        (4, [140], 4),
        (8, [2, 2], 2),
    ],
)
def test_how_many_run_at_a_time(cores, gib, jobs):
    assert default_jobs(cores, [Gpu(str(n), size * 2**30) for n, size in enumerate(gib)]) == jobs


class Ended:
    returncode = 0

    def poll(self):
        return 0


def test_every_run_sees_one_gpu_and_they_are_spread(monkeypatch, tmp_path):
    seen = []

    def start(folder, recipe, threads, trust, gpu):
        seen.append(gpu)
        return Ended()

    monkeypatch.setattr(local, "start", start)
    monkeypatch.setattr(local, "outcome", lambda name, *rest: Outcome(name, 1.0, None))
    monkeypatch.setattr(local, "_stop", lambda processes: None)
    runs = [PlannedRun(f"r{n}", tmp_path / f"r{n}", {}, Status.NEW) for n in range(4)]
    found = list(local.run_locally(runs, 4, [Gpu("0", 0), Gpu("1", 0)]))
    assert [one.name for one in found] == ["r0", "r1", "r2", "r3"]
    assert seen == ["0", "1", "0", "1"]
