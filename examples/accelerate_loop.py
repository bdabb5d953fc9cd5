"""A loop of accelerate's, tracked by one of its trackers.

python examples/accelerate_loop.py runs/accelerate
accelerate launch --cpu --num_processes 2 examples/accelerate_loop.py runs/accelerate
"""

import sys

import torch
from accelerate import Accelerator
from plain_loop import make_batches, make_model
from torch import nn

from fishlens.accelerate import FisherTracker


def train(run: str | None) -> nn.Module:
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    trackers = []
    if run is not None:
        options = {"blocks": "module", "examples": 16, "output": "classification"}
        trackers = [FisherTracker(model, every=4, run=run, **options)]
    accelerator = Accelerator(cpu=True, log_with=trackers)
    x, y = (torch.cat(parts) for parts in zip(*make_batches(), strict=True))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8)
    accelerator.init_trackers("example", config={"seed": 0})
    prepared, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for step, (x, y) in enumerate(loader):
        loss = nn.functional.cross_entropy(prepared(x), y)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        if step % 4 == 0:
            accelerator.log({"loss": loss.item()}, step=step)
    accelerator.end_training()
    return model


if __name__ == "__main__":
    train(sys.argv[1] if len(sys.argv) > 1 else "runs/accelerate")
