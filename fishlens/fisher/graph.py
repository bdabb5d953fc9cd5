"""The autograd graph behind the logits: which parameters enter it, and whether it moves rows by index."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

GATHERS = frozenset(
    f"{kind}Backward{number}"
    for kind in (
        "Index", "IndexPut", "IndexAdd", "IndexCopy", "IndexSelect", "IndexFill", "Gather", "Scatter", "ScatterAdd",
        "ScatterReduce", "MaskedSelect", "MaskedScatter", "Take",
    )
    for number in (0, 1, 2, 3)
)  # fmt: skip
LOOKUP, CHECKPOINT = "EmbeddingBackward0", "CheckpointFunctionBackward"
_MATTERS = GATHERS | {LOOKUP, CHECKPOINT}


def _type_of_leaves() -> type:
    with torch.inference_mode(False), torch.enable_grad():
        node: Any = torch.zeros((), device="cpu", requires_grad=True).neg().grad_fn
    return type(node.next_functions[0][0])


_LEAF: Any = _type_of_leaves()  # autograd's AccumulateGrad


@dataclass(frozen=True)
class Graph:
    """`uses`: how many edges enter each parameter (0: the logits do not depend on it through this graph).

    `gathers`: some rows are chosen by index, so that what a module sees may depend on the data. `reorders`:
    whole rows of the leading dimension are. `checkpointed`: part of the graph is hidden in a reentrant
    checkpoint. `nodes`: all of it; what a forward pass computes and drops (DoRA's norms of weights) is not there.
    `padding`: the rows of each table that a lookup reads and never trains (its `padding_idx`).
    """

    uses: Mapping[str, int]
    gathers: bool
    reorders: bool
    checkpointed: bool
    nodes: Collection[Any] = ()
    padding: Mapping[str, frozenset[int]] = field(default_factory=dict)

    @cached_property
    def used(self) -> frozenset[str]:
        return frozenset(name for name, count in self.uses.items() if count)


def read_graph(logits: Tensor, parameters: Mapping[str, nn.Parameter]) -> Graph:
    """Walks from the logits to the leaves once: less than a millisecond per thousand nodes."""
    names = {id(p): name for name, p in parameters.items()}
    uses = dict.fromkeys(parameters, 0)
    padding: dict[str, frozenset[int]] = {}
    gathers = reorders = checkpointed = False
    seen: set[Any] = {logits.grad_fn}
    kinds: dict[type, str] = {}  # of what matters; "" for what does not
    stack: list[Any] = [] if logits.grad_fn is None else [logits.grad_fn]
    while stack:
        node = stack.pop()
        kind = kinds.get(type(node))
        if kind is None:
            name = node.name()
            kind = name if name in _MATTERS else ""
            if name == type(node).__name__:  # what python knows no type for has all its names under one
                kinds[type(node)] = kind
        if not kind:
            pass
        elif kind in GATHERS:
            gathers, reorders = True, reorders or _moves_whole_rows(node, kind)
        elif kind == CHECKPOINT:
            checkpointed = True
        for following, _ in node.next_functions:
            if following is None or following in seen:
                continue
            if type(following) is not _LEAF:
                seen.add(following)
                stack.append(following)
                continue
            variable = following.variable
            name = names.get(id(variable))
            if name is not None:
                uses[name] += 1
                if kind == LOOKUP and 0 <= node._saved_padding_idx < len(variable):  # none: -1, unsigned
                    padding[name] = padding.get(name, frozenset()) | {node._saved_padding_idx}
    return Graph(uses, gathers, reorders, checkpointed, seen, padding)


def _moves_whole_rows(node: Any, kind: str) -> bool:
    """Whether a node takes or puts whole rows of the leading dimension: `x[order]`, `x.index_select(0, order)`.

    `x[arange(N), last]`, with which decoders pool, takes one place in every row and moves none.
    """
    if kind.startswith(("Index", "IndexPut")) and hasattr(node, "_saved_indices"):
        indices = [index for index in node._saved_indices if index is not None]
        return len(indices) == 1
    return getattr(node, "_saved_dim", 0) == 0
