"""Tracking a loop of accelerate's: one of its trackers.

accelerator = Accelerator(log_with=FisherTracker(model, every=50, run="runs/mine"))
accelerator.init_trackers("mine", config={"lr": 1e-3})
...                                                        # the loop as it is
accelerator.end_training()
"""

import atexit
import weakref
from typing import Any

from accelerate.tracking import GeneralTracker
from torch import nn

from fishlens.tracking.bare_loop import watching
from fishlens.tracking.guard import shielded


class FisherTracker(GeneralTracker):
    """`watching` from `init_trackers` to `end_training`: an update is a step of an optimizer, and what the model is fed
    is measured.

    model: as it was before `prepare`, or after. options: as `watching` takes them. What `accelerator.log` is given as
    `loss` or `train_loss` goes to the journal.
    """

    name = "fishlens"
    requires_logging_directory = False
    main_process_only = (
        False  # a model that cannot be measured is refused in every process, or the others wait
    )

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__()
        self.watching = watching(model, **options)
        self._begun = False

    @property
    def tracker(self) -> watching:
        return self.watching

    def start(self) -> None:
        if not self._begun:
            self._begun = True
            self.watching.__enter__()
            atexit.register(shielded, _end_at_exit, weakref.ref(self))

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.start()
        self.watching.add_factors(values)

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self.start()
        loss = values.get("loss", values.get("train_loss"))
        if loss is not None:
            self.watching.write("train", self.watching.updates, loss=float(loss))

    def finish(self) -> None:
        self.watching.end("finished")


def _end_at_exit(tracker: "weakref.ref[FisherTracker]") -> None:
    """A program that ends without `end_training`."""
    if (left := tracker()) is not None:
        left.watching.end("interrupted")
