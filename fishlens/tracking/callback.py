"""FisherCallback: tracking inside transformers' Trainer and adapters' AdapterTrainer.

A callback never sees a batch, and iterating the Trainer's own data loader would move its random generator: the probe
set is collated from the training data set, in an order of its own, with every random state put back afterwards.
In a run of several processes the first one measures and writes.
"""

import atexit
import inspect
import json
import random
import sys
import time
import warnings
import weakref
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from fishlens.errors import InputError
from fishlens.fisher.observe import observing
from fishlens.journal import attempts
from fishlens.tracking.clock import Clock, make_clock
from fishlens.tracking.reporters import check_reporters, make_reporters
from fishlens.tracking.tracker import Tracker

STATE_FILE = "fishlens.json"
NOT_SCORES = (
    "runtime",
    "samples_per_second",
    "steps_per_second",
    "model_preparation_time",
    "jit_compilation_time",
)

# the callback that tracks a model, for UnfreezeCallback to find the measurements it needs
_tracking: "weakref.WeakKeyDictionary[nn.Module, FisherCallback]" = weakref.WeakKeyDictionary()


def callback_of(model: nn.Module) -> "FisherCallback | None":
    """The callback that tracks `model`, if there is one."""
    return _tracking.get(model)


class FisherCallback(TrainerCallback):
    """Tracks the Fisher information of every block while a Trainer trains.

        Trainer(..., callbacks=[FisherCallback(every=50)])

    every: 50 steps, "2%" of the training time, or a list of steps.
    data: the probe set, as `Tracker` takes it; default: rows of the training set, drawn with `seed`. A probe measures
        `examples` of them; `pool` rows are drawn where a schedule may want more.
    run: the run's directory, which must be new unless training resumes; default: a free name like that of the
        Trainer's output directory, in `runs/`.
    reporters: names of dashboards to report to as well (tensorboard, wandb, mlflow, trackio).
    What is left is for `Tracker`: labels, blocks, granularity, effective_dimension, noise_scale, diagonals, …
    """

    def __init__(
        self,
        every: int | str | Collection[int] | Clock = 50,
        *,
        data: Any = None,
        run: str | Path | None = None,
        examples: int = 128,
        pool: int | None = None,
        batch_size: int = 32,
        seed: int = 0,
        factors: dict[str, Any] | None = None,
        reporters: Iterable[str] = (),
        **tracker_options: Any,
    ):
        unknown = tracker_options.keys() - inspect.signature(Tracker).parameters.keys()
        if unknown:
            raise InputError(f"FisherCallback has no option {sorted(unknown)[0]!r}")
        self.every, self.clock = every, make_clock(every)
        self.data, self.run, self.examples, self.pool = data, run, examples, pool
        self.batch_size, self.seed = batch_size, seed
        self.factors, self.reporters, self.options = dict(factors or {}), tuple(reporters), tracker_options
        check_reporters(self.reporters)
        self.tracker: Tracker | None = None
        self._ended = True
        self._last_step_end = 0.0

    # -- what the Trainer calls -------------------------------------------------------------------------------------

    def on_init_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if isinstance(model, nn.Module):
            _tracking[model] = self

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, train_dataloader: Any = None, **_: Any
    ) -> None:
        self.begin(args, state, model, train_dataloader)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.tracker is not None:
            self.tracker.step(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._last_step_end = time.perf_counter()
        if self.tracker is not None and state.global_step >= state.max_steps:
            self.tracker.step(state.global_step)  # the last weights: no further step begins

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        writer = self.tracker.writer if self.tracker is not None else None
        if writer is None or not logs or "loss" not in logs or self.tracker is None:
            return
        writer.write(
            "train",
            state.global_step,
            loss=_number(logs["loss"]),
            learning_rate=_number(logs.get("learning_rate")),
            gradient_norm=_number(logs.get("grad_norm")),
            epoch=_number(logs.get("epoch")),
            seconds=self.tracker.seconds,
        )

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        if self.tracker is None:
            return
        if not self._ended:
            self.tracker.leave_out(time.perf_counter() - self._last_step_end)
        self._write_scores(args, state, metrics or {}, "eval_", "validation")

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        if self.tracker is not None:
            self._write_scores(args, state, metrics or {}, "test_", "test")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.tracker is not None and self.tracker.writer is not None:
            directory = str(self.tracker.writer.path.parent.resolve())
            write_state(args, state, STATE_FILE, {"run": directory})

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write how it ended, but keep the journal open: scripts evaluate after training."""
        self.end("finished", step=state.global_step, best_step=getattr(state, "best_global_step", None))

    # -- the tracker's life -----------------------------------------------------------------------------------------

    def begin(self, args: Any, state: Any, model: nn.Module, dataloader: Any) -> Tracker | None:
        """The tracker of this training, made when first asked for; None in processes other than the first.

        Raises `InputError` when nothing can be measured or written.
        """
        other = _tracking.get(model)
        if other is not None and other is not self and not other._ended:
            raise InputError(
                "two callbacks track one model: put FisherCallback before UnfreezeCallback, and only once"
            )
        _tracking[model] = self
        if not self._ended or not state.is_world_process_zero:
            return self.tracker
        run, resumed = self._place(args, state)
        data = self.data if self.data is not None else self._draw(dataloader)
        factors = {"model": _name_of(model), "seed": args.seed, "every": str(self.every), **self.factors}
        self.tracker = Tracker(
            model,
            data,
            run=run,
            every=self.clock,
            examples=self.examples,
            seed=self.seed,
            factors=factors,
            seeds={"trainer": args.seed, "data": args.data_seed},
            resumed_from_step=resumed,
            **{"autocast": _autocast(args), **self.options},
        )
        self.tracker.reporters = make_reporters(
            self.reporters, run, {key: str(v) for key, v in factors.items()}
        )
        self._ended = False
        self._last_step_end = time.perf_counter()
        atexit.register(_end_at_exit, weakref.ref(self))
        return self.tracker

    def end(
        self, status: str, *, step: int | None = None, error: str | None = None, best_step: int | None = None
    ) -> None:
        """Write the journal's end record, once."""
        if self._ended or self.tracker is None:
            return
        self._ended = True
        if _tracking.get(self.tracker.model) is self:
            del _tracking[self.tracker.model]
        writer = self.tracker.writer
        for reporter in self.tracker.reporters:
            reporter.close()
        if writer is not None:
            last = self.tracker.last_step if step is None else step
            writer.write("end", last, status=status, error=error, best_step=best_step)

    def _place(self, args: Any, state: Any) -> tuple[Path, int | None]:
        """The run's directory, and the step it goes on from (None: a new run)."""
        stored = read_state(args, state, STATE_FILE)
        if self.run is not None:
            place = Path(self.run)
        elif stored is not None:
            place = Path(stored["run"])
        else:
            place = free_name(Path("runs") / (Path(args.output_dir).resolve().name or "run"))
        return place, state.global_step if state.global_step > 0 else None

    def _draw(self, dataloader: Any) -> list[Any]:
        """Batches of rows drawn from the data loader's data set, collated as it would."""
        dataset = getattr(dataloader, "dataset", None)
        if dataset is None or not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise InputError(
                f"probe rows cannot be drawn from a {type(dataset).__name__}, which has no length: give "
                "FisherCallback(data=…), batches of your own"
            )
        wanted = min(max(self.examples, self.pool or 0), len(dataset))
        chosen = random.Random(f"probe/{self.seed}").sample(range(len(dataset)), wanted)
        parts = [chosen[i : i + self.batch_size] for i in range(0, wanted, self.batch_size)]
        with observing(
            nn.Identity(), ()
        ):  # a data set or collator may use random numbers: put their states back
            return [dataloader.collate_fn([dataset[row] for row in part]) for part in parts]

    def _write_scores(self, args: Any, state: Any, metrics: dict[str, Any], prefix: str, split: str) -> None:
        """Metrics as the script computed them: whether they are points or fractions is its affair."""
        writer = self.tracker.writer if self.tracker is not None else None
        if writer is None:
            return
        best = (args.metric_for_best_model or "").removeprefix("eval_")
        for name, value in metrics.items():
            metric = name.removeprefix(prefix)
            value = _number(value)
            if metric == name or metric in NOT_SCORES or value is None:
                continue
            writer.write(
                "eval", state.global_step, split=split, language=None, metric=metric, value=value,
                headline=metric == best, best=metric == best and _is_best(args, state, value),
            )  # fmt: skip


def write_state(args: Any, state: Any, name: str, content: dict[str, Any]) -> None:
    """Beside the Trainer's checkpoint, because callback state of its own is restored on request only.

    A disk that refuses is a warning: the checkpoint itself is the Trainer's affair.
    """
    if not state.is_world_process_zero:
        return
    place = Path(args.output_dir) / f"checkpoint-{state.global_step}"
    unfinished = place / f"{name}.writing"
    try:
        unfinished.write_text(json.dumps(content), encoding="utf-8")
        unfinished.replace(place / name)
    except OSError as error:
        warnings.warn(f"fishlens: {place / name} could not be written: {error.strerror}", stacklevel=2)


def read_state(args: Any, state: Any, name: str) -> dict[str, Any] | None:
    """What `write_state` left at the checkpoint that training goes on from; None if there is none."""
    if state.global_step == 0:
        return None
    places = [Path(args.output_dir) / f"checkpoint-{state.global_step}"]
    if isinstance(args.resume_from_checkpoint, str):
        places.insert(0, Path(args.resume_from_checkpoint))
    for place in places:
        if (place / name).is_file():
            return json.loads((place / name).read_text(encoding="utf-8"))
    return None


def _is_best(args: Any, state: Any, value: float) -> bool:
    if state.best_metric is None:
        return True
    return value > state.best_metric if args.greater_is_better else value < state.best_metric


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _autocast(args: Any) -> Any:
    """The dtype that the Trainer runs the forward pass in, so that the journal says it."""
    return torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None


def _name_of(model: Any) -> str:
    return getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__


def free_name(place: Path) -> Path:
    """`place`, or `place-2`, … : the first that holds no run."""
    number, free = 1, place
    while attempts(free):
        number += 1
        free = place.with_name(f"{place.name}-{number}")
    return free


def _end_at_exit(callback: "weakref.ref[FisherCallback]") -> None:
    """The interpreter ends while training has not: say with what."""
    there = callback()
    if there is not None:
        error = getattr(sys, "last_value", None)
        text = f"{type(error).__name__}: {error}" if error is not None else None
        there.end("failed" if error is not None else "interrupted", error=text)
