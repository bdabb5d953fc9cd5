"""Where Python objects keep state, and what it is at one moment: containers, objects of plain classes, generators of
random numbers, arrays; and what code keeps outside of objects: attributes of classes and functions, global names,
variables of an enclosing function, defaults of arguments.

It is followed from what a model holds into what that holds, as far as it is the user's own: what a library keeps is
looked at where the model holds it, and no further.
"""

import argparse
import dis
import functools
import sys
import threading
import types
import weakref
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fishlens.fisher.places import (
    LARGEST,
    Place,
    attributes_of,
    content,
    everything_of,
    globals_of,
    is_data,
    put_back,
    slots_in,
    slots_of,
    variable,
    whole,
)
from fishlens.fisher.walk import GLOBAL_HOOKS, HOOKS, OF_TORCH, Held

_CONTAINERS = (list, dict, set, deque, defaultdict, OrderedDict, Counter)
_MAPPINGS = (dict, defaultdict, OrderedDict, Counter)
VALUES = frozenset((int, float, complex, bool, str, bytes, type(None), torch.dtype, torch.device, torch.Size))
# classes of the standard library that hold anybody's objects
_OPEN = (
    types.SimpleNamespace, argparse.Namespace, threading.local, UserDict, UserList, ChainMap,
    weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet,
)  # fmt: skip
DEEPEST = 4
"""Steps from a module to what is looked at."""
LONGEST = 1000
"""Items of a container that are looked into."""


class Search:
    """What is found from some objects on: dicts of attributes, containers, and other places."""

    def __init__(self) -> None:
        self.attributes: dict[int, dict[str, Any]] = {}
        self.containers: dict[int, Any] = {}
        self.places: dict[Any, Place] = {}
        # what is bound to names here was followed, and other things may be bound to them
        self.names: dict[Any, Place] = {}
        self._seen: dict[int, Any] = {}  # holds what it has seen, so that no identity is used twice
        self._classes: set[type] = set()
        self._bytes = 0  # of the arrays found

    def look_at_modules(self, modules: Sequence[nn.Module]) -> None:
        """At the attributes of these modules, which are kept elsewhere, and at their classes."""
        self._seen.update((id(module), module) for module in modules)
        for module in modules:
            self.look_at(vars(module))
            self.class_(type(module))
        for hooks in GLOBAL_HOOKS:
            self._items(hooks.values(), 0)

    def look_at(self, attributes: dict[str, Any], depth: int = 0) -> None:
        """At what is held under these names."""
        for name, value in attributes.items():
            kind = type(value)
            if kind in VALUES or (name in OF_TORCH and name not in HOOKS):
                continue
            if name in HOOKS:
                self._items(value.values(), depth)
            else:
                self.look(value, depth)

    def look(self, value: Any, depth: int) -> None:
        kind = type(value)
        if kind in VALUES or kind in weakref.ProxyTypes or depth > DEEPEST or id(value) in self._seen:
            return
        if isinstance(value, Tensor):
            return
        self._seen[id(value)] = value
        if kind in _CONTAINERS:
            self.containers[id(value)] = value
            self._items(value.values() if kind in _MAPPINGS else value, depth)
        elif isinstance(value, tuple):
            self._items(value, depth)
        elif (place := whole(value)) is not None:
            self._bytes += getattr(value, "nbytes", 0)
            if self._bytes <= LARGEST:
                self.places[id(value)] = place
        elif isinstance(value, types.FunctionType):
            self._function(value, depth)
        elif isinstance(value, types.MethodType):
            self.look(value.__func__, depth)
            self.look(value.__self__, depth)
        elif isinstance(value, weakref.ref):
            self.look(value(), depth)
        elif isinstance(value, functools.partial):
            self._items((value.func, *value.args, *value.keywords.values()), depth)
        elif isinstance(value, type):
            self.class_(value, depth)
        elif isinstance(value, nn.Module):
            self._items(filter(None, value._modules.values()), depth)
            self._object(value, depth, further=True)
        elif not isinstance(value, types.ModuleType):
            mine = kind in _OPEN or is_users(kind)
            if mine or depth == 0:
                self._object(value, depth, further=mine)

    def _items(self, items: Iterable[Any], depth: int) -> None:
        items = list(items)
        if len(items) <= LONGEST:
            for item in items:
                self.look(item, depth + 1)

    def _object(self, value: Any, depth: int, *, further: bool) -> None:
        """`further`: also what is held by what it holds; of a library's object its own containers alone."""
        kind = type(value)
        if kind.__module__.partition(".")[0] in ("torch", "builtins") and not isinstance(value, nn.Module):
            return
        try:
            read = getattr if isinstance(value, threading.local) else object.__getattribute__
            attributes = read(value, "__dict__")
        except (AttributeError, TypeError):
            attributes = None
        if isinstance(attributes, dict):
            self.attributes[id(attributes)] = attributes
            self.look_at(attributes, depth + 1 if further else DEEPEST)
        if slots := tuple(slots_in(kind)):
            self.places[id(value)] = self.names[id(value)] = slots_of(value, slots)
            for name in slots:
                self.look(getattr(value, name, None), depth + 1 if further else DEEPEST)
        if further and is_users(kind):
            self.class_(kind, depth)

    # -- code ---------------------------------------------------------------------------------------------------------

    def class_(self, kind: type, depth: int = 0) -> None:
        """At what a class of the user's and its parents keep, and at what their functions do."""
        for one in kind.__mro__:
            if one in self._classes:
                continue
            self._classes.add(one)
            if not is_users(one):
                continue
            functions = [found for held in vars(one).values() if (found := _function_in(held)) is not None]
            self.places[one] = attributes_of(one)
            self.names[one] = everything_of(one)
            for name, value in list(vars(one).items()):
                if is_data(name, value):
                    self.look(value, depth + 1)
            for function in functions:
                self.look(function, depth)

    def _function(self, function: types.FunctionType, depth: int) -> None:
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            self.look(wrapped, depth)
        if not is_users(function):
            return
        self.attributes[id(vars(function))] = vars(function)
        self.look_at(vars(function), depth + 1)
        self._items((*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()), depth)
        for cell in function.__closure__ or ():
            self.places[id(cell)] = self.names[id(cell)] = variable(cell)
            self.look(content(cell), depth + 1)
        used, own, stored = _names(function.__code__)
        self._named(function.__globals__, used, own, stored, depth)

    def _named(
        self,
        names: dict[str, Any],
        used: frozenset[str],
        own: frozenset[str],
        stored: frozenset[str],
        depth: int,
    ) -> None:
        """At the names of a module that a function uses; those that hold data are kept. `own`: those that are not
        attributes of something."""
        kept = set(stored)
        if followed := tuple(sorted(own)):
            self.names[id(names), followed] = globals_of(names, followed)
        for name in used & names.keys():
            value = names[name]
            if isinstance(value, types.ModuleType):
                if is_users(value):
                    self._named(vars(value), used, used & vars(value).keys(), frozenset(), depth + 1)
            elif depth <= DEEPEST:
                if is_data(name, value):
                    kept.add(name)
                self.look(value, depth + 1)
        if kept:
            self.places[id(names), frozenset(kept)] = globals_of(names, tuple(kept))


def is_users(thing: Any) -> bool:
    """Whether a class, function or module is the user's own code: no library's, and not ours."""
    name = thing.__name__ if isinstance(thing, types.ModuleType) else getattr(thing, "__module__", None)
    top = str(name).partition(".")[0]
    if top == "__main__":
        return True
    if top in sys.stdlib_module_names or top in ("fishlens", "builtins", "torch", "None"):
        return False
    file = str(getattr(sys.modules.get(str(name)), "__file__", None) or "")
    return "site-packages" not in file and "dist-packages" not in file


def _function_in(held: Any) -> Any:
    """The function of a method, a property, or one that a decorator wraps."""
    if isinstance(held, property):
        return held.fget
    if isinstance(held, (staticmethod, classmethod)):
        return held.__func__
    if isinstance(held, types.FunctionType):
        return held
    return getattr(held, "func", None) or getattr(held, "__wrapped__", None)


_Names = tuple[frozenset[str], frozenset[str], frozenset[str]]
_known_names: "weakref.WeakKeyDictionary[types.CodeType, _Names]" = weakref.WeakKeyDictionary()


def _names(code: types.CodeType) -> _Names:
    """The names that code and the functions in it use; those of them that are global; and the global ones that they
    bind."""
    if code not in _known_names:
        used, lines = set(code.co_names), list(dis.get_instructions(code))
        own = {line.argval for line in lines if line.opname in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL")}
        stored = {line.argval for line in lines if line.opname == "STORE_GLOBAL"}
        for inner in code.co_consts:
            if isinstance(inner, types.CodeType):
                more = _names(inner)
                used, own, stored = used | more[0], own | more[1], stored | more[2]
        _known_names[code] = frozenset(used), frozenset(own), frozenset(stored)
    return _known_names[code]


@contextmanager
def kept(*things: Any) -> Iterator[None]:
    """Afterwards these objects, and what they hold, are as before; whatever classes they are of."""
    search = Search()
    for thing in things:
        attributes = getattr(thing, "__dict__", None)
        if isinstance(attributes, dict):
            search.attributes[id(attributes)] = attributes
            search.look_at(attributes)
        search.look(thing, 0)
    attributes = Held(list(search.attributes.values()))
    contents = [(container, container.copy()) for container in search.containers.values()]
    states = [(place, place.read()) for place in search.places.values()]
    try:
        yield
    finally:
        attributes.restore()
        put_back(contents, states)
