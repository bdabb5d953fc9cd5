"""What no module's rule covers is followed to the operation in which it meets the batch, and measured there."""

import peft
import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import XLMRobertaForSequenceClassification

from fishlens import estimate_fisher, find_blocks
from fishlens.fisher import coverage, reference_fisher

from .models import adapters_library, batch_for, config, shaken

X = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


class Uses(nn.Module):
    """Two vectors, a matrix and a kernel, used as `compute` says; then a head."""

    def __init__(self, compute):
        super().__init__()
        torch.manual_seed(0)
        self.v, self.u = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(6))
        self.m, self.k = nn.Parameter(torch.randn(6, 6)), nn.Parameter(torch.randn(6, 6, 1))
        self.t = nn.Parameter(torch.randn(5, 6))
        self.compute, self.out = compute, nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.compute(self, x).tanh().mean(1))


def measured(model, batch=X):
    """(names measured one example at a time, largest relative difference to plain autograd)"""
    blocks = [b for b in find_blocks(model, by=lambda n, _: n) if b.name.split(".")[0] != "unused"]
    found = estimate_fisher(model, batch, blocks=blocks, labels="exact", diagonal=True)
    expected = reference_fisher(model, batch, blocks, labels="exact")
    for block in blocks:
        torch.testing.assert_close(
            found.per_example[block.name], expected.per_example[block.name], rtol=1e-9, atol=1e-14
        )
    for name, diagonal in found.diagonal.items():
        torch.testing.assert_close(diagonal, expected.diagonal[name], rtol=1e-9, atol=1e-14)
    return {note.split(":")[0] for note in found.meta["notes"] if "one example at a time" in note}


@pytest.mark.parametrize(
    "compute",
    [
        lambda s, x: x * s.v,
        lambda s, x: s.v * x + s.u,
        lambda s, x: x * (s.v / s.u.norm()).view(1, -1) - 1 / s.v,
        lambda s, x: x.clone().mul_(s.v).add_(s.u.exp()),
        lambda s, x: x + s.t,
        lambda s, x: x + s.t.unsqueeze(0).expand(len(x), -1, -1),
        lambda s, x: torch.cat([s.t.repeat(len(x), 1, 1), x], 1),
        lambda s, x: torch.cat([s.t.unsqueeze(0).expand(len(x), 5, 6), x], 1),
        lambda s, x: x @ s.m.T @ s.m,
        lambda s, x: functional.linear(x, s.m * s.v, s.u),
        lambda s, x: functional.linear(x, s.m, s.u),
        lambda s, x: functional.linear(input=x, weight=s.m * s.v, bias=s.u),
        lambda s, x: functional.linear(x, bias=s.u, weight=s.m),
        lambda s, x: x + torch.broadcast_to(input=s.t, size=(len(x), 5, 6)),
        lambda s, x: torch.cat([torch.tile(input=s.t, dims=(len(x), 1, 1)), x], 1),
        lambda s, x: functional.conv1d(x.transpose(1, 2), s.k).transpose(1, 2),
        lambda s, x: functional.layer_norm(x, (6,), s.v, s.u),
        lambda s, x: torch.einsum("ntd,de->nte", x, s.m),
        lambda s, x: torch.where(x > 0, x, s.v),
        lambda s, x: x * s.v + (x * s.v).sum(1, keepdim=True) * s.v,
        lambda s, x: x * s.m.norm() + x * s.v,
    ],
)  # fmt: skip
def test_raw_parameters_are_measured_in_one_pass(compute):
    model = Uses(compute).double()
    found = measured(model)
    assert found == set()


@pytest.mark.parametrize(
    "compute",
    [
        lambda s, x: (x.transpose(0, 1) * s.v).transpose(0, 1),  # [T, N, d]
        lambda s, x: x[:, :4].transpose(0, 1).mul(s.v).transpose(0, 1),  # the same with T = N
        lambda s, x: (x.reshape(-1, 6) * s.v).reshape(x.shape),
    ],
)
def test_where_the_batch_is_not_the_first_dimension_the_proof_says_so_and_the_number_is_right(compute):
    assert measured(Uses(compute).double()) == {"v"}


def test_what_is_computed_and_dropped_does_not_count():
    def compute(s, x):
        identity = s.out(
            torch.eye(6, dtype=x.dtype)
        )  # DoRA of peft calls its matrices so, and drops the graph
        return x * s.v * identity.detach().norm()

    assert measured(Uses(compute).double()) == set()


def classifier():
    torch.manual_seed(0)
    return XLMRobertaForSequenceClassification(config(num_labels=3))


PEFT = {
    "DoRA": lambda: peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["query", "dense"], use_dora=True
    ),
    "IA3": lambda: peft.IA3Config(
        task_type="SEQ_CLS", target_modules=["key", "output.dense"], feedforward_modules=["output.dense"]
    ),
    "prompts": lambda: peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2),
    "VeRA": lambda: peft.VeraConfig(task_type="SEQ_CLS", target_modules=["query"], r=2),
}
ADAPTERS = {
    "DoRA": lambda adapters: adapters.LoRAConfig(r=2, use_dora=True),
    "gated LoRA": lambda adapters: adapters.LoRAConfig(r=2, use_gating=True),
    "IA3": lambda adapters: adapters.IA3Config(),
    "gated bottleneck": lambda adapters: adapters.SeqBnConfig(reduction_factor=4, use_gating=True),
    "learned scaling": lambda adapters: adapters.SeqBnConfig(reduction_factor=4, scaling="learned"),
    "UniPELT": lambda adapters: adapters.UniPELTConfig(),
    "prompts": lambda adapters: adapters.PromptTuningConfig(prompt_length=2),
}


def adapted(library, name):
    model = classifier()
    if library == "peft":
        return shaken(peft.get_peft_model(model, PEFT[name]())).eval()
    adapters = adapters_library()
    adapters.init(model)
    model.add_adapter("task", config=ADAPTERS[name](adapters))
    model.train_adapter("task")
    return shaken(model).eval()


@pytest.mark.parametrize(
    ("library", "name"), [("peft", name) for name in PEFT] + [("adapters", name) for name in ADAPTERS]
)
def test_adapters_of_every_kind(library, name):
    model, batch = adapted(library, name), batch_for("classification")
    blocks = find_blocks(model)
    found = estimate_fisher(model, batch, blocks=blocks, labels="exact")
    expected = reference_fisher(model, batch, blocks, labels="exact")
    for block in blocks:
        torch.testing.assert_close(
            found.per_example[block.name], expected.per_example[block.name], rtol=1e-9, atol=1e-14
        )
    assert not [row for row in coverage(model, blocks, batch) if "one example" in row.rule]
