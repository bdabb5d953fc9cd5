"""BackPACK extensions: from a leaf module's input and output gradient to the per-example gradient of its
parameters.

BackPACK keeps the books (which extension is active, when stored tensors are dropped); the rules are ours. A
call of a leaf module becomes a `Call`: BackPACK looks rules up by the exact class of what it is handed, so
there is one class of calls per rule, and subclasses of a module, two calls of one module, and modules with
a child called `output` (the name BackPACK would store the output under) need no exception.
"""

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar

import torch
from backpack import hook_run_extensions
from backpack.extensions.firstorder.base import FirstOrderBackpropExtension, FirstOrderModuleExtension
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from fishlens.fisher.gradients import Dense, OuterSum, PerExampleGradient, RowSum
from fishlens.fisher.scales import embedding_factor, family_of, scale_of


class Call:
    """One call of a leaf module, or several together (of no one module), as BackPACK sees a module: `input0` and
    `output` live here, not on the module."""

    def __init__(self, module: nn.Module | None, leaf_input: Tensor) -> None:
        self.module = module
        self.input0 = leaf_input

    @property
    def stored(self) -> Tensor:
        return self.input0


class LinearCall(Call): ...


class Conv1DCall(Call): ...


class LayerNormCall(Call): ...


class ScaleCall(Call): ...


class EmbeddingCall(Call): ...


class LoRACall(Call): ...


class OperationCall(Call): ...


class Rule(FirstOrderModuleExtension):
    """Per-example gradients of the parameters of one kind of leaf module.

    `covers` says whether the rule is exact for this very module. `gradients` gets K modules of one kind, the input
    `a` and the output gradient `g`, both `[K·N, T, …]` (one module after the other) and float32 or wider, and
    returns the gradient of each parameter by its local name.
    """

    call: ClassVar[type[Call]]
    label: ClassVar[str]

    def __call__(
        self, extension: Any, module: Any, g_inp: tuple[Tensor, ...], g_out: tuple[Tensor, ...]
    ) -> None:
        extension.receive(module, self, g_out[0])

    @abstractmethod
    def covers(self, module: nn.Module) -> bool: ...

    @abstractmethod
    def gradients(self, modules: Sequence[Any], a: Tensor, g: Tensor) -> dict[str, PerExampleGradient]: ...

    def kind(self, module: Any) -> Hashable:
        """Modules of one kind (and shape) can be handed to `gradients` together; None: each alone."""
        return None

    def leaf_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The tensor that the module transforms: its first argument, however it was passed."""
        return args[0] if args else next(iter(kwargs.values()))


def _runs(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether `module` is a `kind` that computes what a `kind` computes (a subclass may not)."""
    return isinstance(module, kind) and type(module).forward is kind.forward


def _adds(lora: Any) -> bool:
    """Whether an adapters LoRA module adds to the output of the linear map, and leaves that itself alone."""
    return getattr(lora, "composition_mode", "") == "add" and not getattr(lora, "use_dora", False)


def _no_positions(x: Tensor) -> Tensor:
    return x.sum(1)


def _mapped(x: Tensor, maps: Tensor) -> Tensor:
    """`[K·N, T, i]` by K maps `[K, i, o]`, each for its own N rows: `[K·N, T, o]`."""
    return torch.bmm(x.reshape(len(maps), -1, x.shape[-1]), maps).view(*x.shape[:2], -1)


class LinearRule(Rule):
    """y = W a + b:  s_W = Σ_t g_t a_tᵀ,  s_b = Σ_t g_t.

    adapters turns the attention's linear maps into `LoRALinear`, whose output is the same map plus what
    active LoRA modules add: the gradient of its own weight is the same, unless an adapter *scales* the
    output (IA3) or is merged.
    """

    call = LinearCall
    label = "linear"

    def covers(self, module: nn.Module) -> bool:
        if _runs(module, nn.Linear):
            return True
        if not isinstance(module, nn.Linear) or type(module).__name__ != "LoRALinearTorch":
            return False
        loras: Any = module.loras
        plain = all(_adds(lora) for lora in loras.values())
        return plain and not module.fan_in_fan_out

    def kind(self, module: nn.Linear) -> Hashable:
        return ()

    def gradients(self, modules: Sequence[nn.Linear], a: Tensor, g: Tensor) -> dict[str, PerExampleGradient]:
        return {"weight": OuterSum(g, a), "bias": Dense(_no_positions(g))}


class Conv1DRule(Rule):
    """GPT-2's `Conv1D`, a linear map with its weight transposed: s_W = Σ_t a_t g_tᵀ."""

    call = Conv1DCall
    label = "conv1d"

    def covers(self, module: nn.Module) -> bool:
        return _runs(module, Conv1D)

    def kind(self, module: Conv1D) -> Hashable:
        return ()

    def gradients(self, modules: Sequence[Conv1D], a: Tensor, g: Tensor) -> dict[str, PerExampleGradient]:
        return {"weight": OuterSum(a, g), "bias": Dense(_no_positions(g))}


class LayerNormRule(Rule):
    """y = w ∘ x̂ + b:  s_w = Σ_t g_t ∘ x̂_t,  s_b = Σ_t g_t."""

    call = LayerNormCall
    label = "layer norm"

    def covers(self, module: nn.Module) -> bool:
        return _runs(module, nn.LayerNorm) and len(module.normalized_shape) == 1  # type: ignore[arg-type]

    def kind(self, module: nn.LayerNorm) -> Hashable:
        return module.eps

    def gradients(
        self, modules: Sequence[nn.LayerNorm], a: Tensor, g: Tensor
    ) -> dict[str, PerExampleGradient]:
        normal = functional.layer_norm(a, modules[0].normalized_shape, eps=modules[0].eps)
        return {"weight": Dense(_no_positions(g * normal)), "bias": Dense(_no_positions(g))}


class ScaleRule(Rule):
    """y = w ∘ x̂ + b of any module that does no more than this (RMSNorm of every make):  s_w = Σ_t g_t ∘ x̂_t,
    s_b = Σ_t g_t."""

    call = ScaleCall
    label = "scale"

    def covers(self, module: nn.Module) -> bool:
        return scale_of(module) is not None

    def kind(self, module: nn.Module) -> Hashable:
        return family_of(module)

    def gradients(self, modules: Sequence[nn.Module], a: Tensor, g: Tensor) -> dict[str, PerExampleGradient]:
        scale = scale_of(modules[0])
        assert scale is not None
        found: dict[str, PerExampleGradient] = {
            scale.weight: Dense(_no_positions(g * scale.normal(modules[0], a)))
        }
        if scale.bias is not None:
            found[scale.bias] = Dense(_no_positions(g))
        return found


class EmbeddingRule(Rule):
    """Row v of the table gets c Σ g_t over the positions t that read it (c = 1 but for embeddings that scale); the
    padding row gets nothing."""

    call = EmbeddingCall
    label = "embedding"

    def covers(self, module: nn.Module) -> bool:
        if not isinstance(module, nn.Embedding) or module.scale_grad_by_freq or module.max_norm is not None:
            return False
        return _runs(module, nn.Embedding) or embedding_factor(module) is not None

    def gradients(
        self, modules: Sequence[nn.Embedding], a: Tensor, g: Tensor
    ) -> dict[str, PerExampleGradient]:
        (module,) = modules
        factor = 1.0 if _runs(module, nn.Embedding) else embedding_factor(module)
        assert factor is not None
        scaled = g if factor == 1.0 else g * factor
        return {"weight": RowSum(a.squeeze(-1), scaled, module.num_embeddings, module.padding_idx)}


class LoRARule(Rule):
    """adapters' LoRA, y = c B A x:  s_B = c Σ_t g_t (A x_t)ᵀ,  s_A = c Σ_t (Bᵀ g_t) x_tᵀ."""

    call = LoRACall
    label = "lora"

    def covers(self, module: nn.Module) -> bool:
        kind = type(module)
        if (kind.__module__, kind.__name__) != ("adapters.methods.lora", "LoRA"):
            return False  # told by name: a model without it must not need the library
        if module.use_gating or module.use_dora:
            return False
        dropout = module.lora_dropout
        return not (isinstance(dropout, nn.Dropout) and dropout.training and dropout.p > 0)

    def kind(self, module: Any) -> Hashable:
        return (module.scaling, module.lora_A.shape, module.lora_B.shape)

    def gradients(self, modules: Sequence[Any], a: Tensor, g: Tensor) -> dict[str, PerExampleGradient]:
        down = torch.stack([module.lora_A.detach() for module in modules]).to(a.dtype)
        up = torch.stack([module.lora_B.detach() for module in modules]).to(a.dtype)
        g = g * modules[0].scaling
        return {
            "lora_A": OuterSum(_mapped(g, up), a),
            "lora_B": OuterSum(g, _mapped(a, down.transpose(1, 2))),
        }

    def leaf_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """`forward(hidden_states, layer_input)`: the first may be None, then the second is meant."""
        named = dict(zip(("hidden_states", "layer_input"), args, strict=False)) | kwargs
        hidden = named.get("hidden_states")
        return named["layer_input"] if hidden is None else hidden


class OperationRule(Rule):
    """No module's rule: the place where a parameter meets the batch (see `operations`)."""

    call = OperationCall
    label = "operation"

    def covers(self, module: nn.Module) -> bool:
        return False

    def gradients(self, modules: Sequence[Any], a: Tensor, g: Tensor) -> dict[str, PerExampleGradient]:
        raise TypeError("the gradients of tensors made of parameters have no parameter's name yet")


RULES: tuple[Rule, ...] = (
    LinearRule(),
    Conv1DRule(),
    LayerNormRule(),
    EmbeddingRule(),
    LoRARule(),
    ScaleRule(),
    OperationRule(),
)


def rule_for(module: nn.Module) -> Rule | None:
    """The rule that is exact for `module`, if there is one."""
    return next((rule for rule in RULES if rule.covers(module)), None)


class PerExampleExtension(FirstOrderBackpropExtension):
    """The BackPACK extension of one probe: hands every (call, rule, output gradient) to `receive`."""

    def __init__(self, receive: Callable[[Call, Rule, Tensor], None]) -> None:
        super().__init__("fishlens", {rule.call: rule for rule in RULES}, fail_mode="ERROR")
        self.receive = receive


class Tap(torch.autograd.Function):
    """The identity on a leaf's output; its backward runs BackPACK's active extensions on that `Call`.

    `thread` is a scalar that requires a gradient and runs through every tap: asking autograd for the
    gradient of this one number makes it visit every tapped leaf, and compute no parameter's gradient on the
    way. There is nothing to add up for it: its gradient is None.

    The output leaves as an alias, not as a view: autograd would not let the model change a view in place.
    No leaf that has a rule needs its own output in its backward pass.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, thread: Tensor, call: Call) -> Tensor:
        ctx.call = call
        return output.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        hook_run_extensions(ctx.call, (), (gradient,))
        return gradient, None, None
