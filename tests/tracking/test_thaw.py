"""Thawing does what it says: the named blocks train, the others cannot, and a block that does not move is noticed."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from fishlens.tracking.thaw import BlockDidNotMove, Movement, check_trainable, set_trainable


@dataclass
class Group:
    """What is needed of a block: its name and parameters."""

    name: str
    parameters: dict


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))


@pytest.fixture
def blocks(net):
    return [Group(n, {f"{n}.{key}": p for key, p in net[int(n)].named_parameters()}) for n in ("0", "2")]


def update(net, optimizer):
    net(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def test_a_frozen_block_loses_its_gradient_and_is_not_touched_even_by_weight_decay_and_momentum(net, blocks):
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.5)
    update(net, optimizer)  # both blocks have momentum now
    net(torch.ones(2, 3)).sum().backward()
    set_trainable(blocks, {"2"})
    assert all(p.grad is None for p in blocks[0].parameters.values())
    before = [p.detach().clone() for p in net.parameters()]
    optimizer.zero_grad(set_to_none=True)
    update(net, optimizer)
    moved = [not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)]
    assert moved == [False, False, True, True]


def test_a_block_that_moves_is_watched_only_once(net, blocks):
    movement = Movement()
    movement.expect(blocks[:1])
    update(net, torch.optim.AdamW(net.parameters(), lr=0.1))
    movement.verify({b.name: b for b in blocks}, 1)
    assert not movement
    movement.verify({b.name: b for b in blocks}, 2)


def test_a_thawed_block_that_the_optimizer_never_got_is_noticed(net, blocks):
    set_trainable(blocks, {"0"})
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.1)  # the usual bug
    set_trainable(blocks, {"0", "2"})
    movement = Movement()
    movement.expect(blocks[1:])
    update(net, optimizer)
    with pytest.raises(BlockDidNotMove, match="block '2' was thawed but update 1 left all its 2 parameters"):
        movement.verify({b.name: b for b in blocks}, 1)


def test_a_block_moved_if_any_of_its_weights_did(net, blocks):
    movement = Movement()
    movement.expect(blocks)
    with torch.no_grad():
        net[0].bias[1] += 1e-6
        net[2].weight[0, 0] += 1e-6
    movement.verify({b.name: b for b in blocks}, 1)


def test_the_trainable_set_is_checked_both_ways(net, blocks):
    set_trainable(blocks, {"0"})
    check_trainable(net.named_parameters(), {"0.weight", "0.bias"})
    with pytest.raises(RuntimeError, match=r"1 too many \['0.bias'\]"):
        check_trainable(net.named_parameters(), {"0.weight"})
    with pytest.raises(RuntimeError, match=r"1 missing \['2.bias'\]"):
        check_trainable(net.named_parameters(), {"0.weight", "0.bias", "2.bias"})
