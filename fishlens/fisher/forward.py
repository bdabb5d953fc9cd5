"""The forward pass of a probe: inputs without labels in, a prediction with a graph behind its logits out."""

from contextlib import nullcontext

import torch
from torch import nn

from fishlens.errors import InputError
from fishlens.fisher.batches import Batch
from fishlens.fisher.outputs import Output, Prediction


def predict(
    model: nn.Module, output: Output, batch: Batch, autocast: torch.dtype | None = None
) -> Prediction:
    """The prediction for `batch`, under autocast if a dtype is given.

    Raises `InputError` if the logits are not those of the batch's examples.
    """
    device = next(model.parameters()).device.type
    with torch.enable_grad(), torch.autocast(device, autocast) if autocast is not None else nullcontext():
        result = model(*batch.args, **batch.inputs)
        prediction = output.predict(result, batch.inputs, batch.labels)
    if len(prediction.logits) != batch.size:
        raise InputError(
            f"the logits are for {len(prediction.logits)} examples of output={output.name!r}; "
            f"expected {batch.size}, as in the inputs"
        )
    return prediction
