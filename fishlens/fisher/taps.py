"""Taps on leaf modules: which calls a forward pass makes, and their per-example gradients on the way back."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from backpack import backpack, hook_run_extensions
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

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
from fishlens.fisher.together import MOST_WAITING, small_on
from fishlens.fisher.walk import known, modules

OPERATION = OperationRule()
OnCall = Callable[["Tapped", Tensor], None]
"""(the call that was tapped, the gradient of its output) -> None"""


@dataclass(frozen=True)
class Places:
    """Where the rows of a call belong: `index` `[k]` into `[N · width]`."""

    index: Tensor
    width: int

    def padded(self, x: Tensor, examples: int) -> Tensor:
        empty = x.new_zeros(examples * self.width, x.shape[-1])
        return empty.index_copy(0, self.index, x).view(examples, self.width, -1)


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

    @property
    def node(self) -> Any:
        return self.edge.node

    @property
    def stale(self) -> bool:
        """Whether the input has been written to since the call."""
        return self.call.stored._version != self.version


class Taps:
    """Forward hooks on every leaf that has a rule and holds a parameter of interest; gone when the context
    ends.

    A hook of ours runs before all others of its module: it sees what the leaf itself computed. A leaf whose
    `forward` somebody replaced on the instance is not tapped. `rows` of the network's leading dimension
    belong to one example. A call whose layout is neither `[N·rows, …]` nor `[N·rows·tokens, …]` (position
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
        self.operations = Operations(
            self.loose, frozenset({examples * rows, examples * rows * tokens}), self._meet, self.thread
        )
        self.met: list[tuple[Tensor, PerExampleGradient]] = []  # of the backward pass under way
        self.irregular_calls: list[
            tuple[frozenset[str], Any]
        ] = []  # (names, where the output leaves in the graph)
        self.calls: defaultdict[str, int] = defaultdict(int)
        self.irregular: set[str] = set()
        self.tapped: dict[int, Tapped] = {}  # by the identity of the rule's `Call`
        self.routed: dict[int, Tapped] = {}  # of them, those whose rows were chosen by index
        self.places: dict[int, Places] = {}  # where the rows of those belong
        self.shapes: list[
            tuple[str, tuple[int, ...]]
        ] = []  # (leaf, shape of its output), in order of calling
        self.autocast: torch.dtype | None = None
        self.leaves: list[tuple[nn.Module, Rule, Mapping[str, str]]] = []
        holders = known(model, ("holders", *self.names), lambda: self._holders(model))
        for module in holders:
            names = self._named(module)
            if not replaced(module) and (rule := rule_for(module)) is not None:
                self.leaves.append((module, rule, names))
        self.handles: list[Any] = []
        self.small = small_on(self.thread.device)
        self.room = MOST_WAITING * self.small  # bytes of outputs whose gradients may still be asked for

    def _holders(self, model: nn.Module) -> list[nn.Module]:
        return [module for module in modules(model) if module._parameters and self._named(module)]

    def _named(self, module: nn.Module) -> dict[str, str]:
        """Local name -> name in the model, of the module's own parameters of interest."""
        own = module._parameters.items()
        return {local: self.names[id(p)] for local, p in own if p is not None and id(p) in self.names}

    def __enter__(self) -> "Taps":
        for module, rule, names in self.leaves:
            hook = self._hook(rule, names)
            self.handles.append(module.register_forward_hook(hook, with_kwargs=True, prepend=True))
        for module, inside in self.again.items():
            before, after = self._hooks_again(module, inside)
            self.handles.append(module.register_forward_pre_hook(before, with_kwargs=True, prepend=True))
            self.handles.append(module.register_forward_hook(after, with_kwargs=True))
        if self.follow or self.loose:
            self.operations.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self.follow or self.loose:
            self.operations.__exit__(None, None, None)
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def _hook(self, rule: Rule, names: Mapping[str, str]) -> Callable[..., Any]:
        leaf = next(iter(names.values()))

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
            stop_if_interrupted()
            if not torch.is_grad_enabled():
                return None
            leaf_input = rule.leaf_input(args, kwargs)
            output = result[0] if isinstance(result, tuple) else result
            shape = tuple(output.shape) if isinstance(output, Tensor) else ()
            self.shapes.append((leaf, shape))
            if not (self._regular(leaf_input, output) and output.requires_grad):
                if self._chosen(leaf_input, output):
                    self.shapes[-1] = (leaf, (-1, shape[1]))  # how many rows differs from batch to batch
                    call = rule.call(module, leaf_input.detach())
                    tapped = self._tap(rule, names, call, output, shape)
                    self.routed[id(call)] = self.tapped[id(call)]
                    return tapped
                node = getattr(output, "grad_fn", None)
                self.irregular_calls.append((frozenset(names.values()), node))
                if self.follow and node is not None:
                    self.operations.follow(output, frozenset(names.values()))
                return None
            if torch.is_autocast_enabled(output.device.type):
                self.autocast = torch.get_autocast_dtype(output.device.type)
            tapped = self._tap(rule, names, rule.call(module, leaf_input.detach()), output, shape)
            return (tapped, *result[1:]) if isinstance(result, tuple) else tapped

        return hook

    def _tap(
        self, rule: Rule, names: Mapping[str, str], call: Call, output: Tensor, shape: tuple[int, ...]
    ) -> Tensor:
        """What takes the place of a leaf's output: itself where its gradient is asked for."""
        size, node = output.nbytes, output.grad_fn
        if size > min(self.small, self.room) or node is None:
            return self._remember(rule, names, call, Tap.apply(output, self.thread, call))
        self.room -= size
        edge = GradientEdge(node, output.output_nr)
        self.tapped[id(call)] = Tapped(rule, names, call, call.stored._version, edge, shape, True)
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
            leading = self.operations.leading | sizes
            self.shapes.append(
                (next(iter(inside)), tuple(output.shape) if isinstance(output, Tensor) else ())
            )
            if not torch.is_grad_enabled() or not isinstance(output, Tensor) or not output.requires_grad:
                return None
            if not regular:
                self.irregular_calls.append((frozenset(inside), output.grad_fn))
                return None
            device = output.device.type
            autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
            again = Again(module, inside, *given, leading, autocast, self.run_part)
            call = OperationCall(again, tensors[0].detach())  # type: ignore[arg-type]
            tapped = self._remember(OPERATION, names, call, Tap.apply(output, self.thread, call))
            return (tapped, *result[1:]) if isinstance(result, tuple) else tapped

        return before, after

    def _meet(self, meeting: Meeting, tap: Callable[[Any], Tensor]) -> Tensor:
        call = OperationCall(meeting, meeting.stored)  # type: ignore[arg-type]
        output = tap(call)
        self.shapes.append(("", tuple(output.shape)))
        return self._remember(OPERATION, meeting.names, call, output)

    def _remember(self, rule: Rule, names: Mapping[str, str], call: Call, output: Tensor) -> Tensor:
        assert output.grad_fn is not None
        edge, shape = GradientEdge(output.grad_fn, output.output_nr), tuple(output.shape)
        self.tapped[id(call)] = Tapped(rule, names, call, call.stored._version, edge, shape, False)
        return output

    def keep(self, nodes: Collection[Any]) -> None:
        """Counts the calls that the logits depend on: those at `nodes` of the graph."""
        self.calls.clear()
        self.irregular.clear()
        for tapped in self.tapped.values():
            for name in tapped.names.values():
                self.calls[name] += tapped.node in nodes
        irregular = [names for names, node in self.irregular_calls if node is None or node in nodes]
        if self.follow:
            self._loosen(frozenset[str]().union(*irregular), nodes)
        tangled = [names for names, output in self.operations.tangled if output.grad_fn in nodes]
        for name in (name for names in irregular for name in names - self.loose.keys()):
            self.irregular.add(name)
            self.calls[name] += 1
        self.tangled = frozenset[str]().union(*tangled)

    def _loosen(self, irregular: frozenset[str], nodes: Collection[Any]) -> None:
        """Parameters of `irregular` calls, and of no other, are loose: their operations were followed already."""
        by_module = {
            name
            for tapped in self.tapped.values()
            if tapped.rule is not OPERATION and tapped.node in nodes
            for name in tapped.names.values()
        }
        for name in irregular - by_module:
            parameter = self.parameters[name]
            if fits(parameter, self.examples):
                self.loose[name] = parameter

    def _regular(self, leaf_input: Any, output: Any) -> bool:
        if not (isinstance(leaf_input, Tensor) and isinstance(output, Tensor)):
            return False
        if not leaf_input.dim() or not output.dim():
            return False
        rows, tokens = self.leading
        flattened = output.dim() == 2 and output.shape[0] == rows * tokens
        return leaf_input.shape[0] == output.shape[0] and (output.shape[0] == rows or flattened)

    def _chosen(self, leaf_input: Any, output: Any) -> bool:
        """Whether rows may have been chosen by index, as an expert gets them: `[k, d]` in, `[k, e]` out."""
        both = isinstance(leaf_input, Tensor) and isinstance(output, Tensor)
        return (
            both
            and leaf_input.dim() == output.dim() == 2
            and 0 < len(leaf_input) == len(output)
            and leaf_input.is_floating_point()
            and output.requires_grad
        )

    @property
    def pattern(self) -> tuple[Any, ...]:
        """What a proof depends on, of the calls: which leaves ran, in which order, on which shapes."""
        shapes = tuple(call for call in self.shapes if call[0] not in self.loose)
        return (self.examples, self.leading, shapes)

    def backward(
        self,
        logits: Tensor,
        cotangent: Tensor,
        on_call: OnCall,
        inputs: Sequence[Tensor] = (),
        *,
        retain_graph: bool,
    ) -> tuple[Tensor | None, ...]:
        """One backward pass: every tapped call on the way is handed to `on_call`; the gradients of `inputs`."""
        extension = PerExampleExtension(lambda call, _, gradient: on_call(self.tapped[id(call)], gradient))
        asked = [tapped for tapped in self.tapped.values() if tapped.asked]
        wanted = [self.thread, *inputs, *(tapped.edge for tapped in asked)]
        with (
            backpack(extension, retain_graph=retain_graph),
            torch.autocast(logits.device.type, enabled=False),
        ):
            found = gradient_of(logits, wanted, cotangent, retain_graph=retain_graph)
            for tapped, gradient in zip(asked, found[1 + len(inputs) :], strict=True):
                if gradient is not None:
                    hook_run_extensions(tapped.call, (), (gradient,))
        return found[1 : 1 + len(inputs)]

    def sides(self, tapped: Tapped, gradient: Tensor, unscale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The input of a call and the gradient of its output, `[N, T, …]`."""
        a, g = self.rows_of(tapped, tapped.call.stored), self.rows_of(tapped, gradient)
        return a, g if unscale is None else g * unscale.to(g).view(-1, 1, 1)

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

    def rows_of(self, tapped: Tapped, x: Tensor) -> Tensor:
        """`x` by example, `[N, T, d]`; rows chosen by index with zeros up to the most that an example has."""
        places = self.places.get(id(tapped.call))
        return self.per_example(x) if places is None else places.padded(widened(x), self.examples)

    def per_example(self, x: Tensor, calls: int = 1) -> Tensor:
        """`[N·rows, …, d]` as `[N, T, d]`, of several calls as `[K·N, T, d]`; floats as float32 or wider, token indices
        as `[N, T, 1]`."""
        if not x.is_floating_point():
            return x.reshape(calls * self.examples, -1, 1)
        return widened(x).reshape(calls * self.examples, -1, x.shape[-1])


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
