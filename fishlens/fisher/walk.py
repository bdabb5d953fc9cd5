"""A model's modules and tensors as lists: a probe looks at all of them several times, and torch's own walk makes one
generator for every module and level.

Inside `walked_once` the model is walked once. Whoever keeps the `Tree` and passes it again pays for a look at what the
modules hold, a tenth of a walk: that it is the same tree is seen every time, not believed.
"""

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import attrgetter, getitem, is_, methodcaller
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module

from fishlens.errors import InputError

Found = TypeVar("Found")


OF_TORCH = frozenset(name for name in vars(nn.Module()) if name.startswith("_"))
"""What torch keeps in the attributes of every module."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
GLOBAL_HOOKS: tuple[Any, ...] = (module._global_forward_hooks, module._global_forward_pre_hooks)
_INSIDE = ("_modules", "_parameters", "_buffers", *HOOKS)
_PASSED_OVER = OF_TORCH - set(_INSIDE)  # containers of what no forward pass runs


class Held:
    """The keys and values of some dicts at one moment, side by side in two lists: millions compare in no time.

    The first `modules` of them are attributes of modules. A model has ten thousand, most of them torch's own containers
    of what no forward pass runs: whether anything has changed is asked of the others.
    """

    def __init__(self, dicts: Sequence[dict[str, Any]], modules: int = 0) -> None:
        if any(type(held) is not dict for held in dicts[:modules]):  # it may do anything when it is asked
            modules = 0
        self.dicts, self.modules = dicts, modules
        self.sizes = list(map(len, dicts))
        self._empty = [held for held, size in zip(dicts, self.sizes, strict=True) if not size]
        self._filled = list(filter(None, dicts))
        self._filled_sizes = list(filter(None, self.sizes))
        self.keys = list(chain.from_iterable(dicts))
        self.values = list(chain.from_iterable(map(_values, dicts)))
        places = [(held, key) for held in dicts[:modules] for key in held if key not in _PASSED_OVER]
        self._owners, self._names = [held for held, _ in places], [key for _, key in places]
        self._named = list(map(getitem, self._owners, self._names))
        others, start = dicts[modules:], sum(self.sizes[:modules])
        others = list(filter(None, others))
        self._other_keys, self._other_values = list(map(_keys, others)), list(map(_values, others))  # views
        self._keys, self._values = self.keys[start:], self.values[start:]

    def unchanged(self) -> bool:
        """Whether the dicts hold the same objects under the same keys as then."""
        try:
            return (
                not any(self._empty)
                and list(map(len, self._filled)) == self._filled_sizes
                and all(map(is_, map(getitem, self._owners, self._names), self._named))
                and all(map(is_, chain.from_iterable(self._other_values), self._values))
                and list(chain.from_iterable(self._other_keys)) == self._keys
            )
        except KeyError:
            return False

    def same_as(self, other: "Held") -> bool:
        """Whether both hold the same objects under the same keys in the same order."""
        return (
            self.sizes == other.sizes and self.keys == other.keys and all(map(is_, self.values, other.values))
        )

    def differences(self, other: "Held") -> list[Any] | None:
        """The values in which two looks at the same dicts differ, of both; None where they differ in more."""
        if self.sizes != other.sizes or self.keys != other.keys:
            return None
        pairs = zip(self.values, other.values, strict=True)
        return [value for pair in pairs if pair[0] is not pair[1] for value in pair]

    def restore(self) -> bool:
        """Puts back what the dicts held; whether anything had changed."""
        if self.unchanged():
            return False
        start = 0
        for held, size in zip(self.dicts, self.sizes, strict=True):
            keys, values = self.keys[start : start + size], self.values[start : start + size]
            start += size
            if list(held) != keys or not all(map(is_, held.values(), values)):
                held.clear()
                for key, value in zip(keys, values, strict=True):
                    held[key] = value
        return True


_keys, _values, _attributes = methodcaller("keys"), methodcaller("values"), attrgetter("__dict__")


class Unchanging(Protocol):
    def unchanged(self) -> bool: ...


class Tree:
    """The modules of `model` and their own tensors, as lists; `known` is what was found out of them.

    `layout`: what the modules' attributes, and the containers in them, held at the last probe, if that stays the same
    from one to the next. `looked`: has the walk under way seen that it is the same still, and has nothing changed
    since? `settled`: what was found out of it, and holds while the walk is `sure`: it is the same, and since then
    nothing ran but the probe's own code.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.named_modules = _named_modules(model)
        self.modules = [module for _, module in self.named_modules]
        self.own = list(map(vars, self.modules))
        self.names = list(chain.from_iterable(self.own))
        self.inside = self.look_inside()
        self.named_parameters: list[tuple[str, nn.Parameter]] = self._named("_parameters")
        self.named_buffers: list[tuple[str, Tensor]] = self._named("_buffers")
        self.parameters = [parameter for _, parameter in self.named_parameters]
        self.tensors = [*self.parameters, *[buffer for _, buffer in self.named_buffers]]
        self.names_of_tensors = [name for name, _ in (*self.named_parameters, *self.named_buffers)]
        self.known: dict[Hashable, Any] = {}
        self.layout: Unchanging | None = None
        self.settled: dict[Hashable, Any] = {}
        self.looked = self.sure = False

    def look_inside(self) -> Held:
        """What every module holds at this moment: its children, parameters, buffers, and hooks on its forward."""
        return Held([*[held[kind] for held in self.own for kind in _INSIDE], *GLOBAL_HOOKS])

    def holds(self) -> bool:
        """Whether the model is as it was, but for values of attributes."""
        if not all(map(is_, map(_attributes, self.modules), self.own)):
            return False
        self.looked = False
        if self.look():
            return self.inside.unchanged()
        before, self.inside = self.inside, self.look_inside()
        return list(chain.from_iterable(self.own)) == self.names and self.inside.same_as(before)

    def look(self) -> bool:
        """Whether attributes and containers hold what they held at the last probe."""
        if not self.looked:
            self.looked = self.layout is not None and self.layout.unchanged()
        self.sure = self.looked
        if not self.sure:
            self.settled.clear()
        return self.looked

    def _named(self, kind: str) -> list[tuple[str, Any]]:
        return list(_once((name, vars(module)[kind]) for name, module in self.named_modules))


class _Kept(threading.local):
    tree: Tree | None = None


_kept = _Kept()


@contextmanager
def walked_once(model: nn.Module, before: Tree | None = None) -> Iterator[Tree]:
    """Inside, in this thread, the lists of `model` are those of one tree, which must not change meanwhile: `before`,
    if the model still is as it was then."""
    outer = _kept.tree
    if outer is None or outer.model is not model:
        again = before is not None and before.model is model and before.holds()
        _kept.tree = before if again else Tree(model)
    try:
        assert _kept.tree is not None
        yield _kept.tree
    finally:
        _kept.tree = outer


def tree_of(model: nn.Module) -> Tree:
    """The tree of the walk under way, or a new one."""
    return _under_way(model) or Tree(model)


def look_again(model: nn.Module, sure: bool = False) -> None:
    """Something runs that may change attributes of modules: what the walk under way saw of them holds no more. `sure`:
    the probe's own code, which changes nothing that `settled` is asked about but the training flags."""
    if (tree := _under_way(model)) is not None:
        tree.looked, tree.sure = False, tree.sure and sure


def _under_way(model: nn.Module) -> Tree | None:
    return _kept.tree if _kept.tree is not None and _kept.tree.model is model else None


def known(model: nn.Module, key: Hashable, find: Callable[[], Found]) -> Found:
    """What `find` returns, which the lists of a tree and the names of its attributes decide: once for each tree."""
    found = tree_of(model).known
    if key not in found:
        found[key] = find()
    return found[key]


def settled(model: nn.Module, key: Hashable, find: Callable[[], Found]) -> Found:
    """What `find` returns, which the values of attributes and `key` decide (with the training flags, if they matter):
    not found again while they are seen to be the same."""
    tree = _under_way(model)
    if tree is None or not tree.sure:
        return find()
    if key not in tree.settled:
        tree.settled[key] = find()
    return tree.settled[key]


def named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """As `model.named_modules()` gives them: from the outside in, each once."""
    tree = _under_way(model)
    return tree.named_modules if tree is not None else _named_modules(model)


def _named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    found: list[tuple[str, nn.Module]] = []
    seen: set[int] = set()
    waiting = [("", model)]
    while waiting:
        name, module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(
                f"module {name!r} is compiled by torch.jit; expected the module that it was made of"
            )
        found.append((name, module))
        prefix = f"{name}." if name else ""
        children = [(prefix + key, child) for key, child in module._modules.items() if child is not None]
        waiting.extend(reversed(children))
    return found


def modules(model: nn.Module) -> list[nn.Module]:
    """As `model.modules()` gives them."""
    tree = _under_way(model)
    return tree.modules if tree is not None else [module for _, module in _named_modules(model)]


def attributes(model: nn.Module) -> list[dict[str, Any]]:
    """The attributes of every one of its modules."""
    tree = _under_way(model)
    return tree.own if tree is not None else list(map(vars, modules(model)))


def named_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """As `model.named_parameters()` gives them: each once."""
    return tree_of(model).named_parameters


def parameters_of(model: nn.Module) -> list[nn.Parameter]:
    """As `model.parameters()` gives them: each once."""
    return tree_of(model).parameters


def tensors_of(model: nn.Module) -> list[Tensor]:
    """Parameters, then buffers, each once."""
    return tree_of(model).tensors


def _once(owners: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    for prefix, tensors in owners:
        for name, tensor in tensors.items():
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                yield f"{prefix}.{name}" if prefix else name, tensor
