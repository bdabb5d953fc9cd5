"""DeepSpeed's engine (ZeRO 0 to 2), tracked.

    python examples/deepspeed_engine.py runs/deepspeed
    deepspeed examples/deepspeed_engine.py runs/deepspeed

Needs `pip install deepspeed`. ZeRO 3 shards the parameters, and is refused by name.
"""

import os
import sys
from contextlib import nullcontext

import deepspeed
import torch
from plain_loop import make_batches, make_model
from torch import nn

import fishlens


def train(run: str | None) -> nn.Module:
    alone = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "29511",
    }
    for name, value in alone.items():
        os.environ.setdefault(name, value)
    deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo")
    model = make_model()
    engine, _, _, _ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-2),
        config={"train_micro_batch_size_per_gpu": 8, "gradient_accumulation_steps": 1},
    )
    tracking = nullcontext()
    if run is not None:
        tracking = fishlens.watching(
            engine, every=4, run=run, blocks="module", examples=16, output="classification"
        )
    with tracking:
        for x, y in make_batches():
            x, y = x.to(engine.device), y.to(engine.device)
            engine.backward(nn.functional.cross_entropy(engine(x), y))
            engine.step()
    return model


if __name__ == "__main__":
    train(next((word for word in sys.argv[1:] if not word.startswith("-")), "runs/deepspeed"))
