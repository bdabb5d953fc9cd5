"""Critical sharpness where it is known, and how many losses it looks at."""

import math

import pytest

from fishlens.fisher.sharpness import critical_sharpness


@pytest.mark.parametrize("curvature", [1e-3, 1.0, 250.0])
@pytest.mark.parametrize("start", [1e-4, 1e-2, 3.0])
def test_on_a_parabola_along_its_gradient_it_is_the_curvature(curvature, start):
    x, losses = 1.7, []

    def loss(step):
        losses.append(step)
        return 0.5 * curvature * (x - step * curvature * x) ** 2  # the update of gradient descent

    assert critical_sharpness(loss, start) == pytest.approx(curvature, rel=0.012)
    assert len(losses) <= 1 + 31 + 6


def test_a_loss_that_always_rises_or_never_does():
    assert critical_sharpness(lambda step: step, 0.1) == math.inf
    assert critical_sharpness(lambda step: -step, 0.1) == 0.0


def test_a_loss_that_is_no_number_has_risen():
    assert critical_sharpness(lambda step: -step if step < 0.5 else math.nan, 0.1) == pytest.approx(
        4, rel=0.012
    )
