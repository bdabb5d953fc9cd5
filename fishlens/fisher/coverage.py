"""Before the first number: which parameter is measured by which rule, and whether the rules are right
here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fishlens.errors import InputError
from fishlens.fisher.anatomy import unwrapped
from fishlens.fisher.batches import Batch, batches_of
from fishlens.fisher.blocks import Block, check_blocks, find_blocks, unmeasured
from fishlens.fisher.distributions import widened
from fishlens.fisher.extensions import OperationRule, rule_for
from fishlens.fisher.forward import predict
from fishlens.fisher.observe import observing
from fishlens.fisher.probe import estimate_fisher, prove
from fishlens.fisher.reference import reference_fisher
from fishlens.fisher.refusals import refuse_what_cannot_be_measured
from fishlens.fisher.which_output import find_output

NO_BLOCK = "no block"
NOT_MEASURED = "not measured: it trains and lies in no block"
ONE_AT_A_TIME = "one example at a time"
AGAIN = "its module again for each example"
UNUSED = "unused: the output does not depend on it"
PRICES = {
    ONE_AT_A_TIME: "each example costs a forward and backward pass of the whole model more",
    AGAIN: "each example costs a forward and backward pass of that module more (fused experts: one for all examples)",
}
"""What the two ways without a rule cost in every probe; parameters with rules cost one pass for all together."""
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


@dataclass(frozen=True)
class Coverage:
    """How one parameter is measured: `rule` names the rule (or rules, of a tied weight) or the fallback."""

    block: str
    parameter: str
    shape: tuple[int, ...]
    module: str
    rule: str


def coverage(
    model: nn.Module, blocks: Sequence[Block] | None = None, batch: Any = None, *, output: str = "auto"
) -> list[Coverage]:
    """One row per parameter of every block, bottom to top; then of every parameter that trains and is in none.

    Without a `batch` this is what the modules promise. With one, a forward pass tells what happens:
    parameters that the output ignores, that something else than their module reads, or whose module does
    not see one row per example. Raises `InputError` for what would be refused.
    """
    model = unwrapped(model)
    blocks = find_blocks(model) if blocks is None else check_blocks(blocks)
    refuse_what_cannot_be_measured(model, blocks, "eval")
    owners: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(module)
    measured_by = {} if batch is None else _measured_by(model, blocks, batch, output)
    table = []
    for block in blocks:
        for name, parameter in block.parameters.items():
            mine = owners.get(id(parameter), [])
            labels = [rule.label for module in mine if (rule := rule_for(module)) is not None]
            promised = " + ".join(dict.fromkeys(labels)) or ONE_AT_A_TIME
            kinds = ", ".join(dict.fromkeys(type(module).__name__ for module in mine))
            table.append(
                Coverage(block.name, name, tuple(parameter.shape), kinds, measured_by.get(name, promised))
            )
    named = dict(model.named_parameters())
    for name in unmeasured(model, blocks):
        kinds = ", ".join(dict.fromkeys(type(m).__name__ for m in owners.get(id(named[name]), [])))
        table.append(Coverage(NO_BLOCK, name, tuple(named[name].shape), kinds, NOT_MEASURED))
    return table


def _measured_by(model: nn.Module, blocks: Sequence[Block], batch: Any, output: str) -> dict[str, str]:
    """What a forward pass, and the proof of its rows, say about parameters that their rule does not measure
    after all."""
    with observing(model, [p for block in blocks for p in block.parameters.values()]):
        proof = prove(model, blocks, next(batches_of(batch)), find_output(model, output))
    followed = dict.fromkeys(proof.by_operation, OperationRule.label)
    followed |= dict.fromkeys(proof.by_module, AGAIN)
    return followed | dict.fromkeys(proof.slow, ONE_AT_A_TIME) | dict.fromkeys(proof.unused, UNUSED)


@dataclass(frozen=True)
class SelfCheck:
    """One block measured both ways on a few examples; `error` is the largest relative difference of a
    trace."""

    block: str
    labels: str
    examples: int
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


def self_check(
    model: nn.Module,
    batch: Any,
    *,
    blocks: Sequence[Block] | None = None,
    block: str | None = None,
    labels: str = "auto",
    output: str = "auto",
    examples: int = 2,
    seed: int = 0,
) -> SelfCheck:
    """Compares `estimate_fisher` with plain autograd on the user's own model: one block, the first
    `examples`.

    `block` names it; without a name, `seed` draws one. The estimate is taken in a batch of all the examples
    given, so that a rule that mixes them is found out. `labels="auto"` means `exact` where cheap, else
    `mc`, whose labels are the same both ways. Relative differences up to 1e-9 in float64, 1e-4 in float32,
    5e-2 in less pass.
    """
    model = unwrapped(model)
    blocks = find_blocks(model) if blocks is None else check_blocks(blocks)
    names = [b.name for b in blocks]
    if block is not None and block not in names:
        raise InputError(f"there is no block {block!r}; there are {', '.join(names)}")
    draw = int(torch.randint(len(names), (), generator=torch.Generator().manual_seed(seed)))
    chosen = [blocks[draw if block is None else names.index(block)]]
    return self_checks(
        model, batch, blocks=chosen, labels=labels, output=output, examples=examples, seed=seed
    )[0]


def self_checks(
    model: nn.Module,
    batch: Any,
    *,
    blocks: Sequence[Block] | None = None,
    labels: str = "auto",
    output: str = "auto",
    examples: int | None = 2,
    apart: bool = False,
    seed: int = 0,
) -> list[SelfCheck]:
    """The `self_check` of every block, in one estimate and one loop; bottom to top.

    `examples=None`: all of the batch. `apart`: every parameter for itself, so that a small one cannot hide behind a
    large one; a block's error is then the largest of its parameters'. What is rounding in a gradient that vanishes (a
    key's bias) does not count.
    """
    model = unwrapped(model)
    blocks = find_blocks(model) if blocks is None else check_blocks(blocks)
    first = next(batches_of(batch), None)
    if first is None:
        raise InputError("data has no batches; expected at least one example")
    count = first.size if examples is None else min(examples, first.size)
    measured = (
        [Block(n, {n: p}, b.layer) for b in blocks for n, p in b.parameters.items()] if apart else blocks
    )
    estimate = estimate_fisher(model, first, blocks=measured, labels=labels, output=output, seed=seed)
    few = [first.example(n) for n in range(count)]
    told = {"labels": estimate.meta["labels"], "output": estimate.meta["output"], "seed": seed}
    expected = reference_fisher(model, few, measured, **told).per_example
    found = {name: values[:count] for name, values in estimate.per_example.items()}
    with observing(model, (), "eval"):
        device = next(iter(blocks[0].parameters.values())).device
        gap = _apart(model, told["output"], first.to(device), [example.to(device) for example in few])
    checks = []
    for block in blocks:
        dtype = next(iter(block.parameters.values())).dtype
        parts = list(block.parameters) if apart else [block.name]
        noise = (
            sum((expected[name] for name in parts), torch.zeros(count)) * _rounding(dtype) if apart else None
        )
        errors = [_relative(found[name], expected[name], noise) for name in parts]
        checks.append(
            SelfCheck(
                block=block.name,
                labels=told["labels"],
                examples=count,
                error=max(*errors, gap),
                tolerance=TOLERANCE.get(dtype, 5e-2),
            )
        )
    return checks


def _rounding(dtype: torch.dtype) -> float:
    """The part of a block's trace that a parameter's may be by rounding alone: the square of a thousand roundings."""
    return (1000 * torch.finfo(dtype).eps) ** 2


def _apart(model: nn.Module, output: str, batch: Batch, examples: Sequence[Batch]) -> float:
    """How much the predictions for examples alone differ from those in the batch, over their size.

    They differ where a row of the batch is not an example: where time comes before the batch, or rows see each other.
    """
    together = predict(model, find_output(model, output), batch)
    size = widened(together.logits).abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
    found = 0.0
    for n, example in enumerate(examples):
        alone = predict(model, find_output(model, output), example)
        if alone.logits.shape[1:] != together.logits.shape[1:]:
            return math.inf
        difference = (widened(alone.logits[0]) - widened(together.logits[n])).abs()
        found = max(found, float((difference * together.scored[n].unsqueeze(-1)).amax() / size))
    return found


def _relative(found: Tensor, expected: Tensor, noise: Tensor | None = None) -> float:
    difference, size = (found - expected).abs(), expected.abs()
    if noise is not None:
        difference = difference.where(difference > noise, 0.0)
    return float(torch.where(difference > 0, difference / size, 0.0).max())
