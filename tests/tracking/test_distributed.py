"""Two processes: a model sharded anywhere is refused by both; one that is whole is measured by the first."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from fishlens import FisherCallback, InputError, Tracker, estimate_fisher, load_runs
from fishlens.fisher import find_blocks
from tests.tracking.test_processes import PROCESSES, together


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)))


def _flat(model, mesh):
    model.first = FullyShardedDataParallel(model.first, device_id=torch.device("cpu"))


def _zero_3(model, mesh):
    model.first.weight.ds_id = 0


SHARDED = {
    "FSDP1": _flat,
    "FSDP2": lambda model, mesh: fully_shard(model.first, mesh=mesh),
    "tensor parallel": lambda model, mesh: parallelize_module(model.first, mesh, ColwiseParallel()),
    "ZeRO 3": _zero_3,
}


def _all_ways(rank, folder):
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (PROCESSES,))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    for way, shard in SHARDED.items():
        model = Two()
        shard(model, mesh)
        whole = [b for b in find_blocks(model, by="module") if b.name == "last"]
        assert whole, way
        with pytest.raises(InputError, match=r"'first\..* (sharded|FullyShardedDataParallel)"):
            Tracker(model, x, blocks=whole, run=folder / way)
        assert not (folder / way).exists(), way

    model = Two()
    expected = estimate_fisher(model, x, blocks=find_blocks(model, by="module")).trace
    for given_inner in (True, False):
        model = Two()
        wrapped = DistributedDataParallel(model)
        run = folder / f"ddp-{given_inner}"
        with Tracker(model if given_inner else wrapped, x, blocks="module", run=run) as tracker:
            tracker.step(0)
            wrapped(x).sum().backward()
        dist.barrier()
        table = load_runs(run).fisher
        assert dict(zip(table.block, table.trace, strict=True)) == pytest.approx(expected)
    (folder / f"done-{rank}").touch()


class Shown:
    """What a Trainer's callback sees of it."""

    def __init__(self, rank):
        self.is_world_process_zero, self.global_step, self.max_steps = rank == 0, 0, 4
        self.output_dir, self.seed, self.data_seed, self.bf16, self.fp16 = "out", 0, None, False, False
        self.logging_dir = self.run_name = None


def _trainers_and_early_trackers(rank, folder):
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (PROCESSES,))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    for way, shard in SHARDED.items():
        model, state = Two(), Shown(rank)
        shard(model, mesh)
        with pytest.raises(InputError, match=r"'first\..* (sharded|FullyShardedDataParallel)"):
            FisherCallback(data=x, run=folder / f"trainer {way}").on_train_begin(
                state, state, None, model=model
            )
        quiet = FisherCallback(data=x, run=folder / f"trainer {way}")
        quiet.strict = False  # attached to somebody's script: it goes on
        quiet.on_train_begin(state, state, None, model=model)
        quiet.on_step_begin(state, state, None)
        assert quiet.off and not (folder / f"trainer {way}").exists(), way

        model = Two()
        tracker = Tracker(model, x, blocks="module", run=folder / f"early {way}")
        shard(model, mesh)
        assert tracker.step(0) is None and (
            rank or "sharded" in tracker.trouble or "Sharded" in tracker.trouble
        )
        dist.barrier()

    model = Two()
    expected = estimate_fisher(model, x, blocks=find_blocks(model, by="module")).trace
    run = folder / "early DDP"
    with Tracker(model, x, blocks="module", run=run) as tracker:
        wrapped = DistributedDataParallel(model)
        tracker.step(0)
        wrapped(x).sum().backward()
    dist.barrier()
    table = load_runs(run).fisher
    assert dict(zip(table.block, table.trace, strict=True)) == pytest.approx(expected)
    (folder / f"done-{rank}").touch()


def test_a_sharded_model_is_refused_in_a_trainer_and_after_the_tracker_was_made_and_nobody_waits(tmp_path):
    together(_trainers_and_early_trackers, tmp_path)
    assert len(list(tmp_path.glob("done-*"))) == PROCESSES


def test_sharded_models_are_refused_by_every_process_and_ddp_is_measured_by_the_first(tmp_path):
    together(_all_ways, tmp_path)
    assert len(list(tmp_path.glob("done-*"))) == PROCESSES
