"""Examples without the others: does the output for an example change when the rest of its batch is gone?"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from fishlens.errors import InputError
from fishlens.fisher.batches import Batch
from fishlens.fisher.outputs import BatchLogits
from fishlens.fisher.tolerance import Tolerance

ALONE = Tolerance({torch.float64: 1e-5, torch.float32: 2e-3}, 1e-1)
"""Between the logits of examples in their batch and without the others, relative to the largest."""


def without_the_others(
    predict: Callable[[Batch], BatchLogits],
    prediction: BatchLogits,
    batch: Batch,
    one_by_one: bool,
    where: str,
    tolerance: float,
) -> tuple[str, ...]:
    """Notes about the first and the last example, when all others of their batch are gone.

    `one_by_one`: some parameter is measured one example at a time, which is wrong where examples depend on one another:
    then `InputError`.
    """
    index = torch.tensor([0, batch.size - 1] if batch.size > 2 else [0])
    try:
        part = predict(batch.take(index))
        change = _difference(prediction, part, index.to(prediction.logits.device))
    except Exception:
        change = math.inf
    if change <= tolerance:
        return ()
    again = _difference(prediction, predict(batch), slice(None))
    if again > tolerance:
        return ("the forward pass draws random numbers: no two are alike",)
    size = "is of another shape" if math.isinf(change) else f"changes by {100 * change:.2g} %"
    what = f"the output for an example {size} when others leave its batch{where}"
    if one_by_one and _time_first(predict, prediction, batch, tolerance):
        raise InputError(
            f"the rows of the batch depend on one another, and its columns do not: {what}, and not when other columns "
            f"leave it. That is a layout with time first, [T, N, …], of which T = {batch.size} was taken as the number "
            "of examples; expected examples first: transpose inputs, outputs and labels (batch_first=True)"
        )
    if one_by_one:
        raise InputError(
            f"the examples of a batch depend on one another: {what}, so that none has a gradient of its own "
            "(BatchNorm without running statistics, attention between rows, negatives from the batch?); expected "
            "independent examples, or granularity='batch', which measures a batch as the unit"
        )
    return (f"{what}, below everything that is measured: measured given the batches as they are",)


def _time_first(
    predict: Callable[[Batch], BatchLogits], prediction: BatchLogits, batch: Batch, tolerance: float
) -> bool:
    """Whether the examples are the columns of the batch: the output for the first of them is the same without the
    others."""
    if batch.columns is None or batch.columns == 1:
        return False
    column = batch.first_column()
    for pooled in (False, True):  # an output for a column, not for each of its tokens
        try:
            part = predict(replace(column, size=1) if pooled else column)
        except Exception:
            continue
        logits, scored = (x[:1] if pooled else x[:, :1] for x in (prediction.logits, prediction.scored))
        whole = BatchLogits(logits, scored, prediction.distribution)
        if _difference(whole, part, slice(None)) <= tolerance:
            return True
    return False


def _difference(whole: BatchLogits, part: BatchLogits, index: Any) -> float:
    """The largest relative difference between the logits of `part` and those rows of `whole`."""
    expected, scored = whole.logits.detach()[index], whole.scored[index]
    found = part.logits.detach()
    if found.shape != expected.shape:
        return math.inf
    mask = scored.unsqueeze(-1)
    largest = torch.where(mask, expected.abs(), 0.0).max().clamp(min=1e-30)
    return float((torch.where(mask, (found - expected).abs(), 0.0).max() / largest).nan_to_num(0.0))
