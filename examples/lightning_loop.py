"""Lightning, tracked by one callback.

    python examples/lightning_loop.py runs/lightning

Needs `pip install lightning`.
"""

import sys

import lightning.pytorch as pl
import torch
from plain_loop import make_batches, make_model
from torch import nn

from fishlens.lightning import FisherCallback


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = make_model()

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], number: int) -> torch.Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def train(run: str | None, processes: int = 1) -> nn.Module:
    model = Classifier()
    callbacks = []
    if run is not None:  # the part of the module that predicts is called `net`
        options = {"blocks": "module", "examples": 16, "output": "classification"}
        callbacks = [FisherCallback(every=4, model="net", run=run, **options)]
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=processes,
        use_distributed_sampler=False,  # every process trains on all batches
        callbacks=callbacks,
        log_every_n_steps=4,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, torch.utils.data.DataLoader(make_batches(), batch_size=None))
    return model.net


if __name__ == "__main__":
    train(sys.argv[1] if len(sys.argv) > 1 else "runs/lightning")
