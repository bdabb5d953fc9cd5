"""Parameters that no module's rule covers: found where they meet the batch, operation by operation.

A DoRA magnitude, an (IA)³ vector, a table of relative positions or a gate is turned into some tensor w by
operations that see no example (a division by a norm, a permutation, a look-up of positions), and then w meets the
batch in one operation. If that is element by element, every example is given a copy of w of its own: the same
numbers forward, and backward the gradient of each copy is the example's gradient of w. If it is a matrix product, the
gradient is that of a linear map. Any other operation is done again for one example after the other: this one alone,
not the network. From w back to the parameter one batched vector-Jacobian product leads. Whether
all this is right for a model is proved on it, like every rule (see `proof`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakMethod

import torch
from backpack import backpack, hook_run_extensions
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from fishlens.fisher.again import dense, mapped
from fishlens.fisher.extensions import Tap
from fishlens.fisher.gradients import Dense, OuterSum, PerExampleGradient, joined

ROOM = 2**30
"""Bytes that the gradients of all examples of one parameter may take here."""

_ELEMENTWISE = frozenset(
    f"{prefix}{name}{suffix}"
    for name in ("mul", "multiply", "add", "sub", "subtract", "div", "divide", "truediv", "true_divide")
    for prefix, suffix in (("", ""), ("", "_"), ("__", "__"), ("__r", "__"), ("__i", "__"))
)
_TILES = frozenset({"repeat", "tile"})
_ALONG = _TILES | {"expand", "broadcast_to", "expand_as"}
_WRITES = frozenset(
    {"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__idiv__", "__imatmul__"}
)
_PRODUCTS = frozenset({"matmul", "__matmul__", "__rmatmul__", "mm"})


@dataclass(eq=False)
class Meeting:
    """One operation in which tensors made of parameters alone meet the batch.

    `tensors`: the w that meets it there. `form`: "copies", "left" (x W), "linear" (x Wᵀ + b) or "again". `names`: the
    parameters that the tensors are made of, under any key. `stored`: x, or w where it has copies. `operation`: what
    to do again for one example after the other, as (function, arguments, named arguments, the tensors with rows).
    """

    tensors: Sequence[Tensor | None]
    form: str
    names: Mapping[str, str]
    stored: Tensor
    operation: tuple[Any, Any, Any, Sequence[Tensor]] | None = None

    def gradients(self, gradient: Tensor, examples: int) -> list[tuple[Tensor, PerExampleGradient]]:
        """(w, the gradient of every example) from the gradient of the operation's output, float32 or wider."""
        if self.operation is not None:
            found = [torch.stack(each) for each in zip(*self._again(gradient, examples), strict=True)]
            return [(w, Dense(g)) for w, g in zip(self.tensors, found, strict=True) if w is not None]
        first = self.tensors[0]
        if self.form == "copies":
            assert first is not None
            return [(first, Dense(gradient.reshape(examples, -1, *first.shape).sum(1)))]
        g = gradient.reshape(examples, -1, gradient.shape[-1])
        a = self.stored.to(g.dtype).reshape(examples, -1, self.stored.shape[-1])
        products = (OuterSum(a, g) if self.form == "left" else OuterSum(g, a), Dense(g.sum(1)))
        return [(w, product) for w, product in zip(self.tensors, products, strict=False) if w is not None]

    def _again(self, gradient: Tensor, examples: int) -> Iterator[list[Tensor]]:
        """The gradients of the tensors for one example after the other; infinite where the operation fails."""
        assert self.operation is not None
        func, args, kwargs, rows = self.operation
        size = len(gradient) // examples
        wide = [w.detach().to(gradient.dtype).requires_grad_() for w in self.tensors if w is not None]
        mine = {id(w): new for w, new in zip(self.tensors, wide, strict=True)}
        with_rows = {id(t) for t in rows}
        for n in range(examples):
            part = slice(n * size, (n + 1) * size)

            def one(t: Tensor, part: slice = part) -> Tensor:
                if id(t) in mine:
                    return mine[id(t)]
                t = t.detach()[part] if id(t) in with_rows else t.detach()
                return t.to(gradient.dtype) if t.is_floating_point() else t

            try:
                with torch.enable_grad():
                    output = func(*mapped(args, one), **mapped(kwargs, one))
                    found = torch.autograd.grad(output, wide, gradient[part].reshape(output.shape))
                    yield [dense(g) for g in found]
            except (RuntimeError, TypeError, ValueError, IndexError):
                yield [torch.full_like(w, torch.inf) for w in wide]


class Copies(torch.autograd.Function):
    """w `[*s]` as `[lead, *s]`: a copy for every row of the batch. The backward pass hands their gradients on."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, thread: Tensor, call: Any, lead: int) -> Tensor:
        ctx.call, ctx.thread, ctx.shape = call, thread, w.shape
        return w.detach().unsqueeze(0).expand(lead, *w.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        hook_run_extensions(ctx.call, (), (gradient,))
        return gradient.sum(0), torch.zeros_like(ctx.thread), None, None


class Operations(TorchFunctionMode):
    """Inside, the operations on `parameters` are followed until they meet a tensor whose rows are the batch's.

    `leading`: the sizes that the first dimension of such a tensor has. `meet` takes a `Meeting` and a function that
    puts a tap there: a bound method. `tangled` gets (names, output) of operations that are not such a meeting.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        leading: frozenset[int],
        meet: Callable[[Meeting, Callable[[Any], Tensor]], Tensor],
        thread: Tensor,
    ) -> None:
        super().__init__()
        # weak, as those who give it hold this: what a forward pass leaves must not wait for the garbage collector
        self._meet = WeakMethod(meet)
        self.leading, self.thread = leading, thread
        self.tangled: list[tuple[frozenset[str], Tensor]] = []
        self.made_of: Any = WeakTensorKeyDictionary()
        for name, parameter in parameters.items():
            self.made_of[parameter] = frozenset({name})

    def _met(self, meeting: Meeting, tap: Callable[[Any], Tensor]) -> Tensor:
        meet = self._meet()
        assert meet is not None
        return meet(meeting, tap)

    def follow(self, output: Tensor, names: frozenset[str]) -> None:
        """From now on `output` is followed, as a tensor made of the parameters `names`."""
        self._follow(output, names)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = _tensors((*args, *kwargs.values()))
        mine = [t for t in given if t in self.made_of] if torch.is_grad_enabled() else []
        if not mine:
            return func(*args, **kwargs)
        names = frozenset().union(*(self.made_of[t] for t in mine))
        kind = getattr(func, "__name__", "")
        args, kwargs = _in_order(kind, args, kwargs)
        rows = [t for t in given if t not in self.made_of and t.dim() and t.shape[0] in self.leading]
        if kind in _ALONG and not rows:
            along = self._along(kind, func, args, kwargs, names)
            if along is not None:
                return along
        if not rows:
            return self._follow(func(*args, **kwargs), names)
        if kind in _ELEMENTWISE and len(mine) == len(rows) == 1 and len(args) == 2:
            met = self._element_by_element(func, args, kwargs, mine[0], rows[0], names)
            if met is not None:
                return met
        if kind in _PRODUCTS and len(args) == 2 and args[1] is mine[0] and args[1].dim() == 2:
            return self._product(func, args, kwargs, [args[1]], "left", names)
        if kind == "linear" and len(rows) == 1 and rows[0] is args[0] and not kwargs:
            tensors = [t if isinstance(t, Tensor) and t in self.made_of else None for t in args[1:]]
            return self._product(func, args, kwargs, tensors, "linear", names)
        if not kind.endswith("_") or (kind.startswith("__") and kind not in _WRITES):
            return self._again(func, args, kwargs, mine, rows, names)
        return self._tangle(func(*args, **kwargs), names)

    def _tangle(self, result: Any, names: frozenset[str]) -> Any:
        self.tangled += [(names, t) for t in _tensors((result,)) if t.grad_fn is not None]
        return result

    def _again(
        self, func: Any, args: Any, kwargs: Any, mine: list[Tensor], rows: list[Tensor], names: frozenset[str]
    ) -> Any:
        result, lead = func(*args, **kwargs), rows[0].shape[0]
        regular = isinstance(result, Tensor) and result.dim() and result.shape[0] == lead
        if (
            not regular
            or not result.requires_grad
            or any(len(t) != lead for t in rows)
            or _has_rows(mine, lead)
        ):
            return self._tangle(result, names)
        tensors = list({id(t): t for t in mine if t.is_floating_point() and t.requires_grad}.values())
        meeting = Meeting(
            tensors, "again", {name: name for name in names}, rows[0].detach(), (func, args, kwargs, rows)
        )
        return self._met(meeting, lambda call: Tap.apply(result, self.thread, call))

    def _follow(self, result: Any, names: frozenset[str]) -> Any:
        for tensor in _tensors((result,)):
            if tensor.requires_grad:
                self.made_of[tensor] = self.made_of.get(tensor, frozenset()) | names
        return result

    def _element_by_element(
        self, func: Any, args: Any, kwargs: Any, w: Tensor, x: Tensor, names: frozenset[str]
    ) -> Any:
        missing = x.dim() - w.dim()
        if x.dim() < 2 or missing < 0 or (missing == 0 and w.shape[0] != 1):
            return None
        aligned = w.reshape([1] * (missing - 1) + list(w.shape)) if missing else w.squeeze(0)
        copies = self._copies(w, aligned, x.shape[0], names)
        return func(*(copies if arg is w else arg for arg in args), **kwargs)

    def _copies(self, w: Tensor, aligned: Tensor, lead: int, names: frozenset[str]) -> Tensor:
        """`lead` copies of `aligned`, which is `w` in another shape."""
        meeting = Meeting([w], "copies", {name: name for name in names}, w.detach())
        return self._met(meeting, lambda call: Copies.apply(aligned, self.thread, call, lead))

    def _along(self, kind: str, func: Any, args: Any, kwargs: Any, names: frozenset[str]) -> Any:
        """A new leading dimension of the batch, by `expand` or `repeat`: here the copies are made."""
        w, out = args[0], func(*args, **kwargs)
        missing = out.dim() - w.dim()
        if (
            kind in _TILES and missing == 0 and out.shape[1:] == w.shape[1:]
        ):  # the rows of an example lie together
            copies = out.shape[0] // w.shape[0]
            if copies in self.leading:
                return self._copies(w, w, copies, names).reshape(out.shape)
        inner = w.shape if missing else w.shape[1:]
        if out.shape[0] not in self.leading or (kind in _TILES and out.shape[-len(inner) :] != inner):
            return self._follow(out, names)
        if missing == 0 and w.shape[0] != 1:
            return self._follow(out, names)
        aligned = w.squeeze(0) if missing == 0 else w
        copies = self._copies(w, aligned, out.shape[0], names)
        grown = copies.reshape([len(copies)] + [1] * (out.dim() - copies.dim()) + list(aligned.shape))
        return grown.expand(out.shape)

    def _product(
        self,
        func: Any,
        args: Any,
        kwargs: Any,
        tensors: list[Tensor | None],
        form: str,
        names: frozenset[str],
    ) -> Tensor:
        meeting = Meeting(tensors, form, {name: name for name in names}, args[0].detach())
        return self._met(meeting, lambda call: Tap.apply(func(*args, **kwargs), self.thread, call))


def fits(parameter: nn.Parameter, examples: int) -> bool:
    """Whether the gradients of so many examples fit into `ROOM`."""
    return examples * parameter.numel() * parameter.element_size() <= ROOM


def back_to_parameters(
    found: Sequence[tuple[Tensor, PerExampleGradient]], parameters: Mapping[str, nn.Parameter]
) -> dict[str, PerExampleGradient]:
    """The gradients of every example with respect to `parameters`, from those of the tensors made of them."""
    direct: dict[str, list[PerExampleGradient]] = {}
    names = {id(p): name for name, p in parameters.items()}
    chained = []
    for w, gradient in found:
        if id(w) in names:
            direct.setdefault(names[id(w)], []).append(gradient)
        elif w.requires_grad:
            chained.append((w, gradient))
    if chained and parameters:
        for name, values in _pulled_back(chained, parameters).items():
            direct.setdefault(name, []).append(Dense(values))
    return {name: parts[0] if len(parts) == 1 else joined(parts) for name, parts in direct.items()}


def _pulled_back(
    chained: Sequence[tuple[Tensor, PerExampleGradient]], parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """One batched product; one by one where an operation on the way does not know batches (sparse tables)."""
    outputs, inputs = [w for w, _ in chained], list(parameters.values())
    cotangents = [gradient.dense().to(w.dtype) for w, gradient in chained]

    def pull(these: Sequence[Tensor], batched: bool) -> tuple[Tensor | None, ...]:
        with backpack(retain_graph=True):  # no call forgets what it stored
            return torch.autograd.grad(
                outputs, inputs, these, retain_graph=True, allow_unused=True, is_grads_batched=batched
            )

    try:
        gradients = pull(cotangents, True)
    except RuntimeError:
        each = [pull([c[n] for c in cotangents], False) for n in range(len(cotangents[0]))]
        gradients = tuple(
            None if parts[0] is None else torch.stack([dense(part) for part in parts])
            for parts in zip(*each, strict=True)
        )
    wide = chained[0][1].dense(0, 1).dtype
    return {name: g.to(wide) for name, g in zip(parameters, gradients, strict=True) if g is not None}


def _in_order(
    kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same arguments, by position where the code below reads them so and a model names them."""
    names = ("input", "weight", "bias") if kind == "linear" else ("input",) if kind in _ALONG else ()
    left = dict(kwargs)
    for name in names[len(args) :]:
        if name not in left:
            break
        args = (*args, left.pop(name))
    return args, left


def _has_rows(tensors: Sequence[Tensor], lead: int) -> bool:
    """Whether examples went into tensors that were taken to be made of parameters alone."""
    return lead > 1 and any(t.dim() > 0 and t.shape[0] == lead and not t.is_leaf for t in tensors)


def _tensors(values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found.extend(_tensors(value))
    return found
