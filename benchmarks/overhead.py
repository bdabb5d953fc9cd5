"""What a probe costs where launching operations costs more than the arithmetic: 12 layers of width 64, N = 4, T = 16.

    python benchmarks/overhead.py                    the table of docs/benchmarks.md
    python benchmarks/overhead.py --profile seq_bn   which operations a probe dispatches, and how often

Counted: operations that torch dispatches (views apart, which start no kernel), moments at which the host waits for a
result of the device, and new storages. These are the same on every machine, whatever else runs there. Times are medians
of ratios within one process (CPU time of one thread), and only as good as the machine is calm. `plain` is a forward and
backward pass that trains what the probe measures. Every probe has a kept `Plan`, and the first is not counted.
"""

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from fisher import Shape, build
from fisher_contenders import Setup
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification
from transformers.utils import logging

from fishlens import Tracker, estimate_fisher, find_blocks
from fishlens.fisher import Plan

TINY = {"layers": 12, "width": 64, "examples": 4, "tokens": 16, "device": "cpu"}
TRAINED = ("seq_bn", "lora", "full", "decoder")
WAITING_OPERATIONS = frozenset(
    (
        "_local_scalar_dense", "equal", "nonzero", "masked_select", "unique_dim", "_unique2", "unique_consecutive",
        "bincount",
    )
)  # fmt: skip
WAITING_METHODS = frozenset(("tolist", "cpu"))
NO_KERNEL = frozenset(("_unsafe_view",))


@dataclass
class Counts:
    """What was dispatched: operations by name, waits by name, and the number and bytes of new storages."""

    operations: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    storages: int = 0
    bytes: int = 0


class Operations(TorchDispatchMode):
    """Counts operations, new storages, and those operations whose result the host needs."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        if func.is_view or name in NO_KERNEL:
            return result
        self.counts.operations[name] += 1
        if name in WAITING_OPERATIONS:
            self.counts.waits[name] += 1
        given = {
            t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)
        }
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in given:
                self.counts.storages += 1
                self.counts.bytes += tensor.untyped_storage().nbytes()
        return result


class Transfers(TorchFunctionMode):
    """Counts transfers to the host, which on the CPU are no operations."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        # a scalar's tolist is its item(), which is counted where it is dispatched
        if name in WAITING_METHODS and (name != "tolist" or args[0].dim()):
            self.counts.waits[name] += 1
        return func(*args, **(kwargs or {}))


def counted(call: Callable[[], object]) -> Counts:
    """What one call dispatches, after a first one that is not counted."""
    call()
    counts = Counts()
    with Transfers(counts), Operations(counts):
        call()
    return counts


def tiny(trained: str, **changes: Any) -> Setup:
    """The model, its blocks and one batch; `full`: all weights train and the layers are measured; `decoder`: Qwen3's
    with LoRA (peft) on every linear map, and its norms and head."""
    shape = TINY | changes
    if trained == "decoder":
        return decoder(**shape)
    if trained != "full":
        return build(Shape(trained, **shape))
    batch = build(Shape("seq_bn", **shape)).batch
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=1000,
        hidden_size=shape["width"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=max(1, shape["width"] // 64),
        intermediate_size=4 * shape["width"],
        max_position_embeddings=shape["tokens"] + 2,
        num_labels=3,
    )
    model = XLMRobertaForSequenceClassification(config).eval().to(shape["device"])
    return Setup(model, batch, find_blocks(model, head=False))


def decoder(layers: int, width: int, examples: int, tokens: int, device: str) -> Setup:
    import peft
    from transformers import Qwen3Config, Qwen3ForSequenceClassification

    torch.manual_seed(0)
    heads = max(1, width // 64)
    config = Qwen3Config(
        vocab_size=1000,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=64,
        pad_token_id=0,
        num_labels=3,
    )
    maps = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    options = peft.LoraConfig(task_type="SEQ_CLS", r=8, target_modules=maps, init_lora_weights=False)
    model = peft.get_peft_model(Qwen3ForSequenceClassification(config), options).eval().to(device)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad or "norm" in name)
    places = {p: b.name for b in find_blocks(model, by="layer") for p in b.parameters.values()}
    places |= {p: b.name for b in find_blocks(model) for p in b.parameters.values()}
    blocks = find_blocks(model, by=lambda _, p: places.get(p) if p.requires_grad else None)
    ids = torch.randint(1, 1000, (examples, tokens), device=device)
    batch = {"input_ids": ids, "labels": torch.randint(0, 3, (examples,), device=device)}
    return Setup(model, batch, blocks)


def plain(setup: Setup) -> None:
    setup.loss(setup.model, "mean").backward()
    setup.model.zero_grad(set_to_none=True)


@contextmanager
def calls(setup: Setup) -> Iterator[dict[str, Callable[[], object]]]:
    """Everything that is measured, by its name in the table."""
    plan = Plan()

    def probe(**options: Any) -> Callable[[], object]:
        return lambda: estimate_fisher(setup.model, setup.batch, blocks=setup.blocks, plan=plan, **options)

    steps = iter(range(1, 10**6))
    watched, idle = (
        Tracker(setup.model, setup.batch, blocks=setup.blocks, labels="mc", every=every)
        for every in (1, 10**9)
    )

    def step(tracker: Tracker) -> Callable[[], object]:
        return lambda: tracker.step(next(steps))

    step(idle)()  # the first step is always probed
    yield {
        "plain": lambda: plain(setup),
        "mc, trace": probe(labels="mc"),
        "mc, trace + diagonal": probe(labels="mc", diagonal=True),
        "exact (3 classes), trace + diagonal": probe(labels="exact", diagonal=True),
        "Tracker step with a probe (mc)": step(watched),
        "Tracker step without one": step(idle),
    }


def ratios(named: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median over the rounds of every call's time over `plain`'s of the same round: CPU time of this thread, which
    other programs only disturb through caches and memory; with a GPU the clock's."""
    clock = time.perf_counter if torch.cuda.is_initialized() else time.thread_time
    taken: dict[str, list[float]] = {name: [] for name in named}
    for _ in range(rounds):
        for name, call in named.items():
            start = clock()
            call()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            taken[name].append(clock() - start)
    return {
        name: statistics.median(one / plain for one, plain in zip(values, taken["plain"], strict=True))
        for name, values in taken.items()
    }


def table(rounds: int, device: str) -> None:
    columns = ("operations", "× plain", "waits", "new storages", "time × plain")
    for trained in TRAINED:
        print(f"\n| {trained} | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
        with calls(tiny(trained, device=device)) as named:
            counts = {name: counted(call) for name, call in named.items()}
            times = ratios(named, rounds) if rounds else {}
        base = counts["plain"].operations.total()
        for name, found in counts.items():
            total = found.operations.total()
            ratio = f"{times[name]:.2f}" if times else ""
            print(
                f"| {name} | {total} | {total / base:.2f} | {found.waits.total()} | {found.storages} | {ratio} |"
            )


def profile(trained: str) -> None:
    with calls(tiny(trained)) as named:
        counts = {name: counted(call) for name, call in named.items()}
    for name, found in counts.items():
        print(f"\n{name}: {found.operations.total()} operations, waits {dict(found.waits)}")
        more = found.operations - counts["plain"].operations
        print("  more than plain:", dict(more.most_common(40)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21, help="of timing; 0: counts alone")
    parser.add_argument("--profile", choices=TRAINED)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    chosen = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}")
    if chosen.profile:
        profile(chosen.profile)
    else:
        table(chosen.rounds, chosen.device)


if __name__ == "__main__":
    main()
