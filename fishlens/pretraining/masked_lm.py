"""Masked-language modelling in one visible loop: for a whole encoder from scratch, or for a language adapter.

    batches, masking and dropout are pure functions of (seed, step), so a run that was killed goes on from its last
    checkpoint to the same bits as one that never stopped.

A run's folder holds `curve.jsonl` (one record each `log_every` steps) and the newest checkpoint. Ctrl-C finishes the
step, writes a checkpoint and raises `Interrupted`.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from fishlens.errors import InputError
from fishlens.files import write_file
from fishlens.pretraining.masking import MaskedLMLoss, heldout_loss
from fishlens.pretraining.raw_text import Batches, Rows
from fishlens.pretraining.settings import MaskedLMSettings
from fishlens.training.checkpoint import (
    CHECKPOINTS,
    Snapshot,
    begin_checkpoint,
    claim_checkpoints,
    finish_checkpoint,
    newest_checkpoint,
    read_checkpoint,
    remove_old_checkpoints,
    write_random_state,
)
from fishlens.training.interrupt import watch_for_interruption

Note = Callable[[str], None]
CURVE = "curve.jsonl"


class Interrupted(Exception):
    """Ctrl-C: a checkpoint of `step` was written."""

    def __init__(self, step: int):
        super().__init__(f"interrupted after step {step}")
        self.step = step


def train_masked_lm(
    model: Any,
    tokenizer: Any,
    batches: Batches,
    settings: MaskedLMSettings,
    folder: str | Path,
    heldout: Mapping[str, Rows] | None = None,
    note: Note = print,
) -> list[dict[str, Any]]:
    """Train what requires gradients, from the folder's checkpoint if there is one. Returns the curve.

    Raises:
        InputError: the folder holds a checkpoint of a run with other settings.
        Interrupted: Ctrl-C; the same call goes on.
    """
    device = Accelerator().device
    model.to(device)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in trainable.values() if p.dim() > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in trainable.values() if p.dim() <= 1], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
    )
    run = _Run(Path(folder), trainable, optimizer, settings)
    step, curve, pending = run.load()
    losses: list[float | torch.Tensor] = list(pending)
    if step:
        note(f"resuming at step {step} of {settings.steps}")
    if device.type != "cpu":
        note(f"training on {device}")
    loss = MaskedLMLoss(model, tokenizer, settings)
    model.train()
    clock = _Clock(curve[-1]["seconds"] if curve else 0.0)
    done = _is_over(step, clock.seconds, settings)
    with watch_for_interruption() as interruption:
        while not done:
            torch.manual_seed(settings.seed * 1_000_003 + step)  # dropout of this step, whatever came before
            rate = learning_rate(step, settings, clock.seconds)
            optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = rate
            value, _ = loss(batches.at(step), np.random.default_rng([settings.seed, 2, step]))
            value.backward()
            torch.nn.utils.clip_grad_norm_(list(trainable.values()), settings.clip)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            losses.append(value.detach())  # fetched from the device when it is written
            done = _is_over(step, clock.seconds, settings)
            if step % settings.log_every == 0 or done:
                mean = torch.stack([torch.as_tensor(v, device=device) for v in losses]).cpu().double().mean()
                curve.append({"step": step, "loss": float(mean), "seconds": clock.seconds})
                losses = []
                if step % settings.save_every == 0 or done:
                    for name, rows in (heldout or {}).items():
                        curve[-1][f"heldout/{name}"] = heldout_loss(loss, rows)
                note(_line(curve[-1], settings.steps))
            if step % settings.save_every == 0 or done or interruption.asked:
                run.save(step, curve, [float(value) for value in losses])
            if interruption.asked and not done:
                raise Interrupted(step)
    model.eval()
    return curve


def refuse_files_of_others(output: Path, names: Sequence[str]) -> None:
    """Raises `InputError` where a run that begins in `output` would write over files that it did not make.

    A run that goes on has its checkpoints there.
    """
    if newest_checkpoint(output / CHECKPOINTS) is not None:
        return
    for name in names:
        there = output / name
        if there.is_symlink() or (there.is_dir() and any(there.iterdir())) or there.is_file():
            raise InputError(
                f"{output} already holds {name}, which would be written over: give another folder"
            )


class _Clock:
    """Seconds of training, with those of the attempts before."""

    def __init__(self, before: float):
        self._before, self._started = before, time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._started


def _is_over(step: int, seconds: float, settings: MaskedLMSettings) -> bool:
    return step >= settings.steps or (settings.minutes is not None and seconds >= 60 * settings.minutes)


def learning_rate(step: int, settings: MaskedLMSettings, seconds: float = 0.0) -> float:
    """Linear warmup, then linear decay to zero at the last step, or at the end of the time if that comes first."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    left = (settings.steps - step) / max(1, settings.steps - settings.warmup)
    if settings.minutes is not None:
        left = min(left, max(0.0, 1 - seconds / (60 * settings.minutes)))
    return settings.learning_rate * left


def _line(record: dict[str, Any], steps: int) -> str:
    text = f"step {record['step']}/{steps}  loss {record['loss']:.3f}  {record['seconds']:.0f} s"
    held = [
        f"{k.removeprefix('heldout/')} {math.exp(v):.1f}"
        for k, v in record.items()
        if k.startswith("heldout/")
    ]
    return text + (f"  held-out perplexity: {', '.join(held)}" if held else "")


class _Run:
    """What a run leaves in its folder."""

    def __init__(
        self,
        folder: Path,
        trainable: dict[str, torch.nn.Parameter],
        optimizer: Any,
        settings: MaskedLMSettings,
    ):
        self.folder, self.trainable, self.optimizer, self.settings = folder, trainable, optimizer, settings
        try:
            claim_checkpoints(folder / CHECKPOINTS)
        except OSError as error:
            raise InputError(f"cannot write in {folder}: {error.strerror}") from None

    def save(self, step: int, curve: list[dict[str, Any]], pending: list[float]) -> None:
        names = {id(p): name for name, p in self.trainable.items()}
        moments = {
            f"{names[id(p)]}/{key}": torch.as_tensor(value)
            for p, state in self.optimizer.state.items()
            for key, value in state.items()
        }
        state = {"settings": asdict(self.settings), "curve": curve, "pending": pending}
        place = begin_checkpoint(self.folder / CHECKPOINTS, step)
        write_random_state(place, 0, {})  # batches, masks and dropout follow from the step
        weights = {name: p.detach() for name, p in self.trainable.items()}
        finish_checkpoint(place, Snapshot(step, weights, moments, {}, state))
        remove_old_checkpoints(self.folder / CHECKPOINTS, keep=1, best_step=None)
        write_file(self.folder / CURVE, "".join(json.dumps(record) + "\n" for record in curve))

    def load(self) -> tuple[int, list[dict[str, Any]], list[float]]:
        """(steps done, curve, losses since its last record); (0, [], []) where nothing was saved."""
        newest = newest_checkpoint(self.folder / CHECKPOINTS)
        if newest is None:
            return 0, [], []
        saved = read_checkpoint(newest)
        for name, value in asdict(self.settings).items():
            if saved.state["settings"].get(name) != value:
                raise InputError(
                    f"{self.folder} holds a run with {name} = {saved.state['settings'].get(name)}, not {value}: give"
                    " its own settings to go on with it, or another folder"
                )
        shapes = {name: p.shape for name, p in self.trainable.items()}
        if {name: value.shape for name, value in saved.weights.items()} != shapes:
            raise InputError(f"{self.folder} holds a run of another model or adapter: give another folder")
        with torch.no_grad():
            for name, parameter in self.trainable.items():
                parameter.copy_(saved.weights[name])
        for name, parameter in self.trainable.items():
            moments = {
                key: saved.optimizer[f"{name}/{key}"].to(parameter.device)
                for key in ("exp_avg", "exp_avg_sq")
            }
            self.optimizer.state[parameter] = {"step": saved.optimizer[f"{name}/step"], **moments}
        return saved.step, saved.state["curve"], saved.state["pending"]
