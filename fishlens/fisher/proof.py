"""A proof, not a guess by shapes: are the rows of a leaf the examples, and does its rule give autograd's gradient?

Two backward passes decide. The first takes random cotangents of all examples: the sum of the per-example gradients
must be the gradient that autograd gives; then the rule computes what the module did. The second takes the same
cotangents times a weight of each example, a power of two of its own and zero for one of them: in every tapped leaf
the rows of an example must get exactly its weight times what they got before. Then the rows are the examples', and
no example depends on another; what is `[T, N, d]` with T = N, a prompt of N tokens, or an expert that happens to get
N of them fails. What fails is measured one example at a time, and said so.

A proof holds for every batch of the same pattern of calls, shapes and uses, and is kept in a `Plan`; where modules
get rows by index, so that the pattern does not tell which, the second part is repeated with every batch.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from backpack import backpack
from torch import Tensor, nn

from fishlens.errors import InputError
from fishlens.fisher.batches import Batch
from fishlens.fisher.blocks import Block
from fishlens.fisher.graph import Graph, read_graph
from fishlens.fisher.operations import ROOM
from fishlens.fisher.outputs import Prediction
from fishlens.fisher.routing import place_rows, random_cotangent
from fishlens.fisher.taps import Tapped, Taps, gradient_of
from fishlens.fisher.zeros import depends

NO_RULE = "no rule covers it"
BEHIND = "something else than its module reads it"
LAYOUT = "its module does not see one row per example"
MIXED = "the rows of its module are not the examples"
SILENT = "no gradient came back through its module"
OTHER = "its module does more than its rule says"

# largest relative difference between a sum of per-example gradients and autograd's gradient (float64 models may
# compute parts of themselves in float32)
CLAIM = {torch.float64: 1e-4, torch.float32: 2e-3}
COARSE_CLAIM = 5e-2
ROUNDING = 2e-3  # what rounding does to that sum, relative to a bound of its terms, in units of the above
# largest relative difference between what the rows of an example get and what they must get (squares)
ROWS = {torch.float64: 1e-5, torch.float32: 2e-3}
COARSE_ROWS = 1e-1
POWERS, FEW_POWERS = 24, 5  # float16 overflows
# largest relative difference between the logits of examples in their batch and without the others
ALONE = {torch.float64: 1e-5, torch.float32: 2e-3}
COARSE_ALONE = 1e-1
GROUP = 2**30  # bytes of gradients that a proof holds at a time


@dataclass
class Proof:
    """What is known of one pattern: the roads of all parameters, and what could not be seen yet.

    `slow`: why a parameter is measured one example at a time. `unseen`: parameters whose gradient was zero in
    the proof, so that nothing was compared (LoRA's A while B is zero); they are proved again. `by_operation`: those of
    the fast ones that no module's rule covers.
    """

    fast: frozenset[str]
    slow: Mapping[str, str]
    unused: frozenset[str]
    unseen: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    uses: int = 0
    by_operation: frozenset[str] = frozenset()

    @property
    def due(self) -> bool:
        """Whether to prove again: with uses 1, 2, 4, 8, … as long as there is something unseen."""
        return bool(self.unseen) and self.uses & (self.uses - 1) == 0


@dataclass
class Plan:
    """What was found out about a model; kept across probes, it makes every proof once.

    Pass the same plan to every `estimate_fisher` of one model and one set of blocks.
    """

    proofs: dict[Any, Proof] = field(default_factory=dict)
    zeros: set[frozenset[str]] = field(default_factory=set)
    writes: bool | None = None  # does the model's forward write to what was there before? None: not known yet
    loose: frozenset[str] = frozenset()  # parameters that are followed from operation to operation
    keeps_inputs: bool = False  # give modules copies of their inputs, which the model changes in place


class NotByModule(Exception):
    """Parameters that no module's rule measures, of which nobody has looked at the single operations yet."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(names)
        self.names = names


class ChangedInPlace(Exception):
    """A tensor that a gradient needs was written to after it was stored."""


def example_weights(examples: int, powers: int, seed: int = 0) -> np.ndarray:
    """A weight for every example: zero for one, and for the others powers of two, no two alike in `powers`
    neighbours."""
    draw = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, examples]))
    exponents = np.concatenate([draw.permutation(powers) for _ in range(0, examples, powers)])[:examples]
    weights = np.exp2(exponents.astype(np.float64))
    if examples > 1:
        weights[draw.integers(examples)] = 0.0
    return weights


@dataclass
class Prover:
    """Proves one pattern: `predict` runs the model, `blocks` are what is measured."""

    predict: Callable[[Batch], Prediction]
    blocks: Sequence[Block]
    parameters: Mapping[str, nn.Parameter]
    plan: Plan
    compare_alone: bool  # False where the forward pass draws random numbers

    def prove(self, taps: Taps, prediction: Prediction, batch: Batch) -> Proof:
        """The proof of this batch's pattern: an old one, or a new one.

        Raises `InputError` where no road gives a right number, `ChangedInPlace` where the inputs of modules
        have to be kept.
        """
        graph = read_graph(prediction.logits, self.parameters)
        taps.keep(graph.nodes)
        guess = self._guess(taps, graph)
        untried = frozenset(
            n for n in guess.slow if n not in self.plan.loose and self._fits(n, taps.examples)
        )
        if untried:
            raise NotByModule(untried)
        lost = place_rows(taps, prediction, graph, self._powers(taps, prediction.logits))
        if new := frozenset(name for name in lost - self.plan.loose if self._fits(name, taps.examples)):
            raise NotByModule(new)
        guess = Proof(guess.fast - lost, {**guess.slow, **dict.fromkeys(lost, MIXED)}, guess.unused)
        key = (taps.pattern, frozenset(graph.uses.items()), prediction.logits.shape)
        known = self.plan.proofs.get(key)
        if known is None or known.due:
            fresh = self._new(taps, prediction, batch, graph, known, guess)
            if fresh is None:
                return guess  # nothing could be seen with this batch
            fresh.uses = 0 if known is None else known.uses
            self.plan.proofs[key] = known = fresh
        known.uses += 1
        if graph.gathers and known.uses > 1:
            return self._routed(known, taps, prediction, graph)
        return known

    def _fits(self, name: str, examples: int) -> bool:
        parameter = self.parameters[name]
        return examples * parameter.numel() * parameter.element_size() <= ROOM

    def _guess(self, taps: Taps, graph: Graph) -> Proof:
        slow = {}
        for name in graph.used:
            if name in taps.loose:
                if not taps.calls[name] or name in taps.tangled:
                    slow[name] = NO_RULE
            elif not taps.calls[name]:
                slow[name] = NO_RULE
            elif name in taps.unruly:
                slow[name] = LAYOUT
            elif graph.uses[name] > taps.calls[name]:
                slow[name] = BEHIND
        return Proof(graph.used - slow.keys(), slow, frozenset(self.parameters) - graph.used)

    def _new(
        self,
        taps: Taps,
        prediction: Prediction,
        batch: Batch,
        graph: Graph,
        known: Proof | None,
        guess: Proof,
    ) -> Proof | None:
        found = self._compare(taps, prediction, guess, graph)
        if not found.conclusive:
            return None
        slow = {**guess.slow, **dict.fromkeys(found.wrong, OTHER), **dict.fromkeys(found.mixed, MIXED)}
        if known is not None:  # what was seen once counts, also where this batch does not show it
            slow |= {name: why for name, why in known.slow.items() if name not in slow}
        notes = known.notes if known is not None else ()
        if known is None and batch.size > 1 and self.compare_alone:
            tolerance = self._tolerance(ALONE, COARSE_ALONE, prediction.logits, taps)
            notes = self._alone(prediction, batch, slow, found.where, tolerance)
        self._check_zeros(guess.unused | found.zero, graph, batch)
        fast = guess.fast - slow.keys()
        followed = fast.intersection(taps.loose)
        return Proof(fast, slow, guess.unused, found.zero & guess.fast, notes, by_operation=followed)

    # -- one backward pass ------------------------------------------------------------------------------------------

    def _compare(self, taps: Taps, prediction: Prediction, guess: Proof, graph: Graph) -> "Comparison":
        logits = prediction.logits
        names = sorted(graph.used)
        if not names:
            return Comparison()
        cotangent = random_cotangent(prediction)
        checks = [torch.isfinite(logits.detach()).all() & (cotangent != 0).any()]
        rows: dict[int, Tensor] = {}  # of every call: how large the gradient of each example's rows is
        claims: dict[str, tuple[Tensor, Tensor]] = {}
        for group in self._groups(names):
            self._claims(taps, logits, cotangent, guess.fast, group, rows, claims)
        leaks = self._leaks(taps, prediction, cotangent, rows)
        return Comparison.of(taps, names, guess.fast, checks, leaks, claims)

    def _claims(
        self,
        taps: Taps,
        logits: Tensor,
        cotangent: Tensor,
        fast: frozenset[str],
        group: Sequence[str],
        rows: dict[int, Tensor],
        claims: dict[str, tuple[Tensor, Tensor]],
    ) -> None:
        """Whether the sums of per-example gradients are autograd's, for the parameters of `group`; and `rows`."""
        sums: dict[str, Tensor] = {}
        bounds: dict[str, Tensor] = {}
        wanted = fast.intersection(group)

        def on_call(tapped: Tapped, gradient: Tensor) -> None:
            if tapped.stale:
                raise ChangedInPlace
            g = taps.rows_of(tapped, gradient)
            rows[id(tapped.call)] = _row_sizes(g)
            size = _size(g, tapped.call.stored)
            for name in taps.loose.keys() & tapped.names.values():
                bounds[name] = bounds[name] + size if name in bounds else size
            for name, found in taps.gradients(tapped, gradient, wanted).items():
                total = found.total().reshape(self.parameters[name].shape)
                sums[name] = sums[name] + total if name in sums else total
                bounds[name] = bounds[name] + size if name in bounds else size

        gradients = self._backward(taps, logits, cotangent, on_call, group)
        for name, found in taps.settle(wanted).items():
            sums[name] = found.total().reshape(self.parameters[name].shape)
        tolerance = self._tolerance(CLAIM, COARSE_CLAIM, logits, taps)
        for name, gradient in zip(group, gradients, strict=True):
            claims[name] = _claim(gradient, sums.get(name), bounds.get(name), tolerance, logits)

    def _leaks(
        self, taps: Taps, prediction: Prediction, cotangent: Tensor, rows: Mapping[int, Tensor], seed: int = 0
    ) -> dict[str, list[Tensor]]:
        """For every parameter's calls: do their rows get something else than the weight of their example?"""
        leaks: dict[str, list[Tensor]] = defaultdict(list)
        if taps.examples == 1 or not rows:
            return leaks
        logits = prediction.logits
        weights = self._weights(taps, logits, seed)
        tolerance = self._tolerance(ROWS, COARSE_ROWS, logits, taps)

        def on_call(tapped: Tapped, gradient: Tensor) -> None:
            leak = _leak(
                rows[id(tapped.call)], _row_sizes(taps.rows_of(tapped, gradient)), weights, tolerance
            )
            for name in tapped.names.values():
                leaks[name].append(leak)

        taps.backward(logits, cotangent * weights.view(-1, 1, 1).to(cotangent), on_call, retain_graph=True)
        return leaks

    def _weights(self, taps: Taps, logits: Tensor, seed: int) -> Tensor:
        weights = example_weights(taps.examples, self._powers(taps, logits), seed)
        return torch.from_numpy(weights.astype(np.float32)).to(logits.device)

    def _powers(self, taps: Taps, logits: Tensor) -> int:
        return FEW_POWERS if torch.float16 in (logits.dtype, taps.autocast) else POWERS

    def _backward(
        self, taps: Taps, logits: Tensor, cotangent: Tensor, on_call: Any, group: Sequence[str]
    ) -> tuple[Tensor | None, ...]:
        inputs = [self.parameters[name] for name in group]
        try:
            return taps.backward(logits, cotangent, on_call, inputs, retain_graph=True)
        except RuntimeError as error:
            if "modified by an inplace operation" in str(error):
                raise ChangedInPlace from error
            raise

    def _groups(self, names: Sequence[str]) -> list[list[str]]:
        """The names in groups whose gradients fit into `GROUP` bytes."""
        groups: list[list[str]] = [[]]
        room = GROUP
        for name in names:
            size = 4 * self.parameters[name].numel()
            if size > room and groups[-1]:
                groups.append([])
                room = GROUP
            groups[-1].append(name)
            room -= size
        return groups

    def _tolerance(
        self, table: Mapping[torch.dtype, float], coarse: float, logits: Tensor, taps: Taps
    ) -> float:
        kinds = {logits.dtype, *(p.dtype for p in self.parameters.values())}
        if taps.autocast is not None:
            kinds.add(taps.autocast)
        return max(table.get(kind, coarse) for kind in kinds)

    # -- where rows are chosen by index -----------------------------------------------------------------------------

    def _routed(self, proof: Proof, taps: Taps, prediction: Prediction, graph: Graph) -> Proof:
        """The proof, without the parameters whose rows are not the examples in this very batch."""
        chosen = [
            tapped
            for tapped in taps.tapped.values()
            if id(tapped.call) not in taps.places
            and (graph.reorders or len(tapped.shape) == 2)
            and proof.fast.intersection(tapped.names.values())
        ]
        if not chosen or taps.examples == 1:
            return proof
        logits, cotangent = prediction.logits, random_cotangent(prediction)
        weights = self._weights(taps, logits, seed=proof.uses)
        tolerance = self._tolerance(ROWS, COARSE_ROWS, logits, taps)
        edges = [tapped.edge for tapped in chosen]
        with backpack(retain_graph=True):  # the calls keep what they stored
            plain = gradient_of(logits, edges, cotangent, retain_graph=True)
            weighted = gradient_of(
                logits, edges, cotangent * weights.view(-1, 1, 1).to(cotangent), retain_graph=True
            )
        there = [row for row in zip(chosen, plain, weighted, strict=True) if row[1] is not None]
        if not there:
            return proof
        sizes = [[_row_sizes(taps.per_example(g)) for g in row[1:] if g is not None] for row in there]
        flags = torch.stack([_leak(before, after, weights, tolerance) for before, after in sizes])
        mixed = {
            name
            for (tapped, *_), leak in zip(there, flags.tolist(), strict=True)
            if leak
            for name in tapped.names.values()
        }
        if not mixed:
            return proof
        return Proof(
            proof.fast - mixed, {**proof.slow, **dict.fromkeys(mixed, MIXED)}, proof.unused, notes=proof.notes
        )

    # -- examples without the others --------------------------------------------------------------------------------

    def _alone(
        self,
        prediction: Prediction,
        batch: Batch,
        slow: Mapping[str, str],
        where: str,
        tolerance: float,
    ) -> tuple[str, ...]:
        """Notes; `InputError` if a parameter has to be measured one example at a time and examples depend on
        one another."""
        change = self._change_without_the_others(prediction, batch)
        if change <= tolerance:
            return ()
        again = _difference(prediction, self.predict(batch), slice(None))
        if again > tolerance:
            return ("the forward pass draws random numbers: no two are alike",)
        size = "is of another shape" if math.isinf(change) else f"changes by {100 * change:.2g} %"
        what = f"the output for an example {size} when others leave its batch{where}"
        if slow:
            raise InputError(
                f"the examples of a batch depend on one another: {what}, so that none has a gradient of its own "
                "(BatchNorm without running statistics, attention between rows, negatives from the batch?); expected "
                "independent examples, or granularity='batch', which measures a batch as the unit"
            )
        return (f"{what}, below everything that is measured: measured given the batches as they are",)

    def _change_without_the_others(self, prediction: Prediction, batch: Batch) -> float:
        """The largest relative change of the logits of the first and the last example when all others are gone."""
        index = torch.tensor([0, batch.size - 1] if batch.size > 2 else [0])
        try:
            part = self.predict(batch.take(index))
        except Exception:
            return math.inf
        return _difference(prediction, part, index.to(prediction.logits.device))

    # -- zero, or not measurable ------------------------------------------------------------------------------------

    def _check_zeros(self, names: frozenset[str], graph: Graph, batch: Batch) -> None:
        """`InputError` if the output has a slope along parameters that no gradient reaches."""
        if not names or names in self.plan.zeros:
            return

        def logits() -> Tensor:
            predicted = self.predict(batch)
            return torch.where(predicted.scored.unsqueeze(-1), predicted.logits.detach(), 0.0)

        if depends(logits, [self.parameters[name] for name in sorted(names)]):
            for block in self.blocks:
                for name, parameter in block.parameters.items():
                    if name in names and depends(logits, [parameter]):
                        raise InputError(_not_measurable(name, block.name, graph.checkpointed))
        self.plan.zeros.add(names)


def _not_measurable(name: str, block: str, checkpointed: bool) -> str:
    why = (
        "torch.utils.checkpoint with use_reentrant=True hides it; use_reentrant=False does not"
        if checkpointed
        else "a detached tensor, a reentrant checkpoint, a function without a gradient, or quantised weights?"
    )
    return (
        f"the output depends on parameter {name!r} of block {block!r}, but no gradient reaches it ({why}); "
        "its Fisher information cannot be measured: leave it out of the blocks"
    )


@dataclass(frozen=True)
class Comparison:
    """What one pass showed: parameters whose rows are mixed, whose rule is wrong, whose gradient is zero."""

    conclusive: bool = True
    mixed: frozenset[str] = frozenset()
    wrong: frozenset[str] = frozenset()
    zero: frozenset[str] = frozenset()
    where: str = ""

    @classmethod
    def of(
        cls,
        taps: Taps,
        names: Sequence[str],
        fast: frozenset[str],
        checks: list[Tensor],
        leaks: Mapping[str, list[Tensor]],
        claims: Mapping[str, tuple[Tensor, Tensor]],
    ) -> "Comparison":
        """The one transfer from the device of a proof."""
        no = torch.zeros_like(checks[0])
        rows = [torch.stack([*leaks[name]]).any() if leaks.get(name) else no for name in names]
        rows += [claims[name][0] for name in names] + [claims[name][1] for name in names]
        flags = torch.stack([*checks, *rows]).tolist()
        count = len(names)
        leaking, wrong, zero = (
            frozenset(name for name, flag in zip(names, flags[start : start + count], strict=True) if flag)
            for start in range(1, 1 + 3 * count, count)
        )
        where = ""
        if leaking:
            last = max(
                (
                    number
                    for number, tapped in enumerate(taps.tapped.values())
                    if leaking & set(tapped.names.values())
                ),
            )
            name = next(iter(list(taps.tapped.values())[last].names.values()))
            where = f" (somewhere after {name.rpartition('.')[0]!r})"
        return cls(bool(flags[0]), leaking & fast, wrong & fast, zero, where)


def _row_sizes(g: Tensor) -> Tensor:
    """‖g_n‖² of every example's rows, `[N]`."""
    return g.flatten(1).square().sum(1)


def _leak(before: Tensor, after: Tensor, weights: Tensor, tolerance: float) -> Tensor:
    """Whether any example's rows have not grown by the square of its weight."""
    expected = weights.square().to(before) * before
    return ((after - expected).abs() > tolerance * expected).any()


def _size(g: Tensor, stored: Tensor) -> Tensor:
    """A bound of what rounding can do to Σ g aᵀ: ‖g‖ (‖a‖ + √ of its numbers)."""
    a = stored.detach().float().norm() if stored.is_floating_point() else 0.0
    return g.norm() * (a + math.sqrt(stored.numel()))


def _claim(
    gradient: Tensor | None, total: Tensor | None, bound: Tensor | None, tolerance: float, logits: Tensor
) -> tuple[Tensor, Tensor]:
    """(is the sum of per-example gradients something else than autograd's gradient, is the latter zero)"""
    if gradient is None:
        yes = torch.ones((), dtype=torch.bool, device=logits.device)
        return ~yes if total is None else (total != 0).any(), yes
    if gradient.layout != torch.strided:
        gradient = gradient.to_dense()
    zero = ~(gradient != 0).any()
    if total is None or bound is None:
        return ~zero, zero  # nothing came back from the taps
    difference = (total - gradient.to(total.dtype)).norm()
    failed = ~torch.isfinite(total).all() & torch.isfinite(gradient).all()
    return failed | (difference > tolerance * (gradient.to(total.dtype).norm() + ROUNDING * bound)), zero


def _difference(whole: Prediction, part: Prediction, index: Any) -> float:
    """The largest relative difference between the logits of `part` and those rows of `whole`."""
    expected, scored = whole.logits.detach()[index], whole.scored[index]
    found = part.logits.detach()
    if found.shape != expected.shape:
        return math.inf
    mask = scored.unsqueeze(-1)
    largest = torch.where(mask, expected.abs(), 0.0).max().clamp(min=1e-30)
    return float((torch.where(mask, (found - expected).abs(), 0.0).max() / largest).nan_to_num(0.0))
