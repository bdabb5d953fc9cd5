"""What a probe needs to know of a model and its data, and what it makes of them in plain numbers."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch
from torch import nn

from fishlens.fisher import Block, FisherEstimate, find_blocks
from fishlens.fisher.transfer import widest
from fishlens.schedules import Scores
from fishlens.tracking.calls import unheard


def blocks_of(
    model: nn.Module, blocks: Sequence[Block] | str | None, *, head: bool = True, embeddings: bool = False
) -> list[Block]:
    """Blocks as they were given, or those that `find_blocks` makes by a name or pattern."""
    if blocks is None or isinstance(blocks, str):
        return list(find_blocks(model, by=blocks or "auto", head=head, embeddings=embeddings))
    return list(blocks)


def summed_up(notes: Iterable[str]) -> list[str]:
    """Notes of the form "parameter: sentence", one a sentence: three of the parameters by name, the others counted."""
    by_sentence: dict[str, list[str]] = {}
    for note in notes:
        name, separator, sentence = note.partition(": ")
        by_sentence.setdefault(sentence if separator else note, []).append(name if separator else "")
    found = []
    for sentence, names in by_sentence.items():
        more = f" and {len(names) - 3} more parameters" if len(names) > 3 else ""
        found.append(f"{', '.join(names[:3])}{more}: {sentence}" if names[0] else sentence)
    return found


@contextmanager
def unseen() -> Iterator[None]:
    """Our own calls of the model are not what it is fed, and neither use nor leave weights in the cache of an autocast
    that is under way."""
    cached = torch.is_autocast_cache_enabled()
    with unheard():
        try:
            torch.set_autocast_cache_enabled(False)
            yield
        finally:
            torch.set_autocast_cache_enabled(cached)


def scores_of(estimate: FisherEstimate) -> Scores:
    """What a schedule may look at, in plain numbers."""
    return Scores(
        trace=estimate.trace,
        stderr=estimate.stderr,
        per_example={block: values.tolist() for block, values in estimate.per_example.items()},
        examples=estimate.examples,
    )


def parameter_norms(blocks: Iterable[Block]) -> torch.Tensor:
    """‖θ‖ of every parameter of every block, one after the other."""
    parameters = [p.detach() for block in blocks for p in block.parameters.values()]
    return torch.stack(torch._foreach_norm(parameters, 2, dtype=widest(parameters[0].device)))


def weight_norms(blocks: Iterable[Block], norms: np.ndarray) -> dict[str, float]:
    """‖θ_b‖ of every block, from the `parameter_norms` once they are fetched."""
    each = iter(norms.tolist())
    return {block.name: math.hypot(*islice(each, len(block.parameters))) for block in blocks}
