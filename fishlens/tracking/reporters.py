"""Reporters: the traces in somebody else's dashboard, by one small adapter each.

A reporter must never stop training: whatever its library raises is a warning, once, and the reporter is off.
Libraries are imported when a reporter is made, never before.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fishlens.errors import InputError


class Reporter(ABC):
    """Sends numbers by name; `directory` is the run's, for libraries that write files."""

    library: str
    failed = False

    def __init__(self, directory: Path, run: str, config: dict[str, Any]):
        self._guarded(lambda: self._open(directory, run, config))

    def report(self, step: int, values: dict[str, float]) -> None:
        """Send `{name: value}` of one step."""
        self._guarded(lambda: self._report(step, values))

    def alert(self, title: str, text: str) -> None:
        """Say something at once, where the library has alerts; elsewhere nothing is sent."""
        self._guarded(lambda: self._alert(title, text))

    def close(self) -> None:
        """Finish; nothing is reported afterwards."""
        self._guarded(self._close)
        self.failed = True

    def _guarded(self, action: Any) -> None:
        if self.failed:
            return
        try:
            action()
        except Exception as error:
            self.failed = True
            warnings.warn(f"fishlens: reporting to {self.library} has stopped: {error}", stacklevel=4)

    @abstractmethod
    def _open(self, directory: Path, run: str, config: dict[str, Any]) -> None: ...

    @abstractmethod
    def _report(self, step: int, values: dict[str, float]) -> None: ...

    def _alert(self, title: str, text: str) -> None:
        return

    @abstractmethod
    def _close(self) -> None: ...


class TensorBoard(Reporter):
    """Event files in `<run>/tensorboard`."""

    library = "tensorboard"

    def _open(self, directory: Path, run: str, config: dict[str, Any]) -> None:
        self._writer = import_module("torch.utils.tensorboard").SummaryWriter(str(directory / "tensorboard"))

    def _report(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def _close(self) -> None:
        self._writer.close()


class WandB(Reporter):
    """Weights & Biases: into the run that the training script has begun, or one of our own.

    `WANDB_MODE=offline` keeps it on this machine. W&B wants steps in order; ours is logged as a field of its own.
    """

    library = "wandb"

    def _open(self, directory: Path, run: str, config: dict[str, Any]) -> None:
        wandb = import_module("wandb")
        self._mine = wandb.run is None
        self._run = wandb.run or wandb.init(project="fishlens", name=run, dir=str(directory), config=config)
        self._run.define_metric("fisher/step")
        for name in ("fisher/*", "fisher_sum", "fisher_overhead", "unfreeze/*"):
            self._run.define_metric(name, step_metric="fisher/step")
        if self._mine:  # in somebody else's run their metrics keep their own steps
            self._run.define_metric("*", step_metric="fisher/step")

    def _report(self, step: int, values: dict[str, float]) -> None:
        self._run.log({**values, "fisher/step": step})

    def _alert(self, title: str, text: str) -> None:
        self._run.alert(title=title, text=text)

    def _close(self) -> None:
        if self._mine:
            self._run.finish()


class MLflow(Reporter):
    """MLflow: into the active run, or one of our own in `<run>/mlflow.db` unless a tracking address is set."""

    library = "mlflow"

    def _open(self, directory: Path, run: str, config: dict[str, Any]) -> None:
        self._mlflow = import_module("mlflow")
        self._mine = self._mlflow.active_run() is None
        if self._mine:
            if not self._mlflow.is_tracking_uri_set():
                self._mlflow.set_tracking_uri(f"sqlite:///{directory.resolve() / 'mlflow.db'}")
            self._mlflow.start_run(run_name=run)
            self._mlflow.log_params(config)

    def _report(self, step: int, values: dict[str, float]) -> None:
        self._mlflow.log_metrics(values, step=step)

    def _close(self) -> None:
        if self._mine:
            self._mlflow.end_run()


class Trackio(Reporter):
    """trackio: a local dashboard with W&B's interface."""

    library = "trackio"

    def _open(self, directory: Path, run: str, config: dict[str, Any]) -> None:
        self._trackio = import_module("trackio")
        self._trackio.init(project="fishlens", name=run, config=config)

    def _report(self, step: int, values: dict[str, float]) -> None:
        self._trackio.log(values, step=step)

    def _alert(self, title: str, text: str) -> None:
        if hasattr(self._trackio, "alert"):  # later versions have it
            self._trackio.alert(title=title, text=text)

    def _close(self) -> None:
        self._trackio.finish()


REPORTERS: dict[str, type[Reporter]] = {cls.library: cls for cls in (TensorBoard, WandB, MLflow, Trackio)}


def reported(kind: str, fields: Mapping[str, Any]) -> dict[str, float]:
    """What dashboards are sent of a journal's record; of `fisher` records nothing, which the tracker reports.

    An event of a schedule is 1 under the name of every block that it thaws, and the number of blocks that now train.
    """
    if kind == "train":
        named = {f"train/{name}": fields.get(name) for name in ("loss", "learning_rate", "gradient_norm")}
    elif kind == "eval":
        named = {f"{fields['split']}/{fields['language']}/{fields['metric']}": fields["value"]}
    elif kind == "unfreeze":
        named = {f"unfreeze/{block}": 1.0 for block in fields["chosen"]}
        named["unfreeze/blocks_that_train"] = len(fields["trainable"])
    else:
        named = {}
    return {name: float(value) for name, value in named.items() if isinstance(value, int | float)}


def check_reporters(names: Iterable[str]) -> None:
    """Raises `InputError` for an unknown reporter, or one whose library is not installed. Imports nothing."""
    for name in names:
        if name not in REPORTERS:
            raise InputError(f"reporter {name!r} is unknown; expected one of {', '.join(REPORTERS)}")
        if find_spec(name) is None:
            raise InputError(f"reporting to {name} needs a package that is not installed: pip install {name}")


def make_reporters(names: Iterable[str], directory: Path, config: dict[str, Any]) -> list[Reporter]:
    """Reporters for the run in `directory`, which exists."""
    return [REPORTERS[name](directory, directory.name, config) for name in names]
