"""Running a model over a split and scoring what it says."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from fishlens.training.assembly import Assembly
from fishlens.training.tasks import Prediction, Split, Task

CPU_ROWS = 32  # a CPU is faster with batches that its caches hold, and smaller batches of like length are less padding


@dataclass(frozen=True)
class Prepared:
    """A split with its rows as the model is fed them."""

    split: Split
    features: Sequence[Any]


@dataclass(frozen=True)
class Evaluation:
    """scores: {metric: points}. predictions: one per example. logits: of every row, as `task.rows` gives them."""

    scores: dict[str, float]
    predictions: list[Prediction]
    logits: Sequence[Any] = field(default=(), repr=False)


def evaluate(
    assembly: Assembly,
    task: Task,
    prepared: Prepared,
    accelerator: Accelerator,
    *,
    language: str | None,
    batch_size: int,
) -> Evaluation:
    """Score the model on a split through the adapters of `language`, in evaluation mode and without gradients.

    The set-up and the mode that were there before are there afterwards. With several processes each runs a part.
    """
    with evaluation_mode(assembly.model), assembly.in_language(language), torch.no_grad():
        rows = _rows(assembly, task, prepared.features, accelerator, batch_size)
    predictions = task.predict(prepared.split, prepared.features, rows)
    return Evaluation(task.score(prepared.split, predictions), predictions, rows)


def _rows(
    assembly: Assembly, task: Task, features: Sequence[Any], accelerator: Accelerator, batch_size: int
) -> list[Any]:
    """The model's outputs, one array per feature, in order. Rows of like length go together: less padding."""
    order = sorted(range(len(features)), key=lambda i: -len(features[i].get("input_ids", ())))
    size = min(batch_size, CPU_ROWS) if accelerator.device.type == "cpu" else batch_size
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    mine: list[tuple[int, Any]] = []
    for batch_rows in batches[accelerator.process_index :: accelerator.num_processes]:
        batch = task.collate([features[i] for i in batch_rows], assembly.tokenizer)
        batch = {key: value.to(accelerator.device) for key, value in batch.items()}
        with accelerator.autocast():
            outputs = assembly.model(**batch)
        mine += zip(batch_rows, task.rows(outputs, batch), strict=True)
    everyone = gather_object(mine) if accelerator.num_processes > 1 else mine
    return [row for _, row in sorted(everyone, key=lambda pair: pair[0])]


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Inside, the model is in evaluation mode; afterwards every module is in the mode it was in."""
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, before in training:
            module.training = before
