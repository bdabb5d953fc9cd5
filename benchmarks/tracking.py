"""What tracking costs: training with and without it, in turns, in one process.

    python benchmarks/tracking.py                  XLM-R-base shape, seq_bn, batch 32, a probe of 32 every 50 steps
    python benchmarks/tracking.py --tiny           does it run? (numbers mean nothing)
    python benchmarks/tracking.py --every 5 --rounds 3     on a CPU: fewer updates between probes, scaled to 50

A round trains `every` updates twice, once with a tracker that probes at the first of them and once without, in an order
that alternates, so that a machine that slows down slows both. The overhead is the median over rounds of tracked over
untracked time, less 1. A step at which no probe is due costs one call, which is timed alone.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import adapters
import torch
from transformers import XLMRobertaConfig

from fishlens import Tracker

XLM_R_BASE = {
    "vocab_size": 250_002, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "max_position_embeddings": 514,
}  # fmt: skip
TINY = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 140,
}  # fmt: skip


def make_model(shape, classes, device):
    model = adapters.XLMRobertaAdapterModel(XLMRobertaConfig(**shape, pad_token_id=1))
    model.add_adapter("task", config="seq_bn")
    model.add_classification_head("task", num_labels=classes)
    model.train_adapter("task")
    return model.to(device).train()


def make_batch(size, length, vocabulary, classes, generator):
    return {
        "input_ids": torch.randint(3, vocabulary, (size, length), generator=generator),
        "attention_mask": torch.ones(size, length, dtype=torch.long),
        "labels": torch.randint(0, classes, (size,), generator=generator),
    }


class Bench:
    """One model, one optimizer, and time measured with the device's work done."""

    def __init__(self, settings):
        self.settings = settings
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        shape = TINY if settings.tiny else XLM_R_BASE
        generator = torch.Generator().manual_seed(0)
        length = 16 if settings.tiny else settings.length
        self.model = make_model(shape, settings.classes, self.device)
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trainable, lr=1e-4)
        batch = make_batch(settings.batch, length, shape["vocab_size"], settings.classes, generator)
        self.batch = {key: value.to(self.device) for key, value in batch.items()}
        self.probe = make_batch(settings.examples, length, shape["vocab_size"], settings.classes, generator)

    def update(self):
        self.model(**self.batch).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def timed(self, action):
        self.synchronize()
        began = time.perf_counter()
        action()
        self.synchronize()
        return time.perf_counter() - began

    def synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def untracked(self):
        for _ in range(self.settings.every):
            self.update()

    def tracked(self, tracker, first):
        for step in range(first, first + self.settings.every):
            tracker.step(step)
            self.update()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--output", type=Path)
    settings = parser.parse_args()
    bench = Bench(settings)
    with tempfile.TemporaryDirectory() as folder:
        options = {"every": settings.every, "labels": "exact"}
        tracker = Tracker(bench.model, bench.probe, run=Path(folder) / "run", **options)
        bench.untracked()  # warm up both ways
        bench.tracked(tracker, 0)
        ratios, plain = [], []
        for number in range(1, settings.rounds + 1):
            first = number * settings.every
            arms = {"untracked": bench.untracked, "tracked": lambda: bench.tracked(tracker, first)}  # noqa: B023
            order = list(arms) if number % 2 else list(reversed(arms))
            seconds = {name: bench.timed(arms[name]) for name in order}
            ratios.append(seconds["tracked"] / seconds["untracked"] - 1)
            plain.append(seconds["untracked"] / settings.every)
            print(
                f"round {number}: overhead {100 * ratios[-1]:.2f}%, an update takes {1000 * plain[-1]:.1f} ms"
            )
        calls = 10_000
        idle = bench.timed(lambda: [tracker.step(settings.every * 10**6 + 1) for _ in range(calls)]) / calls
        tracker.close()
    overhead, update = statistics.median(ratios), statistics.median(plain)
    result = {
        "device": torch.cuda.get_device_name() if bench.device.type == "cuda" else "cpu",
        "every": settings.every,
        "overhead": overhead,
        "overhead_at_50": overhead * settings.every / 50,
        "rounds": ratios,
        "update_seconds": update,
        "step_without_probe_seconds": idle,
        "step_without_probe_share": idle / update,
        "torch": torch.__version__,
    }
    print(json.dumps(result, indent=1))
    if settings.output:
        settings.output.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
