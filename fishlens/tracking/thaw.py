"""Applying a schedule's decision to a model: exactly the thawed blocks train, and they really do.

"A schedule that silently trains nothing" is the usual bug of unfreezing: the optimizer never got the parameters, a
wrapper stopped synchronising them, somebody froze them again. So whoever thaws a block also watches it: its weights
must differ after the next update.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from fishlens.fisher.blocks import Block


class BlockDidNotMove(RuntimeError):
    """A thawed block has the same weights after an update that should have changed them."""


def set_trainable(blocks: "Iterable[Block]", thawed: Collection[str]) -> None:
    """Exactly the blocks named in `thawed` require gradients; the others have `.grad is None`.

    Without a gradient an optimizer skips a parameter: no weight decay, no momentum. The optimizer must have been
    given all blocks before the first call.
    """
    for block in blocks:
        trains = block.name in thawed
        for parameter in block.parameters.values():
            parameter.requires_grad_(trains)
            if not trains:
                parameter.grad = None


def check_trainable(
    named_parameters: Iterable[tuple[str, torch.nn.Parameter]], wanted: Collection[str]
) -> None:
    """Raises `RuntimeError` unless exactly the parameters named in `wanted` require gradients."""
    trains = {name for name, parameter in named_parameters if parameter.requires_grad}
    if trains != set(wanted):
        extra, missing = sorted(trains - set(wanted)), sorted(set(wanted) - trains)
        raise RuntimeError(
            f"the trainable parameters are not those of the thawed blocks: {len(extra)} too many {extra[:3]}, "
            f"{len(missing)} missing {missing[:3]}"
        )


class Movement:
    """Watches thawed blocks until each was seen to move.

    A block counts as moved if any of its weights changed: LoRA's A gets no gradient in the first step after the
    start, because B is zero, but B moves.
    """

    def __init__(self) -> None:
        self._before: dict[str, dict[str, torch.Tensor]] = {}

    def __bool__(self) -> bool:
        return bool(self._before)

    def expect(self, blocks: "Iterable[Block]") -> None:
        """Remember these blocks' weights: they are to change at the next update."""
        for block in blocks:
            self._before[block.name] = {
                name: parameter.detach().clone() for name, parameter in block.parameters.items()
            }

    def verify(self, blocks: "Mapping[str, Block]", step: int) -> None:
        """Call after update number `step` that was made with a learning rate above 0. Raises `BlockDidNotMove`."""
        for name, before in self._before.items():
            now = blocks[name].parameters
            if all(torch.equal(now[key].detach(), value) for key, value in before.items()):
                gradients = sum(p.grad is not None for p in now.values())
                raise BlockDidNotMove(
                    f"block {name!r} was thawed but update {step} left all its {len(now)} parameters as they were "
                    f"({gradients} of them have a gradient): is it in the optimizer, and does it matter to the loss?"
                )
        self._before.clear()
