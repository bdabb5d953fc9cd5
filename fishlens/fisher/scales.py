"""Modules that only scale: y = x̂ ∘ w (+ b), where x̂ depends on the input alone.

RMSNorm exists under some sixty names in transformers (Llama's, Gemma's with 1 + w, per-head query and key norms, T5's
LayerNorm, MobileBERT's NoNorm), and torch and users have their own. What they share is not a class but a behaviour:
the output is affine in the weight, element by element. That is tested on the module itself, on random numbers, and
x̂ is then asked of the module: its output with w = 1 less its output with w = 0.
"""

import copy
import weakref
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_OF_TORCH = vars(nn.Module()).keys()
# what was found out about a module is kept as long as the module
_forms: "weakref.WeakKeyDictionary[nn.Module, Scale | None]" = weakref.WeakKeyDictionary()
_factors: "weakref.WeakKeyDictionary[nn.Module, float | None]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Scale:
    """How a module scales: local names of its weight and bias (None if it has none), and which outputs give x̂.

    `at_zero` and `at_one`: is the module's output with w = 0 (w = 1) needed to tell x̂ = y(1) − y(0)?
    """

    weight: str
    bias: str | None
    at_zero: bool
    at_one: bool

    def normal(self, module: nn.Module, x: Tensor) -> Tensor:
        """x̂ of the input `x` `[…, d]`, in the dtype that the module gives."""
        parts = {}
        for value, wanted in ((1.0, self.at_one), (0.0, self.at_zero)):
            if wanted:
                weights = {self.weight: x.new_full(x.shape[-1:], value)}
                if self.bias is not None:
                    weights[self.bias] = x.new_zeros(x.shape[-1:])
                parts[value] = _output(module, weights, x)
        if not self.at_zero:
            return parts[1.0]
        return parts[1.0] - parts[0.0] if self.at_one else parts[0.0]


def scale_of(module: nn.Module) -> Scale | None:
    """How `module` scales its input, or None where it does something else, or more."""
    if module not in _forms:
        _forms[module] = _tested(module)
    return _forms[module]


def family_of(module: nn.Module) -> Hashable:
    """Modules of one family give the same x̂ of the same input: one class, one form, the same settings. None: alone.

    Settings are its own attributes, all of them numbers, words or the like; a `forward` of its own is not.
    """
    plain = {name: value for name, value in vars(module).items() if name not in _OF_TORCH}
    if not all(
        isinstance(value, (int, float, str, type(None), tuple, torch.dtype)) for value in plain.values()
    ):
        return None
    return type(module), scale_of(module), tuple(sorted(plain.items(), key=lambda one: one[0]))


def _tested(module: nn.Module) -> Scale | None:
    names = _weight_and_bias(module)
    if names is None:
        return None
    try:
        return _behaves(module, *names)
    except Exception:  # whatever else the module's forward is, it is not a function of one tensor `[…, d]`
        return None


def _weight_and_bias(module: nn.Module) -> tuple[str, str | None] | None:
    """The local names, if `module` has one vector or two of one size, and nothing else that is a tensor."""
    own = {name: p for name, p in module._parameters.items() if p is not None}
    if next(module.children(), None) is not None or any(b is not None for b in module._buffers.values()):
        return None
    vectors = {p.shape for p in own.values()}
    if len(vectors) != 1 or len(next(iter(vectors))) != 1 or vectors == {torch.Size([1])}:
        return None  # one number for all of the last dimension is not a vector along it
    biases = [name for name in own if "bias" in name or name == "beta"]
    weights = [name for name in own if name not in biases]
    if len(weights) != 1 or len(biases) > 1:
        return None
    return weights[0], biases[0] if biases else None


def _behaves(module: nn.Module, weight: str, bias: str | None) -> Scale | None:
    size = module._parameters[weight].shape[0]  # type: ignore[union-attr]
    generator = torch.Generator().manual_seed(0)
    device = module._parameters[weight].device  # type: ignore[union-attr]

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    x, some, shift = draw(2, 3, size), draw(size), draw(size)
    zeros = torch.zeros_like(some)

    def at(w: Tensor, b: Tensor) -> Tensor:
        return _output(module, {weight: w} | ({bias: b} if bias is not None else {}), x)

    zero, one, other = at(zeros, zeros), at(zeros + 1, zeros), at(some, zeros)
    x_hat = one - zero
    if one.shape != x.shape or not _same(other - zero, x_hat * some) or not bool(x_hat.any()):
        return None
    if bias is not None and not _same(at(some, shift) - other, shift.expand_as(x)):
        return None
    if not bool(zero.any()):
        return Scale(weight, bias, at_zero=False, at_one=True)
    if torch.equal(one, 2 * zero):  # (1 + w) x̂
        return Scale(weight, bias, at_zero=True, at_one=False)
    return Scale(weight, bias, at_zero=True, at_one=True)


def _same(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a, b, rtol=1e-4, atol=1e-5))


def _output(module: nn.Module, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """What `module` would give with these weights. A copy computes it: no hook runs and the module is not touched."""
    twin = module.__class__.__new__(module.__class__)
    kept: dict[str, Any] = {
        key: value for key, value in vars(module).items() if "hook" not in key and key != "_parameters"
    }
    vars(twin).update(copy.deepcopy(kept))
    empty = vars(nn.Module())
    vars(twin).update({key: value for key, value in empty.items() if "hook" in key})
    vars(twin)["_parameters"] = weights
    vars(twin)["training"] = False
    with torch.no_grad():
        return type(twin).forward(twin, x) if "forward" not in kept else kept["forward"](x)


def embedding_factor(module: nn.Module) -> float | None:
    """The c of an embedding whose output is c times the rows of its table (Gemma's scale them), or None where it
    computes something else."""
    if module not in _factors:
        try:
            _factors[module] = _looked_up(module)
        except Exception:  # its forward takes something else than token indices
            _factors[module] = None
    return _factors[module]


def _looked_up(module: nn.Module) -> float | None:
    """Looks four rows of our own up with the module's forward."""
    weight = module._parameters.get("weight")
    if weight is None or len(module._parameters) != 1 or next(module.children(), None) is not None:
        return None
    table = torch.randn(4, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight.device)
    index = torch.tensor([[3, 1, 2], [2, 3, 1]], device=weight.device)
    found, rows = _output(module, {"weight": table}, index), table[index]
    if found.shape != rows.shape:
        return None
    factor = float((found * rows).sum() / rows.square().sum())
    return factor if _same(found, factor * rows) else None
