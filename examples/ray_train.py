"""Ray Train: every worker runs the loop as it is, and the first one writes the run.

    python examples/ray_train.py runs/ray

Needs `pip install 'ray[train]'`. The run's folder must be one that the first worker can write: an absolute path.
"""

import os
import sys
from pathlib import Path

import ray
import torch
from plain_loop import make_batches, make_model
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model
from torch import nn

import fishlens


def loop(config: dict) -> None:
    model = prepare_model(make_model())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    options = {"blocks": "module", "examples": 16, "output": "classification"}
    with fishlens.watching(model, every=4, run=config["run"], **options):
        for x, y in make_batches():
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    ray.train.report({"loss": loss.item()})


def train(run: str, workers: int = 2) -> None:
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    config = {"run": str(Path(run).resolve())}
    TorchTrainer(loop, train_loop_config=config, scaling_config=ScalingConfig(num_workers=workers)).fit()


if __name__ == "__main__":
    train(sys.argv[1] if len(sys.argv) > 1 else "runs/ray")
