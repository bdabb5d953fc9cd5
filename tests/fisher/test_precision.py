"""Half precision, wrappers, what has no data of its own, and weights that change unseen."""

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from fishlens import InputError, Tracker, estimate_fisher, find_blocks
from fishlens.fisher.fingerprint import weights_of
from fishlens.fisher.passes import HALF_PEAK, enlarged

from .models import shaken


def certain():
    """A classifier that is certain: p of the first class is 1 − 2e-6."""
    torch.manual_seed(0)
    small = BertConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        num_labels=3,
    )
    model = BertForSequenceClassification(small).eval()
    model.classifier.bias.data = torch.tensor([14.0, 0.0, 0.0])
    ids = torch.randint(4, 60, (6, 6), generator=torch.Generator().manual_seed(1))
    return model, {"input_ids": ids, "labels": torch.zeros(6, dtype=torch.long)}


@pytest.mark.parametrize("granularity", ["example", "batch"])
def test_gradients_of_a_certain_model_do_not_vanish_in_float16(granularity):
    model, batch = certain()
    options = {"labels": "empirical", "granularity": granularity}
    full = estimate_fisher(model, batch, **options).trace
    half = estimate_fisher(model, batch, autocast=torch.float16, **options).trace
    for block, trace in full.items():
        assert half[block] == pytest.approx(trace, rel=0.05), block


def test_what_enlarges_a_cotangent_is_a_power_of_two_of_each_example():
    cotangent = torch.tensor([[[3e-7, -1e-9]], [[0.0, 0.0]], [[0.7, 0.1]]])
    larger, unscale = enlarged(cotangent, True)
    assert torch.equal(larger * unscale.view(-1, 1, 1), cotangent)
    peaks = larger.abs().amax((1, 2))
    assert (
        2 ** (HALF_PEAK - 1) <= peaks[0] <= 2**HALF_PEAK and 2 ** (HALF_PEAK - 1) <= peaks[2] <= 2**HALF_PEAK
    )
    assert enlarged(cotangent, False) == (cotangent, None)


def test_the_callers_own_autocast_is_recorded():
    model, batch = certain()
    with torch.autocast("cpu", torch.bfloat16):
        outside = estimate_fisher(model, batch, labels="exact")
    forward = model.forward
    model.forward = torch.autocast("cpu", torch.bfloat16)(forward)  # as accelerate prepares a model
    inside = estimate_fisher(model, batch, labels="exact")
    assert outside.meta["dtype"] == inside.meta["dtype"] == "float32 autocast bfloat16"
    assert outside.trace == inside.trace


class DeepSpeedEngine(nn.Module):
    """Like the real one: it holds the model as `module`."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *_, **__):
        raise AssertionError("the engine itself was called")


def test_engines_are_unwrapped():
    model, batch = certain()
    plain = estimate_fisher(model, batch, labels="exact").trace
    assert estimate_fisher(nn.DataParallel(DeepSpeedEngine(model)), batch, labels="exact").trace == plain


def test_lazy_modules_and_flat_parameters_are_refused_by_name():
    lazy = nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(3))
    with pytest.raises(InputError, match=r"'1\.weight' has no shape yet"):
        estimate_fisher(lazy, torch.randn(2, 4), blocks=find_blocks(lazy[0], by="module"))
    flat = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    flat[1].weight._is_flat_param = True
    with pytest.raises(InputError, match=r"'1\.weight' is a flat parameter"):
        estimate_fisher(flat, torch.randn(2, 4), blocks=find_blocks(flat, by="re:^0"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_fingerprint_sees_a_write_that_torch_does_not_count(dtype):
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)).to(dtype)
    seen = [weights_of(model, 0)]
    assert weights_of(model, 0).same_as(seen[0]) and not weights_of(model, 1).same_as(seen[0])
    for tensor in [*model.parameters(), model[1].running_mean]:
        tensor.data.view(-1)[-1] += 1
        assert not any(weights_of(model, 0).same_as(other) for other in seen)
        seen.append(weights_of(model, 0))


def test_averaged_weights_that_are_swapped_in_are_measured_themselves():
    """As torch_ema does it: `p.data.copy_()`."""
    torch.manual_seed(0)
    model = shaken(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)))
    blocks, x = find_blocks(model, by="module"), torch.randn(5, 4).double()
    tracker = Tracker(model, x, blocks=blocks, every=1)
    tracker.step(0)
    for parameter in model.parameters():
        parameter.data.copy_(0.5 * parameter.data)
    expected = estimate_fisher(model, x, blocks=blocks, diagonal=True).trace
    assert tracker.measure(0).trace == pytest.approx(expected, rel=1e-9)


def eight_bits():
    model = nn.Sequential(nn.Linear(4, 3))
    model[0].weight = nn.Parameter(model[0].weight.detach().to(torch.float8_e4m3fn))
    return model


def made_in_inference_mode():
    with torch.inference_mode():
        return nn.Sequential(nn.Linear(4, 3))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (eight_bits, "'0.weight' of block '0' is of type torch.float8_e4m3fn"),
        (made_in_inference_mode, r"'0.weight' of block '0' was made in torch.inference_mode\(\)"),
        (lambda: torch.jit.script(nn.Sequential(nn.Linear(4, 3))), "module '' is compiled by torch.jit"),
        (lambda: nn.Sequential(torch.jit.script(nn.Linear(4, 3))), "module '0' is compiled by torch.jit"),
    ],
)
def test_what_has_no_gradient_of_its_own_is_refused_by_name(make, says):
    with pytest.raises(InputError, match=says):
        model = make()
        estimate_fisher(model, torch.randn(2, 4), blocks=find_blocks(model, by="module"))


def test_inputs_that_were_made_in_inference_mode_are_measured():
    model = nn.Sequential(nn.Linear(4, 3))
    blocks = find_blocks(model, by="module")
    with torch.inference_mode():
        x = torch.randn(2, 4)
    assert (
        estimate_fisher(model, x, blocks=blocks).trace
        == estimate_fisher(model, x.clone(), blocks=blocks).trace
    )
