"""Without rules: plain autograd, one example at a time; and the gradient of a whole batch."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from fishlens.errors import InputError, first_line
from fishlens.fisher.batches import Batch
from fishlens.fisher.distributions import widened
from fishlens.fisher.gradients import Dense
from fishlens.fisher.interrupts import stop_if_interrupted
from fishlens.fisher.labels import Draw
from fishlens.fisher.outputs import BatchLogits
from fishlens.fisher.passes import Receive, enlarged
from fishlens.fisher.taps import gradient_of, without_autocast


def one_at_a_time(
    predict: Callable[[Batch], BatchLogits],
    draw_labels: Callable[[BatchLogits, Batch, int], Draw],
    batch: Batch,
    first: int,
    parameters: Mapping[str, nn.Parameter],
    receive: Callable[..., None],
    half: bool = False,
) -> None:
    """Gradients of `parameters` for every example alone: right whatever the model does with independent
    examples, N times the passes.

    `half`: float16 takes part. Raises `InputError` where the model does not take one example alone.
    """
    for n in range(batch.size):
        example = batch.example(n)
        try:
            prediction = predict(example)
        except (InputError, IndexError, RuntimeError, AssertionError) as error:
            if batch.size == 1 or isinstance(error, torch.OutOfMemoryError):
                raise
            raise InputError(
                f"parameter {next(iter(parameters))!r} has to be measured one example at a time, and the model does "
                f"not take one example alone ({type(error).__name__}: {first_line(error)}); leave it out of the blocks"
            ) from error
        draw = draw_labels(prediction, example, first + n)
        for number, name, gradient in _gradients(prediction.logits, draw, parameters, half):
            receive((name,), Dense(gradient.unsqueeze(0)), number, example=n)


def batch_gradients(
    logits: Tensor,
    draw: Draw,
    parameters: Mapping[str, nn.Parameter],
    divisor: float,
    receive: Receive,
    half: bool = False,
) -> None:
    """The gradient of the batch's log p over `divisor`.

    With N·√N this is the gradient of the mean over √N, and its square the one in Algorithm 2 of Liu et al.
    (2024).
    """
    for number, name, gradient in _gradients(logits, draw, parameters, half):
        receive((name,), Dense(gradient.unsqueeze(0) / divisor), number)


def _gradients(
    logits: Tensor, draw: Draw, parameters: Mapping[str, nn.Parameter], half: bool
) -> Iterator[tuple[int, str, Tensor]]:
    """(backward pass, name, gradient) of every cotangent; nothing for parameters that the logits ignore."""
    if not logits.requires_grad:
        return
    for number, cotangent in enumerate(draw.cotangents):
        stop_if_interrupted()
        flat, unscale = enlarged(cotangent.reshape(1, -1), half)
        cotangent = flat.view(cotangent.shape)
        with without_autocast(logits.device):
            more = number + 1 < draw.passes
            gradients = gradient_of(logits, list(parameters.values()), cotangent, retain_graph=more)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                whole = gradient if gradient.layout == torch.strided else gradient.to_dense()
                wide = widened(whole)
                yield number, name, wide if unscale is None else wide * unscale.to(wide)
