"""Two processes (gloo) decide alike, have the same weights after late thaws, and do what one process would do."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from fishlens.journal import read_run
from fishlens.training.batches import parts
from fishlens.training.checkpoint import list_checkpoints
from fishlens.training.run import train

WORKER = """
import sys, torch
torch.set_num_threads(1)
from safetensors.torch import save_file
from fishlens.training import run
place, rank = sys.argv[1], sys.argv[2]
kept = {}
real = run.fit
def fit(job, journal, **given):
    done = real(job, journal, **given)
    save_file({n: p.detach().contiguous() for n, p in job.assembly.parameters().items()}, f"{place}/rank-{rank}.safetensors")
    return done
run.fit = fit
print(run.train(f"{place}/recipe.yaml", f"{place}/run").status)
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run_in_two_processes(place):
    port = str(free_port())
    processes = []
    for rank in ("0", "1"):
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true",
        }  # fmt: skip
        command = [sys.executable, "-c", WORKER, str(place), rank]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, errors = process.communicate(timeout=1800)
        assert process.returncode == 0, errors[-3000:]


@pytest.fixture
def settings(recipe, encoder_without_dropout):
    """Batches of 15 of 40 rows: shares of 8 and 7, and an epoch ends in a batch of 10. Thaws at 0, 2, 4, 6."""
    return {
        **recipe,
        "model": str(encoder_without_dropout),
        "train": {"steps": 8, "batch_size": 15, "accumulate": 2, "learning_rate": 1e-2, "log_every": 4},
        "schedule": {"name": "fun", "every": 2, "first": "select"},
        "evaluate": {"every": 8},
    }


def test_two_processes_are_one_run(settings, tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    run_in_two_processes(tmp_path)
    one, other = (load_file(tmp_path / f"rank-{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert sorted(p.name for p in (tmp_path / "run").glob("journal-*")) == ["journal-1.jsonl"]

    train(settings, tmp_path / "alone")
    last = list_checkpoints(tmp_path / "alone" / "checkpoints")[8]
    alone = load_file(last / "weights.safetensors")
    assert one.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(one[name], value, rtol=1e-3, atol=2e-5, msg=name)

    def events(place):
        return [(r["step"], r["chosen"]) for r in read_run(place).records if r["kind"] == "unfreeze"]

    assert events(tmp_path / "run") == events(tmp_path / "alone")
    assert len({block for _, chosen in events(tmp_path / "run") for block in chosen}) == 4
    results = [json.loads((tmp_path / n / "results.json").read_text()) for n in ("run", "alone")]
    assert results[0]["test"] == results[1]["test"]
    losses = [
        [r["loss"] for r in read_run(tmp_path / n).records if r["kind"] == "train"] for n in ("run", "alone")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("size", [1, 2, 7, 16])
@pytest.mark.parametrize(("accumulate", "processes"), [(1, 1), (3, 1), (1, 2), (4, 3)])
def test_the_shares_of_all_processes_are_the_batch(size, accumulate, processes):
    batch = list(range(100, 100 + size))
    shares = [parts(batch, accumulate, processes, rank) for rank in range(processes)]
    assert [row for share in shares for part in share for row in part] == batch
    assert all(len(share) <= accumulate and all(share) for share in shares)
