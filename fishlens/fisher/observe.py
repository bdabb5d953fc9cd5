"""The observer promise: a model is the same after a measurement as before it."""

import copy
import gc
import os
import random
import sys
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import compress
from operator import attrgetter, is_, itemgetter, ne
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fishlens.fisher.interrupts import Deferral, deferred_signals
from fishlens.fisher.kept import kept
from fishlens.fisher.walk import attributes, known, look_again, modules, parameters_of

_one_thread = threading.RLock()


def _free_in_a_child() -> None:
    """A process that is forked while another thread measures has no thread that would ever free the lock."""
    global _one_thread
    _one_thread = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_in_a_child)


@contextmanager
def undisturbed() -> Iterator[Deferral]:
    """Inside, no other thread measures, and signals wait."""
    with _one_thread, deferred_signals() as signals:
        yield signals


@contextmanager
def observing(model: nn.Module, measured: Iterable[nn.Parameter], mode: str = "eval") -> Iterator[None]:
    """Inside, exactly the `measured` parameters require a gradient and the model is in `mode`; outside, all
    is as before.

    Restored whatever happens inside, Ctrl-C included: the random states of Python, numpy and torch on every
    device, every module's `training` flag, every parameter's `requires_grad` and `grad`. `mode` is "eval",
    "train" or "unchanged". Modes are set as flags, because `train()` is code of the model's (loralib merges its
    adapters in it). Hooks on gradients, of parameters and of modules, do not run inside: they belong to
    training. What was compiled runs as it is written. One thread at a time: BackPACK hands the calls of every backward
    pass to whatever is measured in the process.
    """
    with undisturbed() as signals:
        inside, own, parameters = modules(model), attributes(model), parameters_of(model)
        flags, requires = _flags_of(inside, own), list(map(_requires_grad, parameters))
        gradients = list(map(_grad, parameters))
        wanted = {id(p) for p in measured}
        modes = training_flags(model, mode)
        try:
            with random_states_kept(), _without_gradient_hooks(model), _uncompiled():
                if modes and flags != (inner := list(modes.values())):
                    _set_flags(inside, own, inner)
                    look_again(model, sure=True)
                _require_gradients(parameters, requires, list(map(wanted.__contains__, map(id, parameters))))
                yield
        finally:
            signals.restoring = True
            _set_flags(inside, own, flags)
            _require_gradients(parameters, list(map(_requires_grad, parameters)), requires)
            if not all(map(is_, map(_grad, parameters), gradients)):
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    if parameter.grad is not gradient:
                        parameter.grad = gradient


_training, _requires_grad, _grad = attrgetter("training"), attrgetter("requires_grad"), attrgetter("grad")
_own_training, _hooks = itemgetter("training"), attrgetter("_backward_hooks")
_gradient_hooks = {name: itemgetter(name) for name in ("_backward_hooks", "_backward_pre_hooks")}


@contextmanager
def collector_paused() -> Iterator[None]:
    """Inside, Python's garbage collector does not start by itself.

    A forward pass and the look at its graph make thousands of objects that are gone soon after, without its help; it
    would look through everything that the program holds, again and again.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _set_flags(modules: Sequence[nn.Module], own: Sequence[dict[str, Any]], flags: Sequence[bool]) -> None:
    """`module.training = flag` of every module, without the code that a module runs when an attribute is set. `own`:
    the modules' attributes."""
    if _flags_of(modules, own) == flags:
        return
    for module, held, flag in zip(modules, own, flags, strict=True):
        if "training" in held:
            held["training"] = flag
        elif module.training != flag:
            module.training = flag


def _flags_of(modules: Sequence[nn.Module], own: Sequence[dict[str, Any]]) -> list[bool]:
    try:
        return list(map(_own_training, own))
    except KeyError:  # one is a property of somebody's class
        return list(map(_training, modules))


def _require_gradients(parameters: Sequence[Tensor], now: Sequence[bool], flags: Sequence[bool]) -> None:
    for parameter, flag in compress(zip(parameters, flags, strict=True), map(ne, now, flags)):
        parameter.requires_grad_(flag)


@contextmanager
def random_states_kept(data: Any = None) -> Iterator[None]:
    """Afterwards the random states of Python, numpy and torch on every device are as before; and what `data` keeps (see
    `reading`)."""
    numpy_state = np.random.get_state()  # noqa: NPY002 (the global generator is what must not move)
    python_state, cpu_state = random.getstate(), torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    mps_state = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        with reading(data):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(cpu_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)
        if mps_state is not None:
            torch.mps.set_rng_state(mps_state)


def reading(data: Any) -> AbstractContextManager[None]:
    """Afterwards what `data` keeps is as before, if it is a `DataLoader` or an iterable of somebody's: to read from it
    draws numbers, shuffled or not, moves samplers, and starts workers that are to stay."""
    return kept(*readers) if (readers := _readers(data)) else nullcontext()


def _readers(data: Any) -> list[Any]:
    """What keeps state while `data` is read: an iterable, and the parts of a `DataLoader`."""
    if data is None or isinstance(data, (Tensor, list, tuple, Mapping)) or not hasattr(data, "__dict__"):
        return []
    names = ("dataset", "sampler", "batch_sampler", "collate_fn", "generator", "worker_init_fn")
    parts = [getattr(data, name, None) for name in names]
    parts += [getattr(part, "sampler", None) for part in parts]
    return [thing for thing in (data, *parts) if thing is not None]


# -- modes ------------------------------------------------------------------------------------------------------


def training_flags(model: nn.Module, mode: str) -> dict[nn.Module, bool]:
    """The flag that every module has in `mode`.

    A module with a `train()` of its own (frozen batch norms, dropout that stays on) says itself what its flags
    would be: a copy of it that holds no data is asked. A model in training that is to be measured in "train"
    is left as it is trained.
    """
    if mode == "unchanged" or (mode == "train" and model.training):
        return {}
    training = mode == "train"
    return known(model, ("flags", training), lambda: _training_flags(model, training))


def _training_flags(model: nn.Module, training: bool) -> dict[nn.Module, bool]:
    flags = dict.fromkeys(modules(model), training)
    inside: set[int] = set()
    for module in list(flags):
        if id(module) in inside or not _has_own_train(module):
            continue
        parts = modules(module)
        inside.update(map(id, parts))
        flags |= dict(zip(parts, _asked(module, parts, training), strict=True))
    return flags


def _has_own_train(module: nn.Module) -> bool:
    return type(module).train is not nn.Module.train or "train" in vars(module)


_answers: "weakref.WeakKeyDictionary[nn.Module, dict[tuple[bool, int], list[bool]]]" = (
    weakref.WeakKeyDictionary()
)


def _asked(module: nn.Module, parts: list[nn.Module], training: bool) -> list[bool]:
    """The flags of `module` and all in it after `train(training)`, from a copy on the meta device."""
    known = _answers.setdefault(module, {})
    key = (training, len(parts))
    if key not in known:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                memo: dict[int, Any] = {}
                for tensor in [*module.parameters(), *module.buffers()]:
                    empty = torch.empty_like(tensor, device="meta")
                    memo[id(tensor)] = nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty
                twin = copy.deepcopy(module, memo)
                twin.train(training)
                flags = [part.training for part in twin.modules()]
        except Exception:  # it cannot be copied, or its train() needs data
            flags = []
        known[key] = flags if len(flags) == len(parts) else [training] * len(parts)
    return known[key]


# -- hooks and compilers ------------------------------------------------------------------------------------------


@contextmanager
def _without_gradient_hooks(model: nn.Module) -> Iterator[None]:
    """Inside, no hook on the gradient of a parameter or a module is there; afterwards the same ones are."""
    parameters = parameters_of(model)
    hooks = list(map(_hooks, parameters))
    on_parameters = (
        [(p, held) for p, held in zip(parameters, hooks, strict=True) if held] if any(hooks) else []
    )
    on_modules = _with_gradient_hooks(attributes(model))
    if on_modules:
        look_again(model, sure=True)
    try:
        for parameter, _ in on_parameters:
            parameter._backward_hooks = None
        for held, name, _ in on_modules:
            held[name] = OrderedDict()
        yield
    finally:
        for parameter, before in on_parameters:
            parameter._backward_hooks = before
        for held, name, before in on_modules:
            held[name] = before


def _with_gradient_hooks(own: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], str, Any]]:
    """Where modules keep hooks on gradients, if any have some: (attributes of a module, name, what is there)."""
    try:
        if not any(any(map(hooks_of, own)) for hooks_of in _gradient_hooks.values()):
            return []
    except KeyError:  # made by an old version of torch, or by hand
        pass
    return [(held, name, held[name]) for name in _gradient_hooks for held in own if held.get(name)]


def _uncompiled() -> AbstractContextManager[Any]:
    """Inside, what was compiled by `torch.compile` at any level runs eagerly, and nothing is compiled."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")
