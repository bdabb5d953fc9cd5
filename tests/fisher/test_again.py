"""What neither a rule nor a single operation measures: a module around it runs again for each example."""

import logging

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional

from fishlens import InputError, estimate_fisher, find_blocks
from fishlens.fisher import Plan, again, coverage, reference_fisher
from fishlens.fisher.coverage import AGAIN

X = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
SQUARE = X[:4]


class Experts(nn.Module):
    """Three fused experts, as transformers 5 keeps them: one parameter for all, used in one of two ways."""

    def __init__(self, way):
        super().__init__()
        self.way, self.num_experts = way, 3
        self.up, self.down = nn.Parameter(torch.randn(3, 7, 6)), nn.Parameter(torch.randn(3, 6, 7))
        self.bias = nn.Parameter(torch.randn(3, 7))

    def forward(self, rows, chosen, weights):
        if self.way == "batched":
            h = torch.bmm(self.up[chosen], rows.unsqueeze(-1)).squeeze(-1) + self.bias[chosen]
            return torch.bmm(self.down[chosen], h.tanh().unsqueeze(-1)).squeeze(-1) * weights
        out = torch.zeros_like(rows)
        for number in range(self.num_experts):
            (mine,) = torch.where(chosen == number)
            h = functional.linear(rows[mine], self.up[number], self.bias[number]).tanh()
            out = out.index_add(0, mine, functional.linear(h, self.down[number]) * weights[mine])
        return out


class Mixture(nn.Module):
    """A layer with experts; `calls` of them, and what `around` makes of their output."""

    def __init__(self, way="loop", calls=1, around=lambda y: y):
        super().__init__()
        torch.manual_seed(0)
        self.experts, self.route = Experts(way), nn.Linear(6, 3)
        self.calls, self.around = calls, around

    def forward(self, x):
        rows = x.flatten(0, 1)
        weights, chosen = self.route(rows).softmax(-1).max(-1)
        for _ in range(self.calls):
            rows = rows + self.experts(rows, chosen, weights.unsqueeze(-1))
        return self.around(rows.view(x.shape))


class Model(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.out = layer.double(), nn.Linear(6, 3).double()

    def forward(self, x):
        return self.out(self.layer(x).mean(1))


def measured(model, batch, plan=None):
    """(the rule of every parameter, parameters measured one example at a time), after a comparison with autograd."""
    blocks = find_blocks(model, by=lambda name, _: name)
    plan = plan or Plan()
    for labels in ("exact", "mc"):
        found = estimate_fisher(model, batch, blocks=blocks, labels=labels, diagonal=True, plan=plan)
        expected = reference_fisher(model, batch, blocks, labels=labels)
        for block in blocks:
            torch.testing.assert_close(
                found.per_example[block.name], expected.per_example[block.name], rtol=1e-9, atol=1e-14
            )
        for name, diagonal in found.diagonal.items():
            torch.testing.assert_close(diagonal, expected.diagonal[name], rtol=1e-9, atol=1e-14)
    slow = {note.split(":")[0] for note in found.meta["notes"] if "one example at a time" in note}
    return {row.parameter: row.rule for row in coverage(model, blocks, batch)}, slow


@pytest.mark.parametrize("batch", [X, SQUARE], ids=["N != T", "N = T"])
@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("way", ["loop", "batched"])
def test_fused_experts_are_measured_whatever_the_way_they_are_computed(way, calls, batch):
    rules, slow = measured(Model(Mixture(way, calls)), batch)
    assert slow == set()
    assert {rules[f"layer.experts.{name}"] for name in ("up", "down", "bias")} == {AGAIN}


@pytest.mark.parametrize("memory", [0, 2 * 8 * 4 * (3 * 7 * 6)])
def test_with_little_memory_fewer_examples_have_experts_of_their_own_at_a_time(monkeypatch, memory):
    monkeypatch.setattr(again, "MEMORY", memory)
    assert measured(Model(Mixture()), X)[1] == set()


def test_the_experts_of_all_examples_run_once(monkeypatch, caplog):
    model, plan = Model(Mixture()), Plan()
    measured(model, X, plan)
    forward = Experts.forward

    def counted(self, *args):  # a list would be put back after the probe
        logging.getLogger().warning("%d experts", self.num_experts)
        return forward(self, *args)

    monkeypatch.setattr(Experts, "forward", counted)
    estimate_fisher(model, X, blocks=find_blocks(model, by="module"), labels="mc", plan=plan)
    assert caplog.messages == ["3 experts", "15 experts"]
    assert model.layer.experts.num_experts == 3


class Half(nn.Module):
    """Half of its parameter's effect leaves beside its output, through an attribute."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 6))

    def forward(self, x):
        self.beside = torch.einsum("ntd,de->tne", x, self.w)
        return torch.einsum("ntd,de->tne", x, self.w).transpose(0, 1)


class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = Half()

    def forward(self, x):
        return self.part(x) + self.part.beside.transpose(0, 1)


def test_where_a_module_is_not_all_of_it_the_one_around_it_runs_again():
    plan = Plan()
    assert measured(Model(nn.Sequential(Around())), X, plan)[1] == set()
    assert plan.again == {"layer.0.part.w": 1}


class Norm(nn.Module):
    """Takes the mean over the batch: no example has a gradient of its own."""

    def __init__(self):
        super().__init__()
        self.v = nn.Parameter(torch.randn(6))

    def forward(self, x):
        return torch.cumsum((x - x.mean(0)) * self.v.sort().values, 0)


def test_examples_that_depend_on_one_another_are_still_refused():
    model = Model(nn.Sequential(Norm()))
    with pytest.raises(InputError, match="depend on one another"):
        estimate_fisher(model, X, blocks=find_blocks(model, by=lambda name, _: name), labels="exact")


class Counting(Experts):
    """Keeps count of its calls, in an attribute and in a buffer."""

    def __init__(self):
        super().__init__("loop")
        self.calls = 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, *args):
        self.calls += 1
        self.seen += 1
        return super().forward(*args)


def test_what_a_module_changes_when_it_runs_again_is_put_back():
    layer = Mixture()
    layer.experts = Counting()
    model = Model(layer)
    measured(model, X)
    assert (layer.experts.calls, int(layer.experts.seen), layer.experts.num_experts) == (0, 0, 3)


class TorchsOwn(nn.Module):
    def __init__(self, inner, use):
        super().__init__()
        self.inner, self.use = inner, use

    def forward(self, x):
        return self.use(self.inner, x)


@pytest.mark.parametrize(
    ("module", "use"),
    [
        (nn.MultiheadAttention(6, 2, batch_first=True), lambda m, x: m(x, x, x)[0]),
        (nn.LSTM(6, 6, batch_first=True), lambda m, x: m(x)[0]),
        (nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, dropout=0.0), lambda m, x: m(x)),
    ],
    ids=["attention", "LSTM", "layer"],
)
def test_torchs_own_modules_with_raw_parameters_are_measured_without_the_network(module, use):
    assert measured(Model(TorchsOwn(module, use)), SQUARE)[1] == set()


NEWEST = pytest.mark.skipif(int(transformers.__version__.split(".")[0]) < 5, reason="fused experts")
SHAPE = {
    "vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "moe_intermediate_size": 12, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4, "num_experts": 4,
    "num_experts_per_tok": 2, "pad_token_id": 0, "num_labels": 3, "max_position_embeddings": 32, "sliding_window": 8,
}  # fmt: skip


@NEWEST
@pytest.mark.parametrize("way", ["eager", "batched_mm", "grouped_mm"])
@pytest.mark.parametrize("family", ["Mixtral", "Qwen3Moe", "GptOss"])
def test_the_mixtures_of_transformers_5(family, way):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SHAPE)
    config._experts_implementation = way
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    batch = {"input_ids": torch.randint(1, 60, (5, 5))}
    blocks = find_blocks(model, by="layer")
    found = estimate_fisher(model, batch, blocks=blocks, labels="mc", diagonal=True)
    expected = reference_fisher(model, batch, blocks, labels="mc")
    for block in blocks:
        torch.testing.assert_close(
            found.per_example[block.name], expected.per_example[block.name], rtol=1e-5, atol=1e-12
        )
    assert not any("one example at a time" in note for note in found.meta["notes"])


@NEWEST
def test_lora_on_fused_experts():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = transformers.MixtralForSequenceClassification(transformers.MixtralConfig(**SHAPE))
    names = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    settings = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["q_proj"], target_parameters=names, init_lora_weights=False
    )
    model = peft.get_peft_model(base, settings).eval()
    batch, blocks = {"input_ids": torch.randint(1, 60, (4, 6))}, find_blocks(model)
    found = estimate_fisher(model, batch, blocks=blocks, labels="exact")
    expected = reference_fisher(model, batch, blocks, labels="exact")
    for block in blocks:
        torch.testing.assert_close(
            found.per_example[block.name], expected.per_example[block.name], rtol=1e-4, atol=1e-12
        )
    assert not any("one example at a time" in note for note in found.meta["notes"])
