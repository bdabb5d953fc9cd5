"""A training loop of one's own, tracked.

    python examples/plain_loop.py runs/plain

Needs nothing but torch. `train(None)` is the same training, not tracked: its weights are the same bits.
"""

import sys
from contextlib import nullcontext

import torch
from torch import nn

import fishlens


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Dropout(0.1), nn.Linear(32, 3))


def make_batches(steps: int = 12) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(steps * 8, 16, generator=generator)
    return list(zip(x.split(8), x[:, :3].argmax(1).split(8), strict=True))


def train(run: str | None) -> nn.Module:
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    tracking = nullcontext()
    if run is not None:
        tracking = fishlens.watching(
            model, every=4, run=run, blocks="module", examples=16, output="classification"
        )
    with tracking:
        for x, y in make_batches():
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return model


if __name__ == "__main__":
    train(sys.argv[1] if len(sys.argv) > 1 else "runs/plain")
