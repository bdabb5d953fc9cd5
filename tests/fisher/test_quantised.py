"""A base in 4 or 8 bits: LoRA on top is measured, the base itself is refused by name.

bitsandbytes is not among the packages of the tests, which try it where it is installed; the stand-in does what its
layers do, with weights of whole numbers that have no gradient.
"""

import copy

import peft
import pytest
import torch
from torch import nn
from torch.nn import functional

from fishlens import InputError, estimate_fisher, find_blocks
from fishlens.fisher import coverage, reference_fisher

from .architectures import tiny


class Eight(nn.Linear):
    """A linear map whose weight is int8 and one scale a row."""

    def __init__(self, dense):
        super().__init__(dense.in_features, dense.out_features, bias=False, device="meta")
        weight = dense.weight.detach()
        self.register_buffer("scale", weight.abs().amax(1, keepdim=True) / 127)
        self.weight = nn.Parameter((weight / self.scale).round().to(torch.int8), requires_grad=False)

    def forward(self, x):
        return functional.linear(x, self.weight.to(x.dtype) * self.scale.to(x.dtype))


class LoRA(nn.Module):
    """As peft puts it on a quantised layer: the base's output, and what A and B add."""

    def __init__(self, base):
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.Linear(base.in_features, 2, bias=False)
        self.lora_B = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x):
        return self.base_layer(x) + self.lora_B(self.lora_A(x))


def quantised():
    model = tiny("Qwen3")
    for layer in model.model.layers:
        for holder, name in (
            (layer.self_attn, "q_proj"),
            (layer.self_attn, "v_proj"),
            (layer.mlp, "down_proj"),
        ):
            setattr(holder, name, LoRA(Eight(getattr(holder, name))))
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_("lora_" in name)
    return model.eval()


def sentences():
    return {"input_ids": torch.randint(1, 60, (4, 5), generator=torch.Generator().manual_seed(0))}


def agree(model, blocks, batch):
    found = estimate_fisher(model, batch, blocks=blocks, labels="exact", diagonal=True)
    expected = reference_fisher(model, batch, blocks, labels="exact")
    for block in blocks:
        torch.testing.assert_close(
            found.per_example[block.name], expected.per_example[block.name], rtol=1e-4, atol=1e-12
        )
    assert not [row for row in coverage(model, blocks, batch) if row.rule != "linear"]


def test_lora_on_a_quantised_base_is_measured_by_rules():
    model = quantised()
    blocks = find_blocks(model, by=lambda name, p: name.split(".")[2] if "lora" in name else None)
    agree(model, blocks, sentences())


def test_the_quantised_base_is_refused_by_name():
    model = quantised()
    blocks = find_blocks(model, by="*.layers.0.mlp.down_proj.base_layer.weight")
    with pytest.raises(InputError, match=r"down_proj.base_layer.weight.* torch.int8"):
        estimate_fisher(model, sentences(), blocks=blocks)


class Packed(nn.Module):
    """Packs its frozen weight in its first forward pass and notes so on the weight, as bitsandbytes does on a CPU."""

    class Scales:
        packed = False

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6), requires_grad=False)
        self.weight.scales = self.Scales()

    def forward(self, x):
        if not self.weight.scales.packed:
            self.weight.data = self.weight.data.flip(0)
            self.weight.scales.packed = True
        return functional.linear(x, self.weight.flip(0))


def test_what_a_forward_pass_notes_on_a_parameter_is_put_back():
    torch.manual_seed(0)
    model, x = nn.Sequential(Packed(), nn.Linear(6, 3)), torch.randn(4, 6)
    estimate_fisher(model, x, blocks=find_blocks(model, by="1.*"), labels="exact")
    assert not model[0].weight.scales.packed
    torch.manual_seed(0)
    assert torch.equal(model(x), nn.Sequential(Packed(), nn.Linear(6, 3))(x))


def test_lora_of_peft_on_four_bits_of_bitsandbytes():
    library = pytest.importorskip("bitsandbytes")
    model = tiny("Qwen3", hidden_size=64, head_dim=32)
    for layer in model.model.layers:
        dense = layer.self_attn.q_proj
        made = library.nn.Linear4bit(dense.in_features, dense.out_features, bias=False)
        made.weight = library.nn.Params4bit(dense.weight.detach(), requires_grad=False)
        layer.self_attn.q_proj = made.to("cpu")  # which quantises
    options = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj"], init_lora_weights=False)
    model = peft.get_peft_model(model, options).eval()
    before = copy.deepcopy(model)
    agree(model, find_blocks(model), sentences())
    torch.testing.assert_close(model(**sentences()).logits, before(**sentences()).logits)


def lora_on_queries(model):
    options = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj"], init_lora_weights=False)
    return peft.get_peft_model(model, options).eval()


def refused(model, says):
    with pytest.raises(InputError, match=rf"q_proj.base_layer.weight.* {says}"):
        estimate_fisher(model, sentences(), blocks=find_blocks(model, by="*q_proj.base_layer.weight"))


def test_lora_of_peft_on_eight_bits_of_bitsandbytes():
    library = pytest.importorskip("bitsandbytes")
    model = tiny("Qwen3", hidden_size=64, head_dim=32)
    for layer in model.model.layers:
        dense = layer.self_attn.q_proj
        made = library.nn.Linear8bitLt(
            dense.in_features, dense.out_features, bias=False, has_fp16_weights=False
        )
        made.weight = library.nn.Int8Params(
            dense.weight.detach(), requires_grad=False, has_fp16_weights=False
        )
        layer.self_attn.q_proj = made.to("cpu")  # which quantises
    model = lora_on_queries(model)
    before = model(**sentences()).logits
    agree(model, find_blocks(model), sentences())
    assert torch.equal(model(**sentences()).logits, before)
    refused(model, "torch.int8")


def test_lora_of_peft_on_eight_bits_of_torchao():
    library = pytest.importorskip("torchao.quantization")
    model = tiny("Qwen3", hidden_size=64, head_dim=32)
    library.quantize_(model.model, library.Int8WeightOnlyConfig())
    model = lora_on_queries(model)
    agree(model, find_blocks(model), sentences())
    refused(model, "is a Int8Tensor that holds integers")


def test_activations_that_torchao_rounds_to_eight_bits_let_no_gradient_through_and_are_refused():
    library = pytest.importorskip("torchao.quantization")
    model = tiny("Qwen3", hidden_size=64, head_dim=32)
    library.quantize_(model.model, library.Int8DynamicActivationInt8WeightConfig())
    with pytest.raises(InputError, match=r"no gradient reaches it .*quantised weights"):
        estimate_fisher(lora_on_queries(model), sentences())
