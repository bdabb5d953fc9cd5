"""Places where Python objects keep state that is read and written as a whole: generators of random numbers, arrays,
iterators, slots, attributes of classes, global names, variables of enclosing functions; and what containers hold."""

import array
import functools
import itertools
import random
import types
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any

import numpy as np
import torch

from fishlens.errors import InputError

LARGEST = 64 * 2**20
"""Bytes of all arrays together that are kept."""
ABSENT = object()
_ITERATORS: tuple[type, ...] = (type(iter([])), type(iter(())), type(iter(range(0))))


@dataclass(frozen=True)
class Place:
    """State that is read and written as a whole."""

    read: Callable[[], Any]
    write: Callable[[Any], Any]
    same: Callable[[Any, Any], bool] = lambda now, before: bool(now == before)


def whole(value: Any) -> Place | None:
    """The place of what has a state of its own that can be read and set."""
    if isinstance(value, torch.Generator):
        return Place(value.get_state, value.set_state, torch.equal)
    if isinstance(value, np.random.Generator):
        return _of_bits(value.bit_generator)
    if isinstance(value, np.random.BitGenerator):
        return _of_bits(value)
    if isinstance(value, np.random.RandomState):
        return Place(lambda: value.get_state(legacy=False), value.set_state, _same_tree)
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return Place(value.getstate, value.setstate)
    if isinstance(value, _ITERATORS):
        iterator: Any = value
        return Place(lambda: iterator.__reduce__()[2:], lambda before: iterator.__setstate__(*before))
    if isinstance(value, (itertools.count, types.GeneratorType)):
        return _only_seen(value)
    if isinstance(value, (bytearray, array.array)):
        return _of_items(value) if memoryview(value).nbytes <= LARGEST else None
    if not isinstance(value, np.ndarray) or value.nbytes > LARGEST:
        return None
    if value.dtype.hasobject or not value.flags.writeable:
        return None
    return Place(value.copy, functools.partial(np.copyto, value), _same_array)


def _of_items(value: Any) -> Place:
    def write(before: Any) -> None:
        value[:] = before

    return Place(lambda: value[:], write, lambda now, before: bytes(now) == bytes(before))


def _only_seen(iterator: Any) -> Place:
    """What goes one way: that it was drawn from is seen, and refused."""
    name = f"{type(iterator).__module__}.{type(iterator).__name__}".removeprefix("builtins.")

    def read() -> tuple[Any, ...]:
        if isinstance(iterator, itertools.count):
            return (repr(iterator),)
        frame = iterator.gi_frame
        return () if frame is None else (frame.f_lasti, *frame.f_locals.values())

    def refuse(_: Any) -> None:
        raise InputError(
            f"the model's forward draws from an iterator that it keeps (a {name}), which a probe cannot put back: "
            "every probe would move it on for the training; expected a number or a torch.Generator in its place"
        )

    def same(now: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
        return len(now) == len(before) and all(
            a is b or _equal(a, b) for a, b in zip(now, before, strict=True)
        )

    return Place(read, refuse, same)


def _of_bits(bits: Any) -> Place:
    def write(state: Any) -> None:
        bits.state = state

    return Place(lambda: bits.state, write, _same_tree)


def _equal(now: Any, before: Any) -> bool:
    return type(now) in (int, str) and bool(now == before)


def _same_array(now: Any, before: Any) -> bool:
    return now.shape == before.shape and now.tobytes() == before.tobytes()


def _same_tree(now: Any, before: Any) -> bool:
    if isinstance(before, dict):
        return now.keys() == before.keys() and all(_same_tree(now[key], before[key]) for key in before)
    return _same_array(now, before) if isinstance(before, np.ndarray) else bool(now == before)


def slots_in(kind: type) -> Iterator[str]:
    for one in kind.__mro__:
        names = vars(one).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if name not in ("__dict__", "__weakref__"):
                yield (
                    f"_{one.__name__.lstrip('_')}{name}"
                    if name.startswith("__") and not name.endswith("__")
                    else name
                )


def _under_names(
    names: Sequence[str],
    get: Callable[[str], Any],
    put: Callable[[str, Any], None],
    delete: Callable[[str], None],
) -> Place:
    """Objects that are bound to names, and may be bound to others or not at all."""

    def write(before: tuple[Any, ...]) -> None:
        for name, then in zip(names, before, strict=True):
            now = get(name)
            if now is not then:
                delete(name) if then is ABSENT else put(name, then)

    def same(now: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
        return all(map(is_, now, before))

    return Place(lambda: tuple(map(get, names)), write, same)


def slots_of(value: Any, names: Sequence[str]) -> Place:
    return _under_names(
        names,
        lambda name: getattr(value, name, ABSENT),
        lambda name, then: object.__setattr__(value, name, then),
        lambda name: object.__delattr__(value, name),
    )


def globals_of(module: dict[str, Any], names: Sequence[str]) -> Place:
    return _under_names(names, lambda name: module.get(name, ABSENT), module.__setitem__, module.__delitem__)


def variable(cell: types.CellType) -> Place:
    """A variable of an enclosing function."""

    def put(_: str, then: Any) -> None:
        cell.cell_contents = then

    def delete(_: str) -> None:
        del cell.cell_contents

    return _under_names(("",), lambda _: content(cell), put, delete)


def content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return ABSENT


def is_data(name: str, value: Any) -> bool:
    return not (
        name.startswith("__")
        or callable(value)
        or isinstance(
            value, (types.ModuleType, staticmethod, classmethod, property, types.MemberDescriptorType)
        )
        or hasattr(type(value), "__get__")
    )


def attributes_of(kind: type) -> Place:
    """The data that a class keeps, and whatever else is put into it."""

    def read() -> dict[str, Any]:
        return {name: value for name, value in vars(kind).items() if is_data(name, value)}

    def write(before: dict[str, Any]) -> None:
        for name in read().keys() - before.keys():
            type.__delattr__(kind, name)
        for name, then in before.items():
            if vars(kind).get(name, ABSENT) is not then:
                type.__setattr__(kind, name, then)

    def same(now: dict[str, Any], before: dict[str, Any]) -> bool:
        return now.keys() == before.keys() and all(now[name] is before[name] for name in before)

    return Place(read, write, same)


def everything_of(kind: type) -> Place:
    """All that a class has, its functions too: only to be looked at."""
    return Place(lambda: dict(vars(kind)), lambda _: None)


def leading(place: Place, nowhere: Collection[type]) -> dict[Any, Any]:
    """What is bound to the names of a place, but for values of types that lead `nowhere`: those are not held on to."""
    now = place.read()
    items = now.items() if isinstance(now, dict) else enumerate(now)
    return {name: None if type(value) in nowhere else value for name, value in items}


def put_back(contents: Iterable[tuple[Any, Any]], states: Iterable[tuple[Place, Any]]) -> bool:
    """Containers hold again what they held, places are as they were; whether anything had changed.

    Raises `InputError` in the end if there was something that cannot be put back.
    """
    changed = False
    refused: InputError | None = None
    for container, before in contents:
        if not same_content(container, before):
            _refill(container, before)
            changed = True
    for place, before in states:
        if not place.same(place.read(), before):
            changed = True
            try:
                place.write(before)
            except InputError as error:
                refused = error
    if refused is not None:
        raise refused
    return changed


def same_content(container: Any, before: Any) -> bool:
    """Whether a container holds the same objects, in the same order."""
    if len(container) != len(before):
        return False
    if isinstance(container, dict):
        return all(map(is_, container.values(), before.values())) and list(container) == list(before)
    if isinstance(container, set):
        return bool(container == before)
    return all(map(is_, container, before))


def _refill(container: Any, before: Any) -> None:
    container.clear()
    (container.extend if isinstance(container, (list, deque)) else container.update)(before)
