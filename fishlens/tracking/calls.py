"""Seeing what a model is called with, at its own call, without the model's noticing.

The call is met in the model's class, not by a hook on the model: the model's own state (its hooks, its dictionary,
what is pickled or copied of it) is never touched, other objects of the class pass, and the stack of a forward pass is
as deep as before but for one function. A compiled or replicated model is met at the wrapper that is called, outside of
what is compiled.
"""

import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fishlens.tracking.guard import shielded

Listener = Callable[[tuple[Any, ...], dict[str, Any]], None]
"""(args, kwargs) of a call in training: with gradients, and outside of our own measurements."""

_watched: dict[int, tuple["weakref.ref[nn.Module]", list[Listener]]] = {}
_met: dict[type, Callable[..., Any]] = {}
_owns: dict[type, Any] = {}
_ignoring = 0


class Watch:
    """Calls `listener` before every call of `model` that has gradients enabled, until `stop`."""

    def __init__(self, model: nn.Module, listener: Listener):
        self._model, self._listener = model, listener
        self._modules: list[nn.Module] = []
        try:
            self.look_again()
        except BaseException:
            self.stop()  # half a watch would keep the class from being left as it was
            raise

    def look_again(self) -> None:
        """Find what is called instead of the model: it may have been compiled or replicated in the meantime."""
        for module in (self._model, *_wrappers(self._model)):
            if all(module is not known for known in self._modules):
                self._modules.append(module)
                _listen(module, self._listener)

    def stop(self) -> None:
        """No call is heard of any more. Stopping twice is allowed."""
        for module in self._modules:
            _forget(module, self._listener)
        self._modules.clear()


def at_first_call(model: nn.Module, then: Callable[[], None]) -> Watch:
    """Calls `then` once: in the model's first call in training, before its forward pass. What it raises is raised."""

    def listener(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if model.training:
            watch.stop()
            then()

    watch = Watch(model, listener)
    return watch


@contextmanager
def unheard() -> Iterator[None]:
    """Inside, calls are our own and nobody is told."""
    global _ignoring
    before = _ignoring
    try:
        _ignoring = before + 1
        yield
    finally:
        _ignoring = before


def _heard_by(module: nn.Module) -> list[Listener]:
    model, listeners = _watched.get(id(module), (None, []))
    if (
        model is None
        or model() is not module
        or _ignoring
        or not torch.is_grad_enabled()
        or torch.jit.is_tracing()
    ):
        return []
    return list(listeners)


def _listen(module: nn.Module, listener: Listener) -> None:
    model, listeners = _watched.get(id(module), (None, []))
    if model is None or model() is not module:
        listeners = []
        _watched[id(module)] = (weakref.ref(module), listeners)
    listeners.append(listener)
    _meet(type(module))


def _forget(module: nn.Module, listener: Listener) -> None:
    model, listeners = _watched.get(id(module), (None, []))
    if model is None or model() is not module or listener not in listeners:
        return
    listeners.remove(listener)
    if not listeners:
        del _watched[id(module)]
    kind = type(module)
    if not any(type(other()) is kind for other, _ in _watched.values()):
        _leave(kind)


def _meet(kind: type) -> None:
    """Calls of objects of exactly this class are told of from now on."""
    if kind in _met:
        return
    own = kind.__dict__.get("__call__")

    def __call__(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if type(self) is kind and not torch.compiler.is_compiling():
            for listener in shielded(_heard_by, self) or ():
                listener(args, kwargs)
        if own is not None:
            return own(self, *args, **kwargs)
        return super(kind, self).__call__(*args, **kwargs)  # type: ignore[misc, arg-type]

    _met[kind] = __call__
    _owns[kind] = own
    kind.__call__ = __call__  # type: ignore[method-assign, operator]


def _leave(kind: type) -> None:
    """The class as it was; where somebody else has put a function of theirs over ours, ours stays and tells nobody."""
    ours = _met.get(kind)
    if ours is None or kind.__dict__.get("__call__") is not ours:
        return
    own = _owns.pop(kind)
    if own is None:
        del kind.__call__  # type: ignore[attr-defined]
    else:
        kind.__call__ = own  # type: ignore[method-assign, attr-defined]
    del _met[kind]


def _wrappers(model: nn.Module) -> list[nn.Module]:
    """What is called in the model's stead: compiled, or replicated over devices. Found among the objects alive."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    kinds = tuple(kind for kind in (nn.DataParallel, getattr(dynamo, "OptimizedModule", None)) if kind)
    found: list[nn.Module] = []
    candidates = [thing for thing in gc.get_objects() if issubclass(type(thing), kinds)]
    for _ in candidates:  # a wrapper may lie in a wrapper
        inside = [model, *found]
        more = [c for c in candidates if all(c is not f for f in found) and _holds(c, inside)]
        if not more:
            break
        found += more
    return found


def _holds(wrapper: nn.Module, inside: list[nn.Module]) -> bool:
    modules = wrapper.__dict__.get("_modules") or {}
    held = [modules.get(name) for name in ("module", "_orig_mod")]
    held += [m._modules.get("module") for m in held if isinstance(m, nn.parallel.DistributedDataParallel)]
    return any(one is other for one in held for other in inside)
