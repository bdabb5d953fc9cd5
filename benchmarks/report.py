"""How long, how much memory and how large: `fishlens report` on a large made-up study.

    python benchmarks/report.py                          300 runs × 1,000 probes × 13 blocks × 12 languages
    python benchmarks/report.py --runs 12 --probes 50    does it run at all
    python benchmarks/report.py --runs 1000 --probes 50
    python benchmarks/report.py --runs 960 --probes 50 --groups 80

Writes journals into a temporary folder, runs the command in a process of its own and prints seconds, CPU seconds and
peak memory (of that process) and the size of the page. Exits with 1 when a limit is missed: 60 s, 2 GiB, 5 MB.
The curves and scores are drawn from a model (below); no number in the page means anything.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fishlens.journal import JournalWriter

SCHEDULES = ("standard", "gu", "gu-reverse", "lpft", "random", "fun")
SECONDS, GIB, MB = 60, 2.0, 5.0


def write_run(
    folder: Path, schedule: str, seed: int, *, probes: int, blocks: int, languages: int, task: str = "made-up"
) -> None:
    """One run: a block's trace peaks after it is thawed and decays; scores fall with the number of the language."""
    rng = np.random.default_rng([seed, *schedule.encode()])
    names = [f"layer.{i}" for i in range(blocks - 1)] + ["head"]
    layers = blocks - 1
    every, interval = 10, 10 * max(1, probes // (4 * layers))
    place = {
        "gu": np.arange(layers)[::-1],
        "gu-reverse": np.arange(layers),
        "random": rng.permutation(layers),
        "fun": np.argsort(np.argsort(-np.arange(layers) + rng.normal(0, 1.5, layers))),
    }.get(schedule)
    together = 0 if schedule == "standard" else interval
    thawed_at = np.full(layers, together) if place is None else place * interval
    steps = np.arange(probes) * every
    strength = rng.lognormal(0, 0.2, blocks) * np.linspace(0.5, 1.5, blocks)
    since = (steps[:, None] - np.r_[thawed_at, 0]) / (0.1 * steps[-1] + 1)
    traces = strength * (0.05 + np.exp(-((since - 0.7) ** 2))) * rng.lognormal(0, 0.15, (probes, blocks))
    tongues = [f"l{i:02d}" for i in range(languages)]
    start = {
        "factors": {"task": task, "model": "none", "adapter": "seq_bn", "source": tongues[0],
                    "schedule": schedule, "seed": seed, "every": every},
        "estimator": {"labels": "exact", "samples": 1, "granularity": "example", "examples": 32, "mode": "eval"},
        "seeds": {"training": seed},
        "device": "cpu",
        "blocks": dict.fromkeys(names, 1000),
    }  # fmt: skip
    with JournalWriter.open(folder / f"{schedule}-{seed}", start) as writer:
        for event, step in enumerate(np.unique(thawed_at)):
            chosen = [name for name, at in zip(names, thawed_at, strict=False) if at == step]
            open_now = [name for name, at in zip(names, thawed_at, strict=False) if at <= step]
            writer.write("unfreeze", int(step), event=event, chosen=chosen, trainable=open_now)
        for i, step in enumerate(steps):
            trace = dict(zip(names, traces[i].tolist(), strict=True))
            writer.write(
                "fisher", int(step), trace=trace, stderr={n: v / 8 for n, v in trace.items()},
                trainable={n: bool(k == layers or thawed_at[k] <= step) for k, n in enumerate(names)},
                effective_dimension=dict.fromkeys(names, 100.0), noise_scale=dict.fromkeys(names, 10.0),
                weight_norm=dict.fromkeys(names, 1.0), examples=32, seconds=0.1, overhead=0.01, purpose="track",
            )  # fmt: skip
            loss = 0.3 + np.exp(-step / (0.2 * steps[-1] + 1)) + 0.01 * rng.standard_normal()
            writer.write(
                "train", int(step), loss=loss, learning_rate=1e-4, gradient_norm=1 + traces[i].sum() ** 0.5
            )
            if i % 20 == 0:
                writer.write(
                    "eval", int(step), split="validation", language=tongues[0], metric="accuracy", headline=True,
                    value=85 - 45 * np.exp(-i / (0.2 * probes)) + rng.standard_normal(), best=False, examples=500,
                )  # fmt: skip
        effect = rng.standard_normal()
        for k, tongue in enumerate(tongues):
            value = 82 - 3 * k + effect + rng.standard_normal()
            writer.write(
                "eval", int(steps[-1]), split="test", language=tongue, metric="accuracy", headline=True, value=value,
                best=False, examples=1000,
            )  # fmt: skip
        writer.close("finished", step=int(steps[-1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--probes", type=int, default=1000)
    parser.add_argument("--blocks", type=int, default=13)
    parser.add_argument("--languages", type=int, default=12)
    parser.add_argument(
        "--groups", type=int, default=1, help="tasks that the runs are spread over (default 1)"
    )
    parser.add_argument("--keep", type=Path, help="write the journals and the page here, and leave them")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = wanted.keep or Path(temporary)
        began = time.perf_counter()
        for number in range(wanted.runs):
            task, place = number % wanted.groups, number // wanted.groups
            write_run(
                folder / "runs" / f"task-{task}",
                SCHEDULES[place % len(SCHEDULES)],
                place // len(SCHEDULES),
                task=f"made-up-{task}",
                probes=wanted.probes,
                blocks=wanted.blocks,
                languages=wanted.languages,
            )
        print(f"wrote {wanted.runs} journals in {time.perf_counter() - began:.0f} s")
        page = folder / "report.html"
        command = [sys.executable, "-c", "from fishlens.cli import main; main()"]
        began = time.perf_counter()
        subprocess.run(
            [
                *command,
                "report",
                str(folder / "runs"),
                "-o",
                str(page),
                *(["--group"] if wanted.groups > 1 else []),
            ],
            check=True,
        )
        seconds = time.perf_counter() - began
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        gib, cpu = usage.ru_maxrss / 2**20, usage.ru_utime + usage.ru_stime
        megabytes = page.stat().st_size / 1e6
    print(
        f"{wanted.runs} runs × {wanted.probes} probes × {wanted.blocks} blocks × {wanted.languages} languages: "
        f"{seconds:.1f} s (limit {SECONDS}), CPU {cpu:.1f} s, {gib:.2f} GiB (limit {GIB}), "
        f"page {megabytes:.2f} MB (limit {MB})"
    )
    return int(seconds > SECONDS or gib > GIB or megabytes > MB)


if __name__ == "__main__":
    sys.exit(main())
