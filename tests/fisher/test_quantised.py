"""Weights that call themselves floating point and are not: tensor subclasses as quantisation libraries have them."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fishlens import InputError, estimate_fisher, find_blocks


class Quantised(Tensor):
    """int8 numbers and a scale, which compute as the floating-point matrix they stand for."""

    @staticmethod
    def __new__(cls, numbers: Tensor, scale: Tensor):
        return Tensor._make_wrapper_subclass(cls, numbers.shape, dtype=scale.dtype, device=numbers.device)

    def __init__(self, numbers: Tensor, scale: Tensor):
        self.numbers, self.scale = numbers, scale

    def __tensor_flatten__(self):
        return ["numbers", "scale"], None

    @classmethod
    def __tensor_unflatten__(cls, parts, meta, size, stride):
        return cls(parts["numbers"], parts["scale"])

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.detach.default, torch.ops.aten.clone.default):
            return cls(args[0].numbers, args[0].scale)

        def plain(x):
            return x.numbers.to(x.scale.dtype) * x.scale if isinstance(x, cls) else x

        return func(*tree_map(plain, args), **tree_map(plain, kwargs or {}))


class Opaque(Quantised):
    """One that does not tell what it is made of."""

    __tensor_flatten__ = None


def quantised(kind):
    """(a chain whose first weight is of `kind` and frozen, the same with the matrix it stands for)."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    weight = dense[0].weight.detach()
    scale = weight.abs().max() / 127
    numbers = (weight / scale).round().to(torch.int8)
    dense[0].weight = nn.Parameter(numbers * scale, requires_grad=False)
    model = copy.deepcopy(dense)
    model[0].weight = nn.Parameter(kind(numbers, scale), requires_grad=False)
    return model, dense


X = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("kind", "why"), [(Quantised, "holds integers"), (Opaque, "a small step does not change")]
)
def test_a_quantised_weight_is_refused_by_name(kind, why):
    model, _ = quantised(kind)
    with pytest.raises(InputError, match=rf"'0\.weight' of block '0' is a {kind.__name__} that {why}"):
        estimate_fisher(model, X, blocks=find_blocks(model, by="module"))


@pytest.mark.parametrize("kind", [Quantised, Opaque])
def test_what_trains_beside_and_above_quantised_weights_is_measured(kind):
    model, dense = quantised(kind)

    def by(name, _):
        return None if name == "0.weight" else name

    found, expected = (
        estimate_fisher(each, X, blocks=find_blocks(each, by=by), labels="exact") for each in (model, dense)
    )
    assert found.trace == pytest.approx(expected.trace, rel=1e-12) and set(found.trace) == {
        "0.bias",
        "2.weight",
        "2.bias",
    }
