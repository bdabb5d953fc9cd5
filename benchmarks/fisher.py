"""What the Fisher costs: fishlens and its peers, as ratios to a plain forward and backward pass of the same
batch.

    python benchmarks/fisher.py                                   XLM-R-base shape, seq_bn and LoRA
    adapters, CPU python benchmarks/fisher.py --device cuda python benchmarks/fisher.py --layers 2 --width
    64 --examples 4 --tokens 16 --rounds 1      does it run at all

Peers are optional: `pip install opacus curvlinops-for-pytorch nngeometry`; one that is not installed, or
cannot run the model, stands in the table with the reason. Contenders take turns within every round, in one
process; the table has the medians over the rounds (the first round warms up and does not count). Peak
memory is measured in a process of its own for each contender: what a call adds to the loaded model. Weights
are random and the vocabulary is cut: neither changes what a pass costs. `plain` trains the adapter: its
base is frozen; `plain, all weights` has nothing frozen.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import adapters
import torch
from adapters import AutoAdapterModel
from fisher_contenders import CONTENDERS, Contender, Setup
from transformers import XLMRobertaConfig
from transformers.utils import logging

from fishlens import find_blocks

PACKAGES = (
    "torch",
    "transformers",
    "adapters",
    "backpack-for-pytorch",
    "opacus",
    "curvlinops-for-pytorch",
    "nngeometry",
)


@dataclass(frozen=True)
class Shape:
    """The model and the batch."""

    adapter: str
    layers: int
    width: int
    examples: int
    tokens: int
    device: str


def build(shape: Shape) -> Setup:
    """A classifier with three classes and a task adapter, its blocks and one batch."""
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=1000,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=max(1, shape.width // 64),
        intermediate_size=4 * shape.width,
        max_position_embeddings=shape.tokens + 2,
    )
    model = AutoAdapterModel.from_config(config)
    model.add_adapter(
        "task", config={"seq_bn": adapters.SeqBnConfig(), "lora": adapters.LoRAConfig()}[shape.adapter]
    )
    model.add_classification_head("task", num_labels=3)
    model.train_adapter("task")
    model.eval().to(shape.device)
    blocks = find_blocks(model, head=False)
    with torch.no_grad():  # adapters start where some of their gradients are zero
        for block in blocks:
            for parameter in block.parameters.values():
                parameter.add_(0.02 * torch.randn_like(parameter))
    size = (shape.examples, shape.tokens)
    batch = {
        "input_ids": torch.randint(5, 1000, size),
        "attention_mask": torch.ones(size, dtype=torch.long),
        "labels": torch.randint(3, (shape.examples,)),
    }
    return Setup(model, {key: value.to(shape.device) for key, value in batch.items()}, blocks)


def seconds_of(contender: Contender, setup: Setup, clock: str) -> tuple[float, dict[str, float] | None]:
    """Duration of one call, after its preparation, and the traces it found."""
    with warnings.catch_warnings(), contender.prepare(setup) as call:
        warnings.simplefilter("ignore")
        cuda = next(setup.model.parameters()).is_cuda
        now = time.process_time if clock == "cpu" else time.perf_counter
        if cuda:
            torch.cuda.synchronize()
        start = now()
        traces = call()
        if cuda:
            torch.cuda.synchronize()
        return now() - start, traces


def measure(shape: Shape, names: list[str], rounds: int, clock: str) -> dict[str, dict]:
    """Median seconds, traces, or the reason why there are none, of every contender."""
    setup = build(shape)
    rows: dict[str, dict] = {name: {"seconds": []} for name in names}
    for turn in range(rounds + 1):
        for name in names:
            row, contender = rows[name], CONTENDERS[name]
            if "reason" in row or (contender.slow and turn > 1):
                continue
            if contender.slow and turn == 0:
                continue
            try:
                seconds, traces = seconds_of(contender, setup, clock)
            except Exception as error:  # a peer that cannot run the model belongs in the table
                row["reason"] = (
                    f"{type(error).__name__}: {str(error).strip().splitlines()[0][:90] if str(error) else ''}"
                )
                continue
            row["traces"] = traces
            if turn > 0:
                row["seconds"].append(seconds)
    return rows


def has_memory(name: str, rows: dict[str, dict]) -> bool:
    return "reason" not in rows[name] and not CONTENDERS[name].slow


def peak_of(shape: Shape, name: str) -> float | None:
    """MiB that one call of `name` adds to the loaded model, in a process of its own."""
    command = [sys.executable, __file__, "--peak-of", name, "--shape", json.dumps(asdict(shape))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout.split()[-1]) if done.returncode == 0 and done.stdout.split() else None


def print_peak(shape: Shape, name: str) -> None:
    """The other end of `peak_of`."""
    setup = build(shape)
    cuda = shape.device == "cuda"
    with warnings.catch_warnings(), CONTENDERS[name].prepare(setup) as call:
        warnings.simplefilter("ignore")
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated() / 2**20
        else:
            Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
            before = _status("VmRSS")
        call()
        after = torch.cuda.max_memory_allocated() / 2**20 if cuda else _status("VmHWM")
    print(after - before)


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def table(rows: dict[str, dict], peaks: dict[str, float | None]) -> list[str]:
    """Markdown lines: ratios to the plain pass that each contender stands against."""
    ours = rows["fishlens, empirical, trace"].get("traces") if "fishlens, empirical, trace" in rows else None
    lines = ["| | seconds | × plain | peak MiB | × plain | trace |", "|---|---:|---:|---:|---:|---|"]
    for name, row in rows.items():
        if "reason" in row:
            lines.append(f"| {name} | cannot run: {row['reason']} | | | | |")
            continue
        against = CONTENDERS[name].against
        seconds = statistics.median(row["seconds"])
        ratio = seconds / statistics.median(rows[against]["seconds"])
        peak, base = peaks.get(name), peaks.get(against)
        memory = f"{peak:.0f} | {peak / base:.2f}" if peak is not None and base else " | "
        lines.append(f"| {name} | {seconds:.3f} | {ratio:.2f} | {memory} | {_agreement(row, ours, name)} |")
    return lines


def _agreement(row: dict, ours: dict[str, float] | None, name: str) -> str:
    """Largest relative difference of a block's trace from fishlens' empirical Fisher, where it is the same
    thing."""
    if not CONTENDERS[name].same_quantity or not row.get("traces") or not ours:
        return ""
    worst = max(abs(row["traces"][block] / trace - 1) for block, trace in ours.items())
    return f"agrees to {worst:.0e}" if worst < 1e-3 else f"differs by up to {100 * worst:.0f} %"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter", nargs="+", default=["seq_bn", "lora"], choices=["seq_bn", "lora"])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--threads", type=int, default=None, help="torch threads (default: torch's own choice)"
    )
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"], help="cpu: on a shared machine")
    parser.add_argument(
        "--only", nargs="+", default=None, metavar="TEXT", help="contenders whose name has TEXT"
    )
    parser.add_argument("--no-memory", action="store_true", help="skip the peak memory (one process each)")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.set_verbosity_error()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.peak_of:
        print_peak(Shape(**json.loads(options.shape)), options.peak_of)
        return
    names = [
        name
        for name, contender in CONTENDERS.items()
        if options.only is None or contender.is_baseline or any(text in name for text in options.only)
    ]
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, {options.device}, {options.clock} clock, "
        f"median of {options.rounds} rounds; " + ", ".join(f"{p} {_version(p)}" for p in PACKAGES)
    )
    for adapter in options.adapter:
        shape = Shape(
            adapter, options.layers, options.width, options.examples, options.tokens, options.device
        )
        rows = measure(shape, names, options.rounds, options.clock)
        peaks = {} if options.no_memory else {n: peak_of(shape, n) for n in names if has_memory(n, rows)}
        print(f"\n{adapter}: {shape.layers}×{shape.width}, N={shape.examples}, T={shape.tokens}\n")
        print("\n".join(table(rows, peaks)))


if __name__ == "__main__":
    main()
