"""What a probe costs for the parameters that no rule measures: counted, not timed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fishlens.fisher.anatomy import unwrapped
from fishlens.fisher.batches import batches_of
from fishlens.fisher.blocks import Block, check_blocks
from fishlens.fisher.coverage import PRICES, Coverage
from fishlens.fisher.forward import predict
from fishlens.fisher.observe import observing
from fishlens.fisher.probe import estimate_fisher
from fishlens.fisher.proof import Plan
from fishlens.fisher.which_output import find_output


@dataclass(frozen=True)
class Price:
    """Operations that torch dispatches (views apart) in one probe of a batch of `examples` whose proof is made:
    `operations` in all, and so many `without` the `parameters` that are measured by `rule`, a key of `PRICES`."""

    rule: str
    parameters: tuple[str, ...]
    examples: int
    operations: int
    without: int


def prices(
    model: nn.Module,
    blocks: Sequence[Block],
    batch: Any,
    rows: Sequence[Coverage],
    *,
    labels: str = "auto",
    output: str = "auto",
) -> list[Price]:
    """One for each way without a rule in `rows`, the model's coverage on this batch; none where all have rules."""
    dear = {rule: tuple(row.parameter for row in rows if row.rule == rule) for rule in PRICES}
    dear = {rule: names for rule, names in dear.items() if names}
    if not dear:
        return []
    model, blocks = unwrapped(model), check_blocks(blocks)
    first = next(batches_of(batch))

    def counted(left_out: Sequence[str]) -> int:
        measured = [_without(block, left_out) for block in blocks]
        measured = [block for block in measured if block.parameters]
        return _operations(model, measured, first, labels, output)

    whole = counted(())
    return [Price(rule, names, first.size, whole, counted(names)) for rule, names in dear.items()]


def _without(block: Block, names: Sequence[str]) -> Block:
    kept: Mapping[str, nn.Parameter] = {n: p for n, p in block.parameters.items() if n not in names}
    return replace(block, parameters=kept)


def _operations(model: nn.Module, blocks: Sequence[Block], batch: Any, labels: str, output: str) -> int:
    """Of the second probe with one plan; where no block is left, of a forward pass."""
    if not blocks:
        with _Counting() as counting, observing(model, ()):
            predict(model, find_output(model, output), batch.to(next(model.parameters()).device))
        return counting.count
    plan = Plan()
    for _ in range(2):
        with _Counting() as counting:
            estimate_fisher(model, batch, blocks=blocks, labels=labels, output=output, plan=plan)
    return counting.count


class _Counting(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))
