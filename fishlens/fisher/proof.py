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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fishlens.fisher.alone import ALONE, without_the_others
from fishlens.fisher.batches import Batch
from fishlens.fisher.blocks import Block
from fishlens.fisher.claims import CLAIM, Claims
from fishlens.fisher.graph import Graph, read_graph
from fishlens.fisher.operations import fits
from fishlens.fisher.outputs import BatchLogits
from fishlens.fisher.routing import place_rows, random_cotangent
from fishlens.fisher.rows import FEW_POWERS, POWERS, ROWS, Rows, example_weights, mixed_calls
from fishlens.fisher.tally import extremes
from fishlens.fisher.taps import Taps
from fishlens.fisher.transfer import fetched
from fishlens.fisher.walk import Tree, modules
from fishlens.fisher.zeros import check_zeros

NO_RULE = "no rule covers it"
BEHIND = "something else than its module reads it"
LAYOUT = "its module does not see one row per example"
MIXED = "the rows of its module are not the examples"
SILENT = "no gradient came back through its module"
OTHER = "its module does more than its rule says"


@dataclass
class Proof:
    """What is known of one pattern: how each parameter is measured, and what could not be seen yet.

    `slow`: why a parameter is measured one example at a time. `unseen`: parameters whose gradient was zero in
    the proof, so that nothing was compared (LoRA's A while B is zero); they are proved again. `by_operation`: those of
    the fast ones that no module's rule covers; `by_module`: those for which a module runs again.
    """

    fast: frozenset[str]
    slow: Mapping[str, str]
    unused: frozenset[str]
    unseen: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    uses: int = 0
    by_operation: frozenset[str] = frozenset()
    by_module: frozenset[str] = frozenset()

    @property
    def due(self) -> bool:
        """Whether to prove again: with uses 1, 2, 4, 8, … as long as there is something unseen."""
        return bool(self.unseen) and self.uses & (self.uses - 1) == 0


@dataclass
class Plan:
    """What was found out about a model; kept across probes, it makes every proof once.

    Pass the same plan to every `estimate_fisher` of one model and one set of blocks. It holds on to the model.
    """

    proofs: dict[Any, Proof] = field(default_factory=dict)
    zeros: dict[frozenset[str], tuple[str, ...]] = field(default_factory=dict)  # what is zero: notes
    writes: bool | None = None  # does the model's forward write to what was there before? None: not known yet
    loose: frozenset[str] = frozenset()  # parameters that are followed from operation to operation
    # parameters for which a module around them runs again, as many steps out as given; those for which none is right
    again: dict[str, int] = field(default_factory=dict)
    exhausted: set[str] = field(default_factory=set)
    keeps_inputs: bool = False  # give modules copies of their inputs, which the model changes in place
    tree: Tree | None = None  # the model's modules and tensors at the last probe

    def look_further(self, names: Iterable[str], around: Mapping[str, Sequence[nn.Module]]) -> None:
        """For each of the parameters the next module around it is to run again, while there is one."""
        for name in names:
            steps = self.again.pop(name, -1) + 1
            if steps < len(around[name]):
                self.again[name] = steps
            else:
                self.exhausted.add(name)
        self.loose -= self.again.keys()


class NotByModule(Exception):
    """Parameters that no module's rule measures, of which nobody has looked at the single operations yet."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(names)
        self.names = names


class NotByOperation(Exception):
    """Parameters that neither a rule nor following them measures, and of which not all modules around were tried."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(names)
        self.names = names


@dataclass
class Prover:
    """Proves one pattern: `predict` runs the model, `blocks` are what is measured."""

    predict: Callable[[Batch], BatchLogits]
    model: nn.Module
    blocks: Sequence[Block]
    parameters: Mapping[str, nn.Parameter]
    plan: Plan
    memory: int = 0  # bytes that the gradients of several parameters may take at a time, as in the probe

    def prove(self, taps: Taps, prediction: BatchLogits, batch: Batch) -> Proof:
        """The proof of this batch's pattern: an old one, or a new one.

        Raises `InputError` where nothing gives a right number, `ChangedInPlace` where the inputs of modules
        have to be kept.
        """
        graph = read_graph(prediction.logits, self.parameters)
        taps.keep(graph.nodes)
        self.plan.loose |= taps.loose.keys()
        guess = self._guess(taps, graph)
        if untried := frozenset(self._left(guess.slow, taps)) - self.plan.loose - self.plan.again.keys():
            raise NotByModule(untried)
        lost = place_rows(taps, prediction, self._powers(taps, prediction.logits))
        if new := frozenset(self._left(lost, taps)) - self.plan.loose - self.plan.again.keys():
            raise NotByModule(new)
        self._look_further([*guess.slow, *lost], taps)
        guess = Proof(guess.fast - lost, {**guess.slow, **dict.fromkeys(lost, MIXED)}, guess.unused)
        key = (taps.pattern, tuple(graph.uses.items()), prediction.logits.shape)
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

    def _left(self, names: Iterable[str], taps: Taps) -> Iterator[str]:
        """Those of the parameters for which something is still to be tried."""
        for name in names:
            if name not in self.plan.exhausted and fits(self.parameters[name], taps.examples):
                yield name

    def _look_further(self, names: Iterable[str], taps: Taps) -> None:
        if further := frozenset(self._left(names, taps)):
            raise NotByOperation(further)

    def _guess(self, taps: Taps, graph: Graph) -> Proof:
        slow, calls = {}, taps.calls
        for name, uses in graph.uses.items():
            if not uses:
                continue
            if name not in calls:
                slow[name] = NO_RULE
            elif name in self.plan.again:
                if name in taps.irregular:
                    slow[name] = NO_RULE
            elif name in taps.loose:
                if name in taps.tangled:
                    slow[name] = NO_RULE
            elif name in taps.irregular:
                slow[name] = LAYOUT
            elif uses > calls[name]:
                slow[name] = BEHIND
        return Proof(graph.used - slow.keys(), slow, frozenset(self.parameters) - graph.used)

    def _new(
        self,
        taps: Taps,
        prediction: BatchLogits,
        batch: Batch,
        graph: Graph,
        known: Proof | None,
        guess: Proof,
    ) -> Proof | None:
        found = self._compare(taps, prediction, guess, graph)
        if not found.conclusive:
            return None
        failed = found.wrong | found.mixed
        self._look_further([n for n in failed if n in taps.loose or n in self.plan.again], taps)
        slow = {**guess.slow, **dict.fromkeys(found.wrong, OTHER), **dict.fromkeys(found.mixed, MIXED)}
        if known is not None:  # what was seen once counts, also where this batch does not show it
            slow |= {name: why for name, why in known.slow.items() if name not in slow}
        notes = known.notes if known is not None else ()
        drawing = any(module.training for module in modules(self.model))  # random numbers, as dropout does
        if known is None and batch.size > 1 and not drawing:
            tolerance = ALONE.of(self._kinds(taps, prediction.logits))
            notes = without_the_others(self.predict, prediction, batch, bool(slow), found.where, tolerance)
        zero = guess.unused | found.zero
        if zero and zero not in self.plan.zeros:
            self.plan.zeros[zero] = check_zeros(
                self.predict, self.blocks, zero, graph.checkpointed, batch, graph.padding
            )
        notes = (*dict.fromkeys((*notes, *self.plan.zeros.get(zero, ()))),)
        fast = guess.fast - slow.keys()
        followed = fast.intersection(taps.loose)
        again = fast.intersection(self.plan.again)
        return Proof(fast, slow, guess.unused, found.zero & guess.fast, notes, 0, followed, again)

    def _compare(self, taps: Taps, prediction: BatchLogits, guess: Proof, graph: Graph) -> "Found":
        """Two backward passes: which rows are mixed, which rules are wrong, which gradients are zero."""
        names = sorted(graph.used)
        if not names:
            return Found()
        logits, cotangent = prediction.logits, random_cotangent(prediction)
        rows, claims = Rows(taps), Claims(taps, self.parameters, guess.fast, self.memory)
        claims.compare(logits, cotangent, names, rows)
        weights = None
        if taps.examples > 1 and rows.before:
            weights = example_weights(taps.examples, self._powers(taps, logits))
            rows.weigh(logits, cotangent, weights, self.memory)
        usable = torch.isfinite(extremes(logits)).all() & (cotangent != 0).any()
        kinds = self._kinds(taps, logits)
        fetch = fetched({"usable": usable, "rows": rows.waiting, "claims": claims.waiting})
        mixed = rows.mixed(fetch["rows"], weights, ROWS.of(kinds)) if weights is not None else []
        wrong, zero = claims.verdict(fetch["claims"], rows.sizes(fetch["rows"]), CLAIM.of(kinds))
        leaking = frozenset(name for tapped in mixed for name in tapped.names.values())
        return Found(
            bool(fetch["usable"]), leaking & guess.fast, wrong & guess.fast, zero, _after(taps, leaking)
        )

    def _powers(self, taps: Taps, logits: Tensor) -> int:
        return FEW_POWERS if torch.float16 in (logits.dtype, taps.autocast) else POWERS

    def _kinds(self, taps: Taps, logits: Tensor) -> set[torch.dtype]:
        kinds = {logits.dtype, *(p.dtype for p in self.parameters.values())}
        return kinds if taps.autocast is None else kinds | {taps.autocast}

    # -- where rows are chosen by index -----------------------------------------------------------------------------

    def _routed(self, proof: Proof, taps: Taps, prediction: BatchLogits, graph: Graph) -> Proof:
        """The proof, without the parameters whose rows are not the examples in this very batch."""
        chosen = [
            tapped
            for tapped in taps.tapped
            if id(tapped.call) not in taps.places
            and (graph.reorders or len(tapped.shape) == 2)
            and proof.fast.intersection(tapped.names.values())
        ]
        if not chosen or taps.examples == 1:
            return proof
        logits, cotangent = prediction.logits, random_cotangent(prediction)
        weights = example_weights(taps.examples, self._powers(taps, logits), seed=proof.uses)
        leaking = mixed_calls(taps, chosen, logits, cotangent, weights, ROWS.of(self._kinds(taps, logits)))
        mixed = {name for tapped in leaking for name in tapped.names.values()}
        if not mixed:
            return proof
        return Proof(
            proof.fast - mixed, {**proof.slow, **dict.fromkeys(mixed, MIXED)}, proof.unused, notes=proof.notes
        )


@dataclass(frozen=True)
class Found:
    """What the two passes showed: parameters whose rows are mixed, whose rule is wrong, whose gradient is zero."""

    conclusive: bool = True
    mixed: frozenset[str] = frozenset()
    wrong: frozenset[str] = frozenset()
    zero: frozenset[str] = frozenset()
    where: str = ""


def _after(taps: Taps, leaking: frozenset[str]) -> str:
    """The last module whose rows are mixed, in words."""
    last = [tapped for tapped in taps.tapped if leaking & set(tapped.names.values())][-1:]
    names = [next(iter(tapped.names.values())) for tapped in last]
    return "".join(f" (somewhere after {name.rpartition('.')[0]!r})" for name in names)
