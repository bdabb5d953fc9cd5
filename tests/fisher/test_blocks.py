"""find_blocks: named, disjoint, bottom to top."""

import pytest
import torch
from torch import nn

from fishlens import Block, InputError, find_blocks
from fishlens.fisher.blocks import check_blocks

from .architectures import tiny
from .models import mad_x


@pytest.mark.parametrize("task", ["seq_bn", "double_seq_bn", "par_bn", "lora"])
def test_a_block_holds_every_parameter_of_the_task_adapter_in_its_layer_and_no_other(task):
    model = mad_x(task, layers=3)
    blocks = find_blocks(model)
    assert [block.name for block in blocks] == ["layer.0", "layer.1", "layer.2", "head"]
    for index, block in enumerate(blocks[:-1]):
        of_task = {
            name
            for name, _ in model.named_parameters()
            if f"layer.{index}." in name and (".task." in name or name.endswith(".task"))
        }
        assert set(block.parameters) == of_task
        assert block.layer == index


def test_blocks_of_a_language_adapter_include_its_invertible_layers_at_the_bottom():
    blocks = find_blocks(mad_x(), adapter="en")
    assert [block.name for block in blocks] == ["outside", "layer.0", "layer.1", "head"]
    assert all("invertible_adapters.en" in name for name in blocks[0].parameters)


def test_full_layers_leave_the_adapters_inside_them_out():
    model = mad_x("lora")
    blocks = find_blocks(model, by="layer", embeddings=True)
    assert [block.name for block in blocks] == ["embeddings", "layer.0", "layer.1", "head"]
    names = [name for block in blocks for name in block.parameters]
    assert not [name for name in names if ".task" in name.removesuffix(".weight") and "heads" not in name]
    assert any(name.endswith("query.weight") for name in names)


def test_blocks_by_pattern_and_by_callable():
    model = mad_x()
    by_layer = find_blocks(model, by=r"re:encoder\.(layer\.\d+)\.attention")
    assert [block.name for block in by_layer] == ["layer.0", "layer.1"]
    norms = find_blocks(model, by="*LayerNorm*")
    assert [block.name for block in norms] == ["*LayerNorm*"]
    assert all("LayerNorm" in name for name in norms[0].parameters)
    biases = find_blocks(model, by=lambda name, p: "biases" if p.dim() == 1 else None)
    assert sum(block.size for block in biases) == sum(p.numel() for p in model.parameters() if p.dim() == 1)


def test_an_unknown_adapter_is_an_error_that_lists_what_exists():
    with pytest.raises(InputError, match=r"no adapter 'tusk'; it has 'en', 'task'"):
        find_blocks(mad_x(), adapter="tusk")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: [], "no block"),
        (lambda p: [Block("a", {})], "'a' has no parameters"),
        (lambda p: [Block("a", {"p": p}), Block("b", {"q": p})], "'q' is in block 'b' and in block 'a'"),
        (lambda p: [Block("a", {"p": p}), Block("a", {"q": p})], "two blocks are called 'a'"),
    ],
)
def test_blocks_that_are_no_partition_are_refused_in_one_sentence(make, says):
    with pytest.raises(InputError, match=says):
        check_blocks(make(nn.Parameter(torch.zeros(2))))


def test_a_pattern_that_matches_nothing_says_what_there_is():
    with pytest.raises(InputError, match="matches no parameter"):
        find_blocks(mad_x(), by="*decoder*")
    with pytest.raises(InputError, match="is unknown"):
        find_blocks(mad_x(), by="layers")


@pytest.mark.parametrize("by", ["layer", "module"])
def test_fixed_sinusoids_lie_in_no_block(by):
    """RoFormer's, Marian's and Pegasus' positions are parameters that never train, looked up without gradients."""
    model = tiny("RoFormer", embedding_size=16)
    (name,) = [name for name, p in model.named_parameters() if not p.requires_grad]
    blocks = find_blocks(model, by=by, embeddings=True)
    assert all(name not in block.parameters for block in blocks)
    assert {n for b in blocks for n in b.parameters} == {n for n, _ in model.named_parameters()} - {name}
