"""Everybody's loop: is training the same, bit for bit, and is the first number right?

    python benchmarks/loops.py              the table of docs/tracking.md; loops whose library is missing are left out

Every loop of `examples/` in one process; in two (gloo); and with a model sharded over the two (FSDP2 of its first
layer; for DeepSpeed ZeRO 3). Bits: the final weights, tracked and not. Numbers: the probe of step 0 against
`estimate_fisher` on the initial model. Sharded models have to be refused by name in both processes.
"""

import importlib
import importlib.util
import multiprocessing
import os
import socket
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from fishlens import InputError, Tracker, estimate_fisher, find_blocks, load_runs, watching

EXAMPLES = Path(__file__).parents[1] / "examples"
PROCESSES = 2
SAME, OTHER = "same bits", "**other bits**"
OPTIONS: dict[str, Any] = {"blocks": "module", "output": "classification"}


def example(name: str) -> Any:
    sys.path[:] = [str(EXAMPLES), *(path for path in sys.path if path != str(EXAMPLES))]
    return importlib.import_module(name)


def plain(run: str | None, *, with_tracker: bool = False, several: bool = False) -> nn.Module:
    """The plain loop with `Tracker` or `watching`, in one process or under DDP."""
    loop = example("plain_loop")
    model = loop.make_model()
    trained = DistributedDataParallel(model) if several else model
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-2)
    batches = loop.make_batches()
    tracker = watcher = None
    if run is not None and with_tracker:
        tracker = Tracker(model, batches[0][0], every=4, run=run, **OPTIONS)
    elif run is not None:
        watcher = watching(model, every=4, run=run, examples=16, **OPTIONS).__enter__()
    for step, (x, y) in enumerate(batches):
        if tracker is not None:
            tracker.step(step)
        nn.functional.cross_entropy(trained(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    if tracker is not None:
        tracker.close("finished")
    if watcher is not None:
        watcher.end("finished")
    return model


def with_tracker(run: str | None, several: bool) -> nn.Module:
    return plain(run, with_tracker=True, several=several)


def with_watching(run: str | None, several: bool) -> nn.Module:
    return plain(run, several=several)


def of_example(name: str, *, told: bool = False) -> Callable[[str | None, bool], nn.Module]:
    """`told`: its training is told of how many processes."""

    def train(run: str | None, several: bool) -> nn.Module:
        return example(name).train(run, *([PROCESSES if several else 1] if told else []))

    return train


RAY = "Ray Train, `watching`"
# name -> (library, training)
LOOPS: dict[str, tuple[str, Callable[[str | None, bool], nn.Module]]] = {
    "plain loop, `Tracker`": ("torch", with_tracker),
    "plain loop, `watching`": ("torch", with_watching),
    "accelerate, `FisherTracker`": ("accelerate", of_example("accelerate_loop")),
    "Lightning, `FisherCallback`": ("lightning", of_example("lightning_loop", told=True)),
    "Lightning Fabric, `watching`": ("lightning", of_example("fabric_loop", told=True)),
    RAY: ("ray", of_example("ray_train")),
    "DeepSpeed's engine, `watching`": ("deepspeed", of_example("deepspeed_engine")),
}


def verdict(name: str, several: bool, folder: Path) -> str:
    """Trains twice and compares; in this very process."""
    train = LOOPS[name][1]
    weights = []
    run = folder / name.partition(",")[0].replace(" ", "-").replace("'", "")
    for where in (str(run), None):
        torch.manual_seed(5)
        model = train(where, several)
        _forget_accelerate()
        weights.append([p.detach().clone() for p in model.parameters()])
    same = all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    if os.environ.get("RANK", "0") != "0":
        return SAME if same else OTHER  # the first process has the run
    fisher = load_runs(run).fisher
    loop = example("plain_loop")
    model, first = loop.make_model(), loop.make_batches()[0][0]
    right = estimate_fisher(
        model, first, blocks=find_blocks(model, by="module"), output="classification"
    ).trace
    at_start = fisher[fisher.step == 0]
    found = dict(zip(at_start.block, at_start.trace, strict=True))
    gap = max(abs(found[block] - value) / value for block, value in right.items()) if found else float("inf")
    return f"{SAME if same else OTHER}, {'right' if gap < 1e-5 else f'**{gap:.0e}**'}"


def in_ray(workers: int, folder: Path) -> str:
    """What Ray's workers say; without any the training runs in this process."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    if workers > 1:
        ray.init(address="local", num_cpus=workers, include_dashboard=False)  # not somebody else's cluster
    here, name = str(Path(__file__).parent), RAY

    def in_a_worker(config: dict[str, Any]) -> None:
        sys.path.insert(0, here)
        rank = os.environ.get("RANK", "0")
        answer = importlib.import_module("loops").verdict(name, workers > 1, folder)
        (folder / f"answer-{rank}").write_text(answer)

    TorchTrainer(
        in_a_worker,
        scaling_config=ScalingConfig(num_workers=workers if workers > 1 else 0),
        run_config=RunConfig(storage_path=str(folder / "ray")),
    ).fit()
    return summed_up({number: (folder / f"answer-{number}").read_text() for number in range(workers)})


def _forget_accelerate() -> None:
    """Its state is the process's, and ends with the first training."""
    for state in ("AcceleratorState", "GradientState", "PartialState"):
        getattr(importlib.import_module("accelerate.state"), state)._reset_state()


def sharded(name: str, folder: Path) -> str:
    """What the ways that start from a model say to one that is sharded."""
    model = example("plain_loop").make_model()
    if "DeepSpeed" in name:
        return refused(lambda: watching(zero_3(model), run=folder / "sharded", **OPTIONS))
    fully_shard(model[0], mesh=init_device_mesh("cpu", (PROCESSES,)))
    if "Tracker`" in name and "accelerate" not in name:
        return refused(lambda: Tracker(model, torch.zeros(4, 16), run=folder / "sharded", **OPTIONS))
    if "accelerate" in name:
        tracker = importlib.import_module("fishlens.accelerate").FisherTracker
        return refused(lambda: tracker(model, run=folder / "sharded", **OPTIONS))
    if "FisherCallback" in name:
        callback = importlib.import_module("fishlens.lightning").FisherCallback(
            run=folder / "sharded", **OPTIONS
        )
        return refused(lambda: callback.on_train_start(None, model))
    return refused(lambda: watching(model, run=folder / "sharded", **OPTIONS))


def zero_3(model: nn.Module) -> Any:
    return importlib.import_module("deepspeed").initialize(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-2),
        config={
            "train_micro_batch_size_per_gpu": 8,
            "zero_optimization": {"stage": 3},
            "zero_allow_untested_optimizer": True,
        },
    )[0]


def refused(track: Callable[[], Any]) -> str:
    try:
        track()
    except InputError as error:
        return "refused by name" if "'0.weight' is sharded" in str(error) else f"**{error}**"
    return "**not refused**"


def member(task: str, name: str, rank: int, count: int, port: int, folder: Path, answers: Any) -> None:
    several = {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    os.environ |= several if count > 1 else {}
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        if task == "sharded" or (count > 1 and "plain" in name):
            dist.init_process_group("gloo", rank=rank, world_size=count)
        if task == "ray":
            answer = in_ray(int(name), folder)
        else:
            answer = sharded(name, folder) if task == "sharded" else verdict(name, count > 1, folder)
    except BaseException:
        answer = "**failed**"
        traceback.print_exc()
    answers.put((rank, answer))


def asked(task: str, name: str, count: int) -> str:
    """What `count` fresh processes answer, all of which have to say the same."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        context = multiprocessing.get_context("fork")  # they need not import everything again
        answers = context.Queue()
        members = [
            context.Process(target=member, args=(task, name, rank, count, port, Path(folder), answers))
            for rank in range(count)
        ]
        for process in members:
            process.start()
        try:
            found = dict(answers.get(timeout=600) for _ in members)
        except Exception:
            found = {0: "**no answer in ten minutes**"}
        for process in members:
            process.join(5)
            process.kill()
    return summed_up(found)


def summed_up(found: dict[int, str]) -> str:
    """What the first process says, and what others say that differs."""
    first = found.pop(0, "**no answer**")
    return " / ".join([first, *(answer for answer in dict.fromkeys(found.values()) if answer not in first)])


def main() -> None:
    print("| loop | one process | two processes (DDP) | sharded |\n|---|---|---|---|")
    for name, (library, _) in LOOPS.items():
        if importlib.util.find_spec(library) is None:
            continue
        if name == RAY:  # which starts its processes itself
            trained = [asked("ray", str(workers), 1) for workers in (1, PROCESSES)]
        else:
            trained = [asked("verdict", name, count) for count in (1, PROCESSES)]
        cells = [*trained, asked("sharded", name, PROCESSES)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
