"""Several processes that train together: one measures, all unfreeze the same block, and what is thawed is shared."""

import json
import multiprocessing
import os
import socket

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import TrainerCallback

from fishlens import FisherCallback, UnfreezeCallback, load_runs
from fishlens.tracking.processes import from_first

PROCESSES = 2


def together(target, *arguments):
    """`target(rank, *arguments)` in forked processes that know each other; fails if one does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")  # they need not import everything again
    crowd = [
        context.Process(target=_member, args=(rank, port, target, arguments)) for rank in range(PROCESSES)
    ]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join(1800)  # a guard against hanging, on whatever machine
        if one.is_alive():
            one.kill()
            pytest.fail("a process hangs")
    assert [one.exitcode for one in crowd] == [0] * PROCESSES


def _member(rank, port, target, arguments):
    place = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": PROCESSES,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({key: str(value) for key, value in place.items()})
    AcceleratorState._reset_state(True)
    target(rank, *arguments)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _train(rank, make_model, make_trainer, folder):
    trainable = {}

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **_):
            trainable[state.global_step] = sorted(n for n, p in model.named_parameters() if p.requires_grad)

    model = make_model()
    callbacks = [
        FisherCallback(every=4, run=folder / "run", examples=16),
        UnfreezeCallback("fun", every=2),
        Watch(),
    ]
    trainer = make_trainer(model, callbacks)
    assert trainer.args.world_size == PROCESSES
    trainer.train()
    torch.save(model.state_dict(), folder / f"weights-{rank}.pt")
    (folder / f"trainable-{rank}.json").write_text(json.dumps(trainable))


def test_all_processes_thaw_the_same_blocks_and_end_with_the_same_weights(tmp_path, make_model, make_trainer):
    """Each process trains on other rows: a block thawed later that is not synchronised would differ."""
    together(_train, make_model, make_trainer, tmp_path)
    weights = [torch.load(tmp_path / f"weights-{rank}.pt") for rank in range(PROCESSES)]
    start = make_model().state_dict()
    moved = {name for name, value in weights[0].items() if not torch.equal(value, start[name])}
    assert all(any(f"layer.{layer}." in name for name in moved) for layer in range(3))
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    first, second = (
        json.loads((tmp_path / f"trainable-{rank}.json").read_text()) for rank in range(PROCESSES)
    )
    assert first == second and len(first["0"]) < len(first["2"]) < len(first["4"])
    runs = load_runs(tmp_path / "run")
    assert runs.runs.attempts[0] == 1 and len(runs.unfreezing) == 3  # one journal, written by the first


def _share(rank, folder):
    torch.distributed.init_process_group("gloo")
    values = {"a": [0.1 + rank, 1e-300], "b": "ü", "c": None}
    assert from_first(lambda: values, torch.device("cpu")) == {"a": [0.1, 1e-300], "b": "ü", "c": None}

    def fails():
        raise ZeroDivisionError("no")

    with pytest.raises(ZeroDivisionError if rank == 0 else RuntimeError, match="no"):
        from_first(fails, torch.device("cpu"))
    (folder / f"done-{rank}").touch()


def test_what_the_first_process_computes_or_fails_at_reaches_all(tmp_path):
    together(_share, tmp_path)
    assert len(list(tmp_path.glob("done-*"))) == PROCESSES
