"""Norms of every make are measured by one rule, found by what they do and not by what they are called."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, Qwen3Config, Qwen3ForCausalLM
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mobilebert.modeling_mobilebert import NoNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from fishlens import find_blocks
from fishlens.fisher import coverage
from fishlens.fisher.extensions import rule_for
from fishlens.fisher.scales import embedding_factor, family_of, scale_of

from .models import batch_for, shaken
from .test_rules import assert_agrees


class Counting(nn.RMSNorm):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * 2


class Shifted(nn.Module):
    """(2 + w) x̂ + b: neither w = 0 nor w = 1 alone gives x̂."""

    def __init__(self):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(6))

    def forward(self, x):
        return functional.normalize(x, dim=-1) * (2 + self.gamma) + self.beta


class Elsewhere(nn.Module):
    """One vector, which is no scale."""

    def __init__(self, compute):
        super().__init__()
        self.weight, self.compute = nn.Parameter(torch.randn(6)), compute

    def forward(self, x):
        return self.compute(x, self.weight)


@pytest.mark.parametrize(
    "norm",
    [
        LlamaRMSNorm(6),
        GemmaRMSNorm(6),
        T5LayerNorm(6),
        NoNorm(6),
        nn.RMSNorm(6),
        Counting(6),
        Shifted(),
        Elsewhere(lambda x, w: x + w),  # x̂ = 1
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_the_rule_gives_what_autograd_gives_for_one_example_after_the_other(norm):
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(6, generator=torch.Generator().manual_seed(3)))
    fired = []
    norm.register_forward_hook(lambda *_: fired.append(1))
    rule = rule_for(norm)
    assert rule is not None and rule.label == "scale"
    a, g = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(1))
    found = rule.gradients([norm], a, g)
    assert not fired and getattr(norm, "calls", 0) == 0  # the module itself was not called
    for n in range(4):
        (norm(a[n : n + 1]) * g[n : n + 1]).sum().backward()
        for name, parameter in norm.named_parameters():
            torch.testing.assert_close(found[name].dense(n, n + 1)[0], parameter.grad, rtol=1e-5, atol=1e-5)
            parameter.grad = None


@pytest.mark.parametrize(
    "compute",
    [
        lambda x, w: x * w.softmax(-1),
        lambda x, w: x * w.flip(-1),
        lambda x, w: x * w.sum(),
        lambda x, w: (x * w).tanh(),
        lambda x, w: x[..., :3] * w[:3],
        lambda x, w: x.cumsum(1) / w,
        lambda x, w: {"out": x * w},
    ],
)
def test_a_vector_that_does_anything_else_has_no_such_rule(compute):
    assert scale_of(Elsewhere(compute)) is None and rule_for(Elsewhere(compute)) is None


def test_a_replaced_forward_is_what_counts():
    norm = nn.RMSNorm(6)
    norm.forward = lambda x: functional.rms_norm(x, (6,), norm.weight.softmax(-1))
    assert scale_of(norm) is None


def small(config, **changes):
    return config(
        vocab_size=24, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=24, head_dim=8, pad_token_id=0, **changes,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["qwen3", "gemma3"])
def test_a_decoder_has_nothing_that_is_measured_one_example_at_a_time(name):
    """Query and key norms per head, final norms, Gemma's scaled embeddings that are the decoder's weight too."""
    torch.manual_seed(0)
    if name == "qwen3":
        model, rtol = Qwen3ForCausalLM(small(Qwen3Config)), 1e-9
    else:  # computes its norms in float32, whatever the model's dtype is
        model = Gemma3ForCausalLM(small(Gemma3TextConfig, layer_types=["full_attention"] * 2))
        rtol = 1e-5
    model = shaken(model).eval()
    blocks = find_blocks(model, embeddings=True)
    batch = batch_for("causal_lm", vocabulary=24)
    slow = [row for row in coverage(model, blocks, batch) if "one example" in row.rule]
    assert not slow
    assert_agrees(model, batch, blocks, "mc", rtol=rtol)


def test_embeddings_that_scale_are_told_from_those_that_do_more():
    class Scaled(nn.Embedding):
        def forward(self, ids):
            return super().forward(ids) * 3

    class Normed(nn.Embedding):
        def forward(self, ids):
            return functional.normalize(super().forward(ids), dim=-1)

    assert embedding_factor(Scaled(5, 4)) == pytest.approx(3)
    assert embedding_factor(Normed(5, 4)) is None and rule_for(Normed(5, 4)) is None


class Root(nn.Module):
    """An RMSNorm with a setting, and one in which something else than settings is kept."""

    def __init__(self, eps, beside=None):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.randn(4)), eps
        if beside is not None:
            self.beside = beside

    def forward(self, x):
        return self.weight * x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt()


def test_norms_are_reduced_together_only_where_they_norm_alike():
    torch.manual_seed(0)
    norms = [Root(1e-6), Root(1e-6), Root(0.5), Root(1e-6, beside=[3.0])]
    families = [family_of(norm) for norm in norms]
    assert families[0] == families[1] != families[2] and families[3] is None
    model = nn.Sequential(*norms, nn.Flatten(), nn.Linear(12, 3)).double()
    assert_agrees(
        model, torch.randn(5, 3, 4, dtype=torch.float64), find_blocks(model, by=lambda n, _: n), "exact"
    )
