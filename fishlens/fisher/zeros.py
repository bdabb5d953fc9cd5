"""Zero, or not measurable? Where no gradient comes back, a step in a random direction decides."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fishlens.errors import InputError
from fishlens.fisher.batches import Batch
from fishlens.fisher.blocks import Block
from fishlens.fisher.outputs import BatchLogits

# a step, relative to the parameter's own size; and the least relative change of the logits that is one
STEP = {torch.float64: 1e-4, torch.float32: 2e-2}
SEEN = {torch.float64: 1e-11, torch.float32: 1e-5}
COARSE_STEP, COARSE_SEEN = 0.5, 2e-2  # in half precision

PADDING = "a batch reads only its padding row, which never trains; its Fisher is zero there"


def depends(
    logits_of: Callable[[], Tensor],
    parameters: Sequence[nn.Parameter],
    seed: int = 0,
    untrained: Sequence[Collection[int]] = (),
) -> bool:
    """Whether the logits have a slope along one random direction of all `parameters` together.

    The direction leaves out the rows `untrained` of each (the padding of a table, which autograd never trains).

    A central difference, so that what is of second order (A·B where both are zero) is not a slope; and taken
    twice, because a slope shrinks with the step, and a kink that only the longer step crosses does not. Nor does the
    rounding of a float64 model that computes parts of itself in float32: such a model is asked as a float32 one.
    """
    dtype = parameters[0].dtype
    directions = _directions(parameters, seed)
    for direction, rows in zip(directions, untrained, strict=False):
        direction[list(rows)] = 0
    here = logits_of().detach()

    def change(size: float) -> float:
        ahead = _nudged(logits_of, parameters, directions, size)
        if torch.equal(ahead, here):
            return 0.0
        behind = _nudged(logits_of, parameters, directions, -size)
        if ahead.shape != behind.shape:
            return float("inf")
        largest = torch.maximum(ahead.abs().max(), behind.abs().max()).clamp(min=1e-30)
        return float(torch.nan_to_num((ahead - behind).abs().max() / largest, nan=0.0))

    if dtype not in SEEN:
        return change(COARSE_STEP) > COARSE_SEEN
    if not _shrinks(change, STEP[dtype], SEEN[dtype]):
        return False
    rounding = dtype == torch.float64 and change(STEP[dtype] / 64) > change(STEP[dtype] / 4) / 4
    return not rounding or _shrinks(change, STEP[torch.float32], SEEN[torch.float32])


def _shrinks(change: Callable[[float], float], step: float, seen: float) -> bool:
    """Whether there is a change, and in about that proportion with a quarter of the step."""
    first = change(step)
    if first <= seen:
        return False
    second = change(step / 4)
    return second > seen / 4 and second > first / 8


def _directions(parameters: Sequence[nn.Parameter], seed: int) -> list[Tensor]:
    """Random normal, of the size of each parameter (of 1 where the parameter is zero)."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for parameter in parameters:
        noise = torch.randn(parameter.shape, generator=generator).to(parameter.device, parameter.dtype)
        size = parameter.detach().square().mean().sqrt()
        found.append(noise * torch.where(size > 0, size, torch.ones_like(size)))
    return found


def _nudged(
    logits_of: Callable[[], Tensor],
    parameters: Sequence[nn.Parameter],
    directions: Sequence[Tensor],
    size: float,
) -> Tensor:
    with _moved(parameters, directions, size):
        return logits_of().detach()


@contextmanager
def _moved(parameters: Sequence[nn.Parameter], directions: Sequence[Tensor], size: float) -> Iterator[None]:
    """Inside, every parameter is a step away; afterwards it has its bits again, and no write was counted."""
    saved = [(parameter, parameter.detach().clone()) for parameter in parameters]
    try:
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter.data.add_(direction, alpha=size)
        yield
    finally:
        for parameter, value in saved:
            parameter.data.copy_(value)


def check_zeros(
    predict: Callable[[Batch], BatchLogits],
    blocks: Sequence[Block],
    names: frozenset[str],
    checkpointed: bool,
    batch: Batch,
    padding: Mapping[str, Collection[int]],
) -> tuple[str, ...]:
    """`InputError` if the output has a slope along parameters `names`, which no gradient reaches.

    A table's rows `padding` do not count: autograd never trains them, whatever the output depends on. Where it depends
    on them alone, a note says so.
    """
    parameters = {name: p for block in blocks for name, p in block.parameters.items()}

    def logits() -> Tensor:
        predicted = predict(batch)
        return torch.where(predicted.scored.unsqueeze(-1), predicted.logits.detach(), 0.0)

    def slope(names: Iterable[str]) -> bool:
        chosen = sorted(names)
        untrained = [padding.get(name, ()) for name in chosen]
        return depends(logits, [parameters[name] for name in chosen], untrained=untrained)

    if slope(names):
        for block in blocks:
            for name in block.parameters:
                if name in names and slope([name]):
                    raise InputError(_not_measurable(name, block.name, checkpointed))
    padded = [name for name in sorted(names & padding.keys()) if depends(logits, [parameters[name]])]
    return tuple(f"{name}: {PADDING}" for name in padded)


def _not_measurable(name: str, block: str, checkpointed: bool) -> str:
    why = (
        "torch.utils.checkpoint with use_reentrant=True hides it; use_reentrant=False does not"
        if checkpointed
        else "a detached tensor, a reentrant checkpoint, a function without a gradient, or quantised weights?"
    )
    return (
        f"the output depends on parameter {name!r} of block {block!r}, but no gradient reaches it ({why}); "
        "its Fisher information cannot be measured: leave it out of the blocks (find_blocks takes a callable that says "
        "the block of every parameter, or None)"
    )
