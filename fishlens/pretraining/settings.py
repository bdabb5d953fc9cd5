"""How a masked-language model is trained: the settings of an encoder's pretraining and of a language adapter's."""

import math
from dataclasses import dataclass

from fishlens.errors import InputError


@dataclass(frozen=True)
class MaskedLMSettings:
    """How to train. `warmup` is a number of steps; the learning rate then falls linearly to zero at `steps`.

    `precision` is that of the forward pass: bf16 runs it under autocast; weights, optimizer and loss stay float32.
    `minutes` is a limit: training ends when it has lasted so long, and the learning rate falls to zero by then. Such
    a run is not repeatable to the bit, because it depends on the speed of the machine.
    """

    steps: int
    batch: int = 64
    max_length: int = 64
    learning_rate: float = 1e-3
    warmup: int = 0
    weight_decay: float = 0.01
    mask_share: float = 0.15
    clip: float = 1.0
    seed: int = 0
    log_every: int = 50
    save_every: int = 500
    precision: str = "fp32"
    minutes: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate is {self.learning_rate}; expected a number above 0")
        if self.precision not in ("fp32", "bf16"):
            raise InputError(f"precision is {self.precision!r}; expected fp32 or bf16")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise InputError(f"minutes is {self.minutes}; expected a number above 0")
