"""How many examples does a ranking of the blocks need, and what does it cost: ours against the published procedure.

    python benchmarks/ranking.py runs/study/topic-fun-seed0 runs/study/xnli-fun-seed0 -o ranking.csv

Reads the checkpoints of finished runs of the schedule `fun` that were written at its events (recipe: `checkpoint.every`
= `schedule.every`, `checkpoint.keep` large) and measures the same weights twice, on the same pool of training rows:

- ours: per-example traces with the run's labels (`exact` or `mc`), each example once;
- published: argmax labels, the squared gradient of the batch mean over the batch size, on batches of the training size
  that cut a shuffled pool, three times anew; one estimate is the sum over 41 of them, as in the published code, or over
  half of a small pool.

Reliability is the mean Kendall τ between the rankings of two estimates that share no example, over 300 pairs of draws;
`same choice` is how often both name the same largest frozen block, the one that `fun` would thaw. The cost is the
measured time per example and per batch: medians, both at every checkpoint in turn, in one process. `examples needed` is
the smallest n at which ours is as reliable as the published procedure; `cost ratio` is published over ours at that n.
Agreement of the two estimators themselves is taken from all that was measured of each.
"""

import argparse
import random
import statistics
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import kendalltau

from fishlens import estimate_fisher
from fishlens.journal import read_run
from fishlens.recipe.loading import load_recipe
from fishlens.training.checkpoint import list_checkpoints, read_weights
from fishlens.training.model import assemble
from fishlens.training.preparation import load_split, prepare_task

BATCHES = 41
CUTS = 3  # of the pool into batches of the published procedure
PAIRS = 300  # of draws
ROWS = 16  # of one of our batches
SIZES = (4, 8, 16, 32, 64, 128, 256, 512)


class Bench:
    """One run's model, and the pool of training rows that everything is measured on."""

    def __init__(self, run: Path, pool: int):
        self.run = run
        self.recipe = load_recipe(run / "recipe.yaml")
        self.task = prepare_task(self.recipe)
        self.assembly = assemble(self.recipe, self.task)
        self.assembly.activate_language(self.recipe.data.source)
        split = load_split(self.recipe, self.task, "train", self.recipe.data.source)
        length = self.recipe.train.max_length
        rows = self.task.encode(split, self.assembly.tokenizer, max_length=length, train=True)
        self.rows = random.Random(0).sample(rows, min(pool, len(rows)))
        self.blocks = [block for block in self.assembly.blocks if block.name != "head"]
        self.names = [block.name for block in self.blocks]
        self.batch_size = self.recipe.train.batch_size

    def collate(self, rows):
        return self.task.collate(rows, self.assembly.tokenizer)

    def ours(self) -> tuple[np.ndarray, list[float]]:
        """Per-example traces `[blocks, examples]`, and the seconds that each batch took per example."""
        labels, parts, seconds = self.recipe.tracking.labels, [], []
        for start in range(0, len(self.rows), ROWS):
            batch = self.collate(self.rows[start : start + ROWS])
            began = time.perf_counter()
            found = estimate_fisher(
                self.assembly.model, batch, blocks=self.blocks, labels=labels, output=self.task.output,
                first_example=start,
            )  # fmt: skip
            seconds.append((time.perf_counter() - began) / min(ROWS, len(self.rows) - start))
            parts.append(torch.stack([found.per_example[name] for name in self.names]).numpy())
        return np.concatenate(parts, axis=1), seconds

    def published(self) -> tuple[list[np.ndarray], list[float]]:
        """The published quantity `[blocks, batches]` of each cut of the pool, and the seconds of each batch."""
        draw, cuts, seconds = random.Random(1), [], []
        for _ in range(CUTS):
            rows, parts = draw.sample(self.rows, len(self.rows)), []
            for start in range(0, len(rows) - self.batch_size + 1, self.batch_size):
                batch = self.collate(rows[start : start + self.batch_size])
                began = time.perf_counter()
                found = estimate_fisher(
                    self.assembly.model, batch, blocks=self.blocks, labels="mode", granularity="batch",
                    output=self.task.output,
                )  # fmt: skip
                seconds.append(time.perf_counter() - began)
                parts.append(torch.stack([found.per_example[name] for name in self.names]).numpy())
            cuts.append(np.concatenate(parts, axis=1))
        return cuts, seconds


def reliability(cuts: list[np.ndarray], n: int, frozen: list[int]) -> tuple[float, float]:
    """(mean Kendall τ, share of the same largest frozen block) between estimates from disjoint draws of n columns."""
    generator = np.random.default_rng(0)
    taus, same = [], []
    for values in cuts:
        for _ in range(PAIRS // len(cuts)):
            order = generator.permutation(values.shape[1])
            one, other = values[:, order[:n]].mean(1), values[:, order[n : 2 * n]].mean(1)
            taus.append(kendalltau(one, other).statistic)
            same.append(one[frozen].argmax() == other[frozen].argmax())
    return float(np.mean(taus)), float(np.mean(same))


def measure(bench: Bench, step: int, frozen: list[int]) -> dict:
    ours, per_example = bench.ours()
    published, per_batch = bench.published()
    batches = min(BATCHES, published[0].shape[1] // 2)
    one, other = ours.mean(1), np.concatenate(published, axis=1).mean(1)
    target, target_same = reliability(published, batches, frozen)
    row = {
        "run": bench.run.name,
        "step": step,
        "frozen": len(frozen),
        "pool": len(bench.rows),
        "batch": bench.batch_size,
        "batches": batches,
        "labels": bench.recipe.tracking.labels,
        "agreement τ": kendalltau(one, other).statistic,
        "same choice": bool(one[frozen].argmax() == other[frozen].argmax()),
        "published τ": target,
        "published same choice": target_same,
    }
    needed = None
    for n in SIZES:
        if 2 * n > ours.shape[1]:
            break
        row[f"ours τ, n={n}"], row[f"ours same choice, n={n}"] = reliability([ours], n, frozen)
        if needed is None and row[f"ours τ, n={n}"] >= target:
            needed = n
    seconds, batch_seconds = statistics.median(per_example), statistics.median(per_batch)
    return row | {
        "seconds per example, ours": seconds,
        "seconds per batch, published": batch_seconds,
        "examples needed": needed,
        "cost ratio": None if needed is None else batches * batch_seconds / (needed * seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("ranking.csv"))
    parser.add_argument("--pool", type=int, default=1312, help="training rows that everything is drawn from")
    options = parser.parse_args()
    rows = []
    for run in options.runs:
        bench = Bench(run, options.pool)
        checkpoints = list_checkpoints(run / "checkpoints")
        thawed: set[str] = set()
        for event in (r for r in read_run(run).records if r["kind"] == "unfreeze"):
            frozen = [i for i, name in enumerate(bench.names) if name not in thawed]
            thawed |= set(event["chosen"])
            if event["step"] not in checkpoints or len(frozen) < 2:
                continue
            bench.assembly.set_weights(read_weights(checkpoints[event["step"]]))
            rows.append(measure(bench, event["step"], frozen))
            print({k: rows[-1][k] for k in ("run", "step", "agreement τ", "same choice", "examples needed")})
            pd.DataFrame(rows).round(6).to_csv(options.output, index=False)


if __name__ == "__main__":
    main()
