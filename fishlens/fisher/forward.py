"""The forward pass of a probe: inputs without labels in, a prediction with a graph behind its logits out."""

import inspect
import weakref
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from fishlens.errors import InputError, first_line
from fishlens.fisher.batches import Batch
from fishlens.fisher.outputs import BatchLogits, Output


def predict(
    model: nn.Module, output: Output, batch: Batch, autocast: torch.dtype | None = None
) -> BatchLogits:
    """The prediction for `batch`, under autocast if a dtype is given.

    Raises `InputError` if the model does not take the batch, or the logits are not those of its examples.
    """
    device = next(model.parameters()).device.type
    inputs = output.arguments(model, taken_by(model, batch.inputs), batch.labels)
    with torch.enable_grad(), torch.autocast(device, autocast) if autocast is not None else nullcontext():
        try:
            result = model(*batch.args, **inputs)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{type(model).__name__} does not take this batch: {type(error).__name__}: {first_line(error)}"
            ) from error
        prediction = output.predict(result, inputs, batch.labels)
    if len(prediction.logits) != batch.size:
        turned = len(prediction.logits) == batch.columns
        raise InputError(
            f"the logits are for {len(prediction.logits)} examples of output={output.name!r}; "
            f"expected {batch.size}, as in the inputs"
            + (" (does the model take time first, [T, N, …]? expected examples first)" if turned else "")
        )
    if prediction.logits.shape[1] <= (output.name == "causal_lm"):
        raise InputError(
            f"output={output.name!r} leaves nothing to predict: the model gave logits for one position only; expected "
            "them for every position of at least two tokens"
        )
    return prediction


def taken_by(model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that the model's `forward` has an argument for."""
    names = _arguments(model)
    return dict(inputs) if names is None else {key: value for key, value in inputs.items() if key in names}


def inner(model: Any) -> Any:
    """The model inside of what a library for adapters has put around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _arguments(model: Any) -> set[str] | None:
    """Names of the arguments of `forward`; None if it takes any."""
    forward = inner(model).forward
    function = getattr(forward, "__func__", None)
    if function is None:
        return _names(forward)
    if function not in _known:
        _known[function] = _names(forward)
    return _known[function]


def _names(forward: Any) -> set[str] | None:
    parameters = inspect.signature(forward).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return set(parameters)


_known: "weakref.WeakKeyDictionary[Any, set[str] | None]" = weakref.WeakKeyDictionary()


def ambient_autocast(device: torch.device) -> torch.dtype | None:
    """The dtype of the caller's own autocast, if one is on."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
