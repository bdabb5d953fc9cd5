"""Tracking inside Lightning: one callback.

    Trainer(callbacks=[fishlens.lightning.FisherCallback(every=50, run="runs/mine")])

Works with `lightning` and with `pytorch_lightning`, whichever the script has imported.
"""

import sys
from typing import TYPE_CHECKING, Any

from torch import nn

from fishlens.errors import InputError
from fishlens.tracking.bare_loop import watching

if TYPE_CHECKING or not ("pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules):
    from lightning.pytorch import Callback
else:
    from pytorch_lightning import Callback


class FisherCallback(Callback):
    """`watching` while a Trainer fits: an update is a step of an optimizer, and what the model is fed is measured.

    model: which part of the LightningModule predicts, by its attribute's name ("model", "net.encoder"); default: the
    LightningModule itself, which then has to be called (`self(x)`) in `training_step`. What is left is for `watching`:
    every, run, examples, blocks, labels, output, factors, … The logged `train_loss` or `loss` goes to the journal.

    Raises `InputError` when training begins, in every process, for what cannot be measured; later nothing stops it.
    """

    def __init__(self, every: Any = 50, *, model: str | None = None, **options: Any) -> None:
        self.part, self.options = model, {"every": every, **options}
        self.watching: watching | None = None

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        self.watching = watching(self._predicts(pl_module), **self.options)
        self.watching.__enter__()

    def _predicts(self, pl_module: nn.Module) -> nn.Module:
        if self.part is None:
            return pl_module
        try:
            return pl_module.get_submodule(self.part)
        except AttributeError:
            raise InputError(
                f"{type(pl_module).__name__} has no module {self.part!r}; expected the name of the part that predicts"
            ) from None

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        logged = trainer.logged_metrics
        loss = logged.get("train_loss", logged.get("loss"))
        if (
            self.watching is not None
            and loss is not None
            and trainer.global_step % trainer.log_every_n_steps == 0
        ):
            self.watching.write("train", self.watching.updates, loss=float(loss))

    def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
        self._end("interrupted" if trainer.interrupted else "finished")

    def on_exception(self, trainer: Any, pl_module: nn.Module, exception: BaseException) -> None:
        interrupted = isinstance(exception, KeyboardInterrupt)
        self._end("interrupted" if interrupted else "failed", f"{type(exception).__name__}: {exception}")

    def _end(self, status: str, error: str | None = None) -> None:
        if self.watching is not None:
            self.watching.end(status, error)
