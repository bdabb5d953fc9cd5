"""Taps on leaf modules: which calls a forward pass makes, and their per-example gradients on the way back."""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
from backpack import backpack, hook_run_extensions
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.utils.hooks import RemovableHandle

from fishlens.errors import InputError, first_line
from fishlens.fisher.again import Again, Run, first_tensor, kept, modules_around
from fishlens.fisher.distributions import widened
from fishlens.fisher.extensions import (
    Call,
    OperationCall,
    OperationRule,
    PerExampleExtension,
    Rule,
    Tap,
    rule_for,
)
from fishlens.fisher.gradients import PerExampleGradient
from fishlens.fisher.interrupts import stop_if_interrupted
from fishlens.fisher.operations import Meeting, Operations, back_to_parameters, fits
from fishlens.fisher.together import MOST_WAITING, joined, small_on
from fishlens.fisher.walk import known, modules, settled

OPERATION = OperationRule()
REGULAR, CHOSEN, IRREGULAR = "regular", "chosen", "irregular"
OnCalls = Callable[[Sequence["Tapped"], Tensor, Tensor], None]
"""(K tapped calls of one kind, their inputs, the gradients of their outputs: one call after the other) -> None"""


class ChangedInPlace(Exception):
    """A tensor that a gradient needs was written to after it was stored."""


@dataclass(frozen=True)
class Places:
    """Where the rows of a call belong: `index` `[k]` into `[N · width]`."""

    index: Tensor
    width: int

    def padded(self, x: Tensor, examples: int) -> Tensor:
        empty = x.new_zeros(examples * self.width, x.shape[-1])
        return empty.index_copy(0, self.index, x).view(examples, self.width, -1)


class Leaf(NamedTuple):
    """A module that is tapped: `names` maps its local names of the parameters of interest to the model's."""

    module: nn.Module
    rule: Rule
    names: Mapping[str, str]
    name: str
    """The first of them"""


class Seen(NamedTuple):
    """A call of a leaf as its hook saw it: its input, that one's version, and where its output leaves in the graph
    (`node` None: nowhere). What it means is found out when the forward pass is over."""

    leaf: Leaf
    leaf_input: Any
    version: int
    node: Any
    number: int
    shape: tuple[int, ...]


class Tapped(NamedTuple):
    """One tapped call: `names` maps the module's local parameter names to the model's; at `edge` its output leaves in
    the graph, and `shape` is the output's. `asked`: autograd is asked for the gradient there, which no `Tap` hands on.
    """

    rule: Rule
    names: Mapping[str, str]
    call: Call
    version: int  # of the stored input: a later write in place shows
    edge: GradientEdge
    shape: tuple[int, ...]
    asked: bool
    chosen: bool = False  # its rows were chosen by index

    @property
    def node(self) -> Any:
        return self.edge.node

    @property
    def stale(self) -> bool:
        """Whether the input has been written to since the call."""
        return self.call.stored._version != self.version


class Irregular(NamedTuple):
    """A call that has no per-example gradient to offer: of the leaf `name`, for its parameters `names`."""

    name: str
    names: frozenset[str]
    node: Any
    shape: tuple[int, ...]


class Taps:
    """Forward hooks on every leaf that has a rule and holds a parameter of interest; gone when the context
    ends.

    A hook of ours runs before all others of its module: it sees what the leaf itself computed. A leaf whose
    `forward` somebody replaced on the instance is not tapped. `rows` of the network's leading dimension
    belong to one example; `mode` is that in which the model is observed.
    A call whose layout is neither `[N·rows, …]` nor `[N·rows·tokens, …]` (position
    embeddings of leading dimension 1, say) has no per-example gradient to offer: its parameters are `irregular`.
    `loose` parameters are followed from operation to operation instead (see `operations`). With `follow`, where
    nothing is known of a model yet, the outputs of such calls are followed at once, and `keep` makes those parameters
    loose. For those `again`, a module around them runs again for every example (see `again`): the one as many steps
    out of their own as given; `run` runs a part of the model.
    The gradients of small outputs are asked of autograd, all at once; that of a large one is handed on by a `Tap` and
    gone before the next.
    That a layout fits does not prove that its rows are the examples': see `proof`.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        examples: int,
        rows: int,
        tokens: int,
        mode: str = "unchanged",
        loose: frozenset[str] = frozenset(),
        follow: bool = False,
        again: Mapping[str, int] = {},
        run: Run = lambda part: part(),
    ) -> None:
        self.examples, self.leading = examples, (examples * rows, tokens)
        self.thread = torch.zeros((), device=next(iter(parameters.values())).device, requires_grad=True)
        self.names = {id(p): n for n, p in parameters.items() if n not in loose and n not in again}
        self.run_part = run
        self.again: dict[nn.Module, dict[str, nn.Parameter]] = defaultdict(dict)
        mine = {name: parameters[name] for name in again}
        for name, around in (modules_around(model, mine) if mine else {}).items():
            self.again[around[again[name]]][name] = mine[name]
        self.parameters, self.follow = parameters, follow
        self.loose = {name: parameters[name] for name in parameters if name in loose}
        # sizes of a first dimension that holds the batch's rows
        self.rows = frozenset({examples * rows, examples * rows * tokens})
        self.operations: Operations | None = None
        if follow or self.loose:
            self.operations = Operations(self.loose, self.rows, self._meet, self.thread)
        self.met: list[tuple[Tensor, PerExampleGradient]] = []  # of the backward pass under way
        self.seen: list[Seen | Tapped | Irregular] = []  # in order of calling
        self.tapped: list[Tapped] = []  # of them, those that the logits depend on
        self.calls: Counter[str] = Counter()  # of every parameter
        self.irregular: set[str] = set()
        self.places: dict[int, Places] = {}  # where the rows of calls belong whose rows were chosen by index
        self.shapes: list[
            tuple[str, tuple[int, ...]]
        ] = []  # (leaf, shape of its output), in order of calling
        self.autocast: torch.dtype | None = None
        holders = known(model, ("holders", *self.names), lambda: self._holders(model))
        forwards = [type(module).forward for module in holders]
        key = ("leaves", mode, *self.names, *self.names.values(), *forwards)
        self.leaves = settled(model, key, lambda: self._leaves(holders))
        self.handles: list[Any] = []
        self.number = RemovableHandle(OrderedDict()).id  # which no other hook has
        self.small = small_on(self.thread.device)
        self.room = MOST_WAITING * self.small  # bytes of outputs whose gradients may still be asked for

    def _holders(self, model: nn.Module) -> list[nn.Module]:
        return [module for module in modules(model) if module._parameters and self._named(module)]

    def _leaves(self, holders: Sequence[nn.Module]) -> list[Leaf]:
        found = []
        for module in holders:
            if not replaced(module) and (rule := rule_for(module)) is not None:
                names = self._named(module)
                found.append(Leaf(module, rule, names, next(iter(names.values()))))
        return found

    def _named(self, module: nn.Module) -> dict[str, str]:
        """Local name -> name in the model, of the module's own parameters of interest."""
        own = module._parameters.items()
        return {local: self.names[id(p)] for local, p in own if p is not None and id(p) in self.names}

    def __enter__(self) -> "Taps":
        self._hook_leaves()
        for module, inside in self.again.items():
            before, after = self._hooks_again(module, inside)
            self.handles.append(module.register_forward_pre_hook(before, with_kwargs=True, prepend=True))
            self.handles.append(module.register_forward_hook(after, with_kwargs=True))
        if self.operations is not None:
            self.operations.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self.operations is not None:
            self.operations.__exit__(None, None, None)
        for handle in self.handles:
            handle.remove()
        self.handles.clear()
        for leaf in self.leaves:
            leaf.module._forward_hooks.pop(self.number, None)
            leaf.module._forward_hooks_with_kwargs.pop(self.number, None)

    def _hook_leaves(self) -> None:
        """As `register_forward_hook(hook, with_kwargs=True, prepend=True)` does it, without a handle for each."""
        for leaf in self.leaves:
            hooks = leaf.module._forward_hooks
            hooks[self.number] = self._hook(leaf)
            if len(hooks) > 1:
                hooks.move_to_end(self.number, last=False)  # type: ignore[attr-defined]
            leaf.module._forward_hooks_with_kwargs[self.number] = True

    def _hook(self, leaf: Leaf) -> Callable[..., Any]:
        """What little has to be done while the model runs: all else is for `keep`."""
        leaf_input_of, note = leaf.rule.leaf_input, self.seen.append
        wide = 0 if self.follow else self.small  # bytes of an output that can wait

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
            stop_if_interrupted()
            output = result[0] if isinstance(result, tuple) else result
            node = getattr(output, "grad_fn", None)
            if node is None:
                if torch.is_grad_enabled():
                    note(Irregular(leaf.name, frozenset(leaf.names.values()), None, _shape_of(output)))
                return None
            if torch.is_autocast_enabled(output.device.type):
                self.autocast = torch.get_autocast_dtype(output.device.type)
            leaf_input, size = leaf_input_of(args, kwargs), output.nbytes
            version = leaf_input._version if isinstance(leaf_input, Tensor) else 0
            seen = Seen(leaf, leaf_input, version, node, output.output_nr, output.shape)
            if size <= wide and size <= self.room:
                self.room -= size
                note(seen)
                return None
            tapped = self._at_once(seen, output)
            return (tapped, *result[1:]) if isinstance(result, tuple) else tapped

        return hook

    def _at_once(self, seen: Seen, output: Tensor) -> Tensor:
        """What takes the place of a leaf's output: one with a `Tap`, where its gradient is too large to be asked for
        with the others'; an irregular one is followed, where it may have to be."""
        layout = self._layout(seen)
        if layout == IRREGULAR:
            if self.operations is not None and self.follow:
                self.operations.follow(output, frozenset(seen.leaf.names.values()))
            self.seen.append(seen)
            return output
        if output.nbytes <= min(self.small, self.room):
            self.room -= output.nbytes
            self.seen.append(seen)
            return output
        rule, names = seen.leaf.rule, seen.leaf.names
        call = rule.call(seen.leaf.module, seen.leaf_input.detach())
        self._note(rule, names, call, output := Tap.apply(output, self.thread, call), layout == CHOSEN)
        return output

    def _hooks_again(
        self, module: nn.Module, inside: Mapping[str, nn.Parameter]
    ) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Before a call of `module`, what it is called with is kept; after it, its output is tapped."""
        calls: list[tuple[Any, Any]] = []
        names = {name: name for name in inside}

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls.append((kept(args), kept(kwargs)))

        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
            given, output = calls.pop(), first_tensor(result)
            tensors = [x for x in (*given[0], *given[1].values()) if isinstance(x, Tensor) and x.dim()]
            sizes = {len(x) if isinstance(x, Tensor) and x.dim() else 0 for x in (*tensors[:1], output)}
            regular = bool(tensors) and all(size and size % self.leading[0] == 0 for size in sizes)
            leading = self.rows | sizes
            node = getattr(output, "grad_fn", None)
            nothing = not torch.is_grad_enabled() or node is None
            if nothing or not regular:
                irregular = frozenset[str](() if nothing else inside)
                self.seen.append(Irregular(next(iter(inside)), irregular, node, _shape_of(output)))
                return None
            device = output.device.type
            autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
            again = Again(module, inside, *given, leading, autocast, self.run_part)
            call = OperationCall(again, tensors[0].detach())  # type: ignore[arg-type]
            tapped = Tap.apply(output, self.thread, call)
            self._note(OPERATION, names, call, tapped)
            return (tapped, *result[1:]) if isinstance(result, tuple) else tapped

        return before, after

    def _meet(self, meeting: Meeting, tap: Callable[[Any], Tensor]) -> Tensor:
        call = OperationCall(meeting, meeting.stored)  # type: ignore[arg-type]
        output = tap(call)
        self._note(OPERATION, meeting.names, call, output)
        return output

    def _note(
        self, rule: Rule, names: Mapping[str, str], call: Call, output: Tensor, chosen: bool = False
    ) -> None:
        assert output.grad_fn is not None
        edge, shape = GradientEdge(output.grad_fn, output.output_nr), output.shape
        self.seen.append(Tapped(rule, names, call, call.stored._version, edge, shape, False, chosen))

    def keep(self, nodes: Collection[Any]) -> None:
        """Once, when the forward pass is over: sorts out what was seen, and keeps the calls that the logits depend on:
        those at `nodes` of the graph.

        Raises `ChangedInPlace` where the input of one has been written to since.
        """
        irregular: list[frozenset[str]] = []
        called: list[str] = []
        for seen in self.seen:
            tapped = self._sorted(seen)
            if isinstance(tapped, Irregular):
                self.shapes.append((tapped.name, tapped.shape))
                if tapped.node is None or tapped.node in nodes:
                    irregular.append(tapped.names)
                continue
            name = "" if isinstance(tapped.call.module, Meeting) else next(iter(tapped.names.values()))
            # how many rows were chosen differs from batch to batch
            self.shapes.append((name, (-1, *tapped.shape[1:]) if tapped.chosen else tapped.shape))
            if tapped.stale:
                raise ChangedInPlace
            if tapped.node in nodes:
                self.tapped.append(tapped)
                called += tapped.names.values()
        if self.follow:
            self._loosen(frozenset[str]().union(*irregular))
        tangled = self.operations.tangled if self.operations is not None else []
        for name in (name for names in irregular for name in names - self.loose.keys()):
            self.irregular.add(name)
            called.append(name)
        self.calls = Counter(called)
        self.tangled = frozenset[str]().union(
            *[names for names, output in tangled if output.grad_fn in nodes]
        )

    def _sorted(self, seen: "Seen | Tapped | Irregular") -> "Tapped | Irregular":
        if not isinstance(seen, Seen):
            return seen
        leaf, leaf_input, version, node, number, shape = seen
        layout = self._layout(seen)
        if layout == IRREGULAR:
            return Irregular(leaf.name, frozenset(leaf.names.values()), node, shape)
        call, edge = leaf.rule.call(leaf.module, leaf_input.detach()), GradientEdge(node, number)
        return Tapped(leaf.rule, leaf.names, call, version, edge, shape, True, layout == CHOSEN)

    def _loosen(self, irregular: frozenset[str]) -> None:
        """Parameters of `irregular` calls, and of no other, are loose: their operations were followed already."""
        by_module = {
            name for tapped in self.tapped if tapped.rule is not OPERATION for name in tapped.names.values()
        }
        for name in irregular - by_module:
            parameter = self.parameters[name]
            if fits(parameter, self.examples):
                self.loose[name] = parameter

    def _layout(self, seen: Seen) -> str:
        """Whether a call has a row for every example: by the batch's own rows, or those that were chosen by index, as
        an expert gets them (`[k, d]` in, `[k, e]` out)."""
        x, shape = seen.leaf_input, seen.shape
        if not isinstance(x, Tensor) or not shape or not x.dim() or x.shape[0] != shape[0]:
            return IRREGULAR
        rows, tokens = self.leading
        if shape[0] == rows or (len(shape) == 2 and shape[0] == rows * tokens):
            return REGULAR
        chosen = x.dim() == len(shape) == 2 and shape[0] > 0 and x.is_floating_point()
        return CHOSEN if chosen else IRREGULAR

    @property
    def pattern(self) -> tuple[Any, ...]:
        """What a proof depends on, of the calls: which leaves ran, in which order, on which shapes."""
        shapes = tuple(call for call in self.shapes if call[0] not in self.loose)
        return (self.examples, self.leading, shapes)

    def backward(
        self,
        logits: Tensor,
        cotangent: Tensor,
        on_calls: OnCalls,
        groups: Sequence[Sequence[Tapped]],
        inputs: Sequence[Tensor] = (),
        *,
        retain_graph: bool,
    ) -> tuple[Tensor | None, ...]:
        """One backward pass: every tapped call on the way is handed to `on_calls`; the gradients of `inputs`.

        `groups`: the calls whose gradients autograd is asked for, those of one kind together.
        """
        whose: dict[int, Sequence[Tapped]] = {id(t.call): [t] for t in self.tapped if not t.asked}
        extension = PerExampleExtension(lambda call, _, g: on_calls(whose[id(call)], call.stored, g))
        wanted = [self.thread, *inputs, *(tapped.edge for group in groups for tapped in group)]
        with backpack(extension, retain_graph=retain_graph), without_autocast(logits.device):
            found = gradient_of(logits, wanted, cotangent, retain_graph=retain_graph)
            gradients = iter(found[1 + len(inputs) :])
            for group in groups:
                there = [
                    (t, g) for t, g in zip(group, islice(gradients, len(group)), strict=True) if g is not None
                ]
                if there:
                    calls, parts = zip(*there, strict=True)
                    call = calls[0].rule.call(None, joined([t.call.stored for t in calls]))
                    whose[id(call)] = calls
                    hook_run_extensions(call, (), (joined(parts),))
        return found[1 : 1 + len(inputs)]

    def sides(
        self, calls: Sequence[Tapped], a: Tensor, g: Tensor, unscale: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The inputs of K calls and the gradients of their outputs, `[K·N, T, …]`."""
        a, g = self.rows_of(calls, a), self.rows_of(calls, g)
        return a, g if unscale is None else g * unscale.to(g).repeat(len(calls)).view(-1, 1, 1)

    def meet(self, meeting: Meeting, gradient: Tensor, unscale: Tensor | None) -> None:
        """Keeps what a place where parameters meet the batch gives, until the pass ends and `settle` is called."""
        g = widened(gradient).reshape(self.examples, -1)
        if unscale is not None:
            g = g * unscale.to(g).view(-1, 1)
        self.met += meeting.gradients(g.reshape(gradient.shape), self.examples)

    def settle(self, wanted: frozenset[str]) -> dict[str, PerExampleGradient]:
        """The gradients of the `wanted` loose parameters, from what the backward pass that just ended left."""
        met, self.met = self.met, []
        return back_to_parameters(met, {n: p for n, p in self.loose.items() if n in wanted}) if met else {}

    def rows_of(self, calls: Sequence[Tapped], x: Tensor) -> Tensor:
        """`x` of K calls by example, `[K·N, T, d]`: floats as float32 or wider, token indices as `[K·N, T, 1]`; rows
        chosen by index with zeros up to the most that an example has."""
        places = self.places.get(id(calls[0].call))
        if places is not None:
            return places.padded(widened(x), self.examples)
        rows = len(calls) * self.examples
        return widened(x).reshape(rows, -1, x.shape[-1]) if x.is_floating_point() else x.reshape(rows, -1, 1)


def gradient_of(
    logits: Tensor, inputs: Sequence[Any], cotangent: Tensor, *, retain_graph: bool
) -> tuple[Tensor | None, ...]:
    """`torch.autograd.grad`; None where the logits ignore an input, `InputError` where the graph is hidden."""
    try:
        return torch.autograd.grad(
            logits, inputs, cotangent.to(logits.dtype), retain_graph=retain_graph, allow_unused=True
        )
    except RuntimeError as error:
        if "use_reentrant" in str(error):
            raise InputError(
                "the model runs a part of itself under torch.utils.checkpoint with use_reentrant=True, which no "
                "gradient with respect to chosen tensors can pass; expected use_reentrant=False, or no checkpoint"
            ) from error
        raise
    except AssertionError as error:  # Reformer's own backward pass, in evaluation mode
        raise InputError(
            f"the model's own backward pass refuses to run: {first_line(error)}; expected a model that gives gradients "
            "in the mode that is measured (mode='eval' by default)"
        ) from error


def _shape_of(output: Any) -> tuple[int, ...]:
    return output.shape if isinstance(output, Tensor) else ()


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, nothing is cast by itself."""
    kind = device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def replaced(module: nn.Module) -> bool:
    """Whether somebody put another `forward` on this very module, other than accelerate's moving of tensors."""
    return "forward" in vars(module) and not hasattr(module, "_hf_hook")


@contextmanager
def cloned_inputs(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Inside, torch's own modules that hold a measured parameter get copies of what they are called with.

    A model may change a tensor in place that a frozen module was called with; to measure that module, its
    input has to stay.
    """
    wanted = {id(p) for p in parameters.values()}

    def copied(value: Any) -> Any:
        return value.clone() if isinstance(value, Tensor) and value.is_floating_point() else value

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        return tuple(map(copied, args)), {key: copied(value) for key, value in kwargs.items()}

    handles = []
    try:
        for module in modules(model):
            torchs_own = isinstance(module, nn.Module) and type(module).__module__.startswith("torch.nn")
            holds = any(id(p) in wanted for p in module._parameters.values())
            if holds and (torchs_own or rule_for(module) is not None):
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
