"""A loop of Lightning Fabric's, tracked.

    python examples/fabric_loop.py runs/fabric

Needs `pip install lightning`.
"""

import sys
from contextlib import nullcontext

import torch
from lightning.fabric import Fabric
from plain_loop import make_batches, make_model
from torch import nn

import fishlens


def train(run: str | None, processes: int = 1) -> nn.Module:
    fabric = Fabric(accelerator="cpu", devices=processes)
    fabric.launch()
    model = make_model()
    prepared, optimizer = fabric.setup(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
    tracking = nullcontext()
    if run is not None:
        tracking = fishlens.watching(
            prepared, every=4, run=run, blocks="module", examples=16, output="classification"
        )
    with tracking:
        for x, y in make_batches():
            fabric.backward(nn.functional.cross_entropy(prepared(x), y))
            optimizer.step()
            optimizer.zero_grad()
    return model


if __name__ == "__main__":
    train(sys.argv[1] if len(sys.argv) > 1 else "runs/fabric")
