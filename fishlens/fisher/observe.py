"""The observer promise: a model is the same after a measurement as before it."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def observing(model: nn.Module, measured: Iterable[nn.Parameter], mode: str = "eval") -> Iterator[None]:
    """Inside, exactly the `measured` parameters require a gradient and the model is in `mode`; outside, all
    is as before.

    Restored whatever happens inside: the random states of Python, numpy and torch on every device, every
    module's `training` flag, every parameter's `requires_grad` and `grad`. `mode` is "eval", "train" or "as
    is".
    """
    numpy_state = np.random.get_state()  # noqa: NPY002 (the global generator is what must not move)
    python_state, cpu_state = random.getstate(), torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    training = [(module, module.training) for module in model.modules()]
    parameters: list[tuple[Tensor, bool, Tensor | None]] = [
        (p, p.requires_grad, p.grad) for p in model.parameters()
    ]
    wanted = {id(p) for p in measured}
    try:
        if mode != "unchanged":
            model.train(mode == "train")
        for parameter, requires, _ in parameters:
            if requires != (id(parameter) in wanted):
                parameter.requires_grad_(not requires)
        yield
    finally:
        for module, flag in training:
            module.training = flag
        for parameter, requires, gradient in parameters:
            if parameter.requires_grad != requires:
                parameter.requires_grad_(requires)
            if parameter.grad is not gradient:
                parameter.grad = gradient
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(cpu_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)
