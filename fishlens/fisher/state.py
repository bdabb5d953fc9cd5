"""Buffers and other state that a forward pass changes, and restoring them: momentum encoders, queues, counters.

`forward` is the model's code, and some models keep state in it. Every tensor that existed before a forward pass and
is written to by it is copied just before the write, whoever holds it: a buffer, a parameter, an input of the batch.
What modules hold, and what their code keeps outside of them (`kept`), is compared and put back.

To watch every operation costs some microseconds each, so that only the first forward pass of a model is watched. If
it writes nothing, later ones are only checked for what shows for free: attributes, counts of writes, storages.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fishlens.errors import InputError
from fishlens.fisher.kept import VALUES, Search
from fishlens.fisher.places import Place, leading, put_back, same_content
from fishlens.fisher.walk import Held, Tree, look_again, tree_of

Result = TypeVar("Result")

_NORMS = (
    "native_batch_norm",
    "cudnn_batch_norm",
    "miopen_batch_norm",
)  # write, and their schemas do not say so
_FRESH = ("lift_fresh", "lift_fresh_copy")


class Writes(TorchDispatchMode):
    """Copies every storage from before that is about to be written to; `undo` writes it back."""

    def __init__(self) -> None:
        super().__init__()
        self.made: set[int] = set()
        self.saved: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in _written(func, args, kwargs):
            self._save(tensor)
        result = func(*args, **kwargs)
        fresh = func._schema.name.partition("::")[2] in _FRESH
        before: set[Any] = (
            set() if fresh else {_storage(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        )
        after = {_storage(t) for t in tree_leaves(result) if isinstance(t, Tensor)}
        self.made |= {storage for storage in after - before if storage is not None}
        return result

    def _save(self, tensor: Tensor) -> None:
        key = _storage(tensor)
        if key is None or key in self.made or key in self.saved:
            return
        whole = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())  # type: ignore[call-overload]
        self.saved[key] = (whole, whole.clone())

    def undo(self) -> bool:
        """Whether there was anything to write back."""
        for whole, value in self.saved.values():
            whole.copy_(value)
        return bool(self.saved)


def _storage(tensor: Tensor) -> int | None:
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # a wrapper without a storage of its own
        return None


def _address(tensor: Tensor) -> int | None:
    try:
        return tensor.data_ptr()
    except (NotImplementedError, RuntimeError):
        return None


def _addresses(tensors: list[Tensor]) -> list[int | None]:
    try:
        return list(map(Tensor.data_ptr, tensors))
    except (NotImplementedError, RuntimeError):
        return list(map(_address, tensors))


_NOWHERE: frozenset[Any] = VALUES | {Tensor, nn.Parameter}  # what is looked into no further
_version, _data = attrgetter("_version"), attrgetter("data")


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that an operation writes to."""
    schema = func._schema
    name = schema.name.partition("::")[2]
    if name in _NORMS:
        given = dict(zip((a.name for a in schema.arguments), args, strict=False)) | kwargs
        pair = (given.get("running_mean"), given.get("running_var"))
        return [t for t in pair if isinstance(t, Tensor) and given.get("training")]
    if not schema.is_mutable:
        return []
    found = []
    for number, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[number] if number < len(args) else kwargs.get(argument.name)
            found += [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    return found


@dataclass(frozen=True)
class Layout:
    """Where a model keeps state: `attributes` of its modules and what else is kept in dicts (see `Search`), `contents`
    of other containers, and other `places`. It is right for as long as attributes and containers hold what they held,
    and the same objects are bound to the `names` that were followed: of classes, slots, global and enclosing variables.
    """

    attributes: Held
    contents: list[tuple[Any, Any]]
    places: list[Place]
    names: list[tuple[Place, dict[Any, Any]]]

    def holds(self) -> bool:
        """Whether containers and names hold what they held."""
        names = ((leading(place, _NOWHERE), before) for place, before in self.names)
        return all(same_content(now, before) for now, before in (*self.contents, *names))

    def unchanged(self) -> bool:
        """Whether attributes do, too."""
        return self.attributes.unchanged() and self.holds()


def layout_of(tree: Tree) -> Layout:
    """The layout of a model. It is kept, with its tree, for the next probe, unless it was another one before."""
    kept: Layout | None = tree.known.get("layout")
    if kept is not None:
        same = tree.look()
        tree.looked = False
        if same:
            return kept
        kept = _with_other_values(kept)
        if kept is not None and kept.holds():
            tree.known["layout"] = tree.layout = kept
            return kept
    found = _found_layout(tree)
    # what a model puts into its attributes with every pass is not held on to from one probe to the next
    tree.known["layout"] = tree.layout = found if "layout" not in tree.known else None
    return found


def _with_other_values(layout: Layout) -> Layout | None:
    """The layout of a model in which numbers, words and flags have changed since; None where more has."""
    now = Held(layout.attributes.dicts, layout.attributes.modules)
    changed = layout.attributes.differences(now)
    if changed is None or not all(type(value) in VALUES for value in changed):
        return None
    return Layout(now, layout.contents, layout.places, layout.names)


def _found_layout(tree: Tree) -> Layout:
    search = Search()
    search.look_at_modules(tree.modules)
    for tensor in tree.tensors:
        if held := getattr(tensor, "__dict__", None):  # what libraries keep on a tensor: bitsandbytes' scales
            search.attributes[id(held)] = held
            search.look_at(held)
    dicts = [held for held in search.containers.values() if isinstance(held, dict)]
    others = [held for held in search.containers.values() if not isinstance(held, dict)]
    contents = [(container, container.copy()) for container in others]
    attributes = Held([*tree.own, *search.attributes.values(), *dicts], len(tree.own))
    names = [(place, leading(place, _NOWHERE)) for place in search.names.values()]
    return Layout(attributes, contents, list(search.places.values()), names)


class State:
    """A model's attributes, containers, and where its parameters and buffers lie: at one moment."""

    def __init__(self, model: nn.Module) -> None:
        tree = tree_of(model)
        looked = tree.looked
        layout = layout_of(tree)
        self.attributes = layout.attributes
        self.inside = tree.inside if looked else tree.look_inside()
        self.contents = layout.contents
        self.states = [(place, place.read()) for place in layout.places]
        self.tensors = tree.tensors
        self.aliases = list(map(_data, self.tensors))
        self.versions = list(map(_version, self.tensors))
        self.names = tree.names_of_tensors

    def restore(self) -> bool:
        """Puts back what is no longer the same object; whether there was anything."""
        changed = self.attributes.restore()
        changed = self.inside.restore() or changed
        if _addresses(self.tensors) != _addresses(self.aliases):
            changed = True
            for tensor, alias in zip(self.tensors, self.aliases, strict=True):
                if _address(tensor) != _address(alias):
                    tensor.data = alias
        return put_back(self.contents, self.states) or changed

    def written(self) -> str | None:
        """The name of a parameter or buffer that has been written to since."""
        now = list(map(_version, self.tensors))
        named = zip(self.names, now, self.versions, strict=True)
        return next((name for name, version, before in named if version != before), None)


class Forwards:
    """The forward passes of one probe of `model`: `run` each of them, `restore` and `check` at the end.

    `writes`: does the model's forward write to what was there before? None: not known, the next one is watched.
    """

    def __init__(self, model: nn.Module, writes: bool | None) -> None:
        self.model, self.writes = model, writes
        self.before = State(model)
        self.written: str | None = None

    def run(self, forward: Callable[[], Result]) -> Result:
        """What `forward` returns; what it wrote to is as before."""
        look_again(self.model)
        if self.writes is False:
            return forward()
        try:
            return self._watched(forward)
        except NotImplementedError:  # an operation that cannot be watched
            self.writes = bool(self.writes)
            return forward()

    def _watched(self, forward: Callable[[], Result]) -> Result:
        state, writes = State(self.model), Writes()
        try:
            with writes:
                return forward()
        finally:
            changed = writes.undo()
            self.writes = state.restore() or changed or bool(self.writes)

    def restore(self) -> bool | None:
        """Puts back attributes, at the end of a probe; what is known of the model now."""
        self.written = None if self.writes else self.before.written()
        if self.before.restore():
            self.writes = True
        return self.writes

    def check(self) -> None:
        """`InputError` if a forward pass that was not watched wrote to a tensor of the model."""
        if self.written is not None:
            raise InputError(
                f"the model's forward wrote to {self.written!r}, which it had not done in its first forward pass: a "
                "probe cannot put that back; move the write out of forward"
            )


@contextmanager
def forwards_of(model: nn.Module, writes: bool | None = None) -> Iterator[Forwards]:
    """The forward passes inside; afterwards the model's own state is as before."""
    forwards = Forwards(model, writes)
    try:
        yield forwards
    finally:
        forwards.restore()
    forwards.check()
