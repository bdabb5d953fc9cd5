"""Entropy and confidence of predictions, by a probe's own forward pass."""

import math

import pytest
import torch

from fishlens.fisher import estimate_fisher, find_blocks, merge
from fishlens.fisher.certainty import certainty
from fishlens.fisher.distributions import Categorical, Gaussian
from fishlens.fisher.outputs import BatchLogits


def test_of_known_probabilities():
    p = torch.tensor([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]], dtype=torch.float64).unsqueeze(1)
    entropy, confidence = certainty(BatchLogits(p.log(), torch.ones(2, 1, dtype=torch.bool), Categorical()))
    assert entropy.tolist() == pytest.approx([-sum(x * math.log(x) for x in (0.7, 0.2, 0.1)), 0.0])
    assert confidence.tolist() == pytest.approx([0.7, 1.0])


def test_an_example_of_several_variables_has_their_mean_and_unscored_ones_do_not_count():
    even, sure = [0.0, 0.0], [0.0, -math.inf]
    logits = torch.tensor([[even, sure, even], [sure, sure, even]])
    scored = torch.tensor([[True, True, False], [True, True, True]])
    entropy, confidence = certainty(BatchLogits(logits, scored, Categorical()))
    assert entropy.tolist() == pytest.approx([math.log(2) / 2, math.log(2) / 3])
    assert confidence.tolist() == pytest.approx([0.75, 2.5 / 3])


def test_an_example_of_one_variable_that_is_not_scored_has_none():
    found = certainty(BatchLogits(torch.zeros(2, 1, 2), torch.tensor([[True], [False]]), Categorical()))
    assert found.isnan().tolist() == [[False, True]] * 2


def test_what_is_no_softmax_has_none():
    assert certainty(BatchLogits(torch.ones(2, 1, 1), torch.ones(2, 1, dtype=torch.bool), Gaussian())) is None


def test_an_estimate_has_those_of_its_examples_in_order():
    torch.manual_seed(0)
    model, inputs = torch.nn.Sequential(torch.nn.Linear(4, 3)), torch.randn(5, 4)
    blocks = find_blocks(model, by="module")
    p = model(inputs).softmax(-1).double()
    parts = [estimate_fisher(model, batch, blocks=blocks) for batch in (inputs[:2], inputs[2:])]
    found = merge(parts)
    torch.testing.assert_close(found.confidence, p.amax(-1).detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.entropy, -(p * p.log()).sum(-1).detach(), rtol=1e-5, atol=0)
