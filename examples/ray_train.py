"""A loop that Ray Train runs in every worker, tracked by the first of them.

    python examples/ray_train.py runs/ray

Needs `pip install 'ray[train]'`. Workers run in folders of their own, so that the run's directory is given in full.
"""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import ray.train
import torch
from plain_loop import make_batches, make_model
from ray.train.torch import TorchTrainer, prepare_model
from torch import nn

import fishlens


def train(run: str | None) -> nn.Module:
    """What every worker does; several of them share the batches."""
    place = ray.train.get_context()
    rank, workers = place.get_world_rank(), place.get_world_size()
    model = make_model()
    prepared = prepare_model(model)
    optimizer = torch.optim.AdamW(prepared.parameters(), lr=1e-2)
    tracking = nullcontext()
    if run is not None:
        tracking = fishlens.watching(
            prepared, every=4, run=run, blocks="module", examples=16, output="classification"
        )
    with tracking:
        for x, y in make_batches()[rank::workers]:
            loss = nn.functional.cross_entropy(prepared(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    ray.train.report({"loss": loss.item()})
    return model


def in_a_worker(config: dict[str, Any]) -> None:
    train(config["run"])


if __name__ == "__main__":
    where = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/ray").resolve()
    TorchTrainer(
        in_a_worker,
        train_loop_config={"run": str(where)},
        scaling_config=ray.train.ScalingConfig(num_workers=2),
        run_config=ray.train.RunConfig(storage_path=str(where.parent / "ray-results")),
    ).fit()
