r"""Critical sharpness (Kalra et al. 2026, arXiv:2601.16979): curvature along an update, from losses alone.

    $\lambda_c = 2 / \eta_c$, where $\eta_c$ is the smallest step with $L(\theta - \eta_c u) > L(\theta)$

for the direction $u$ of an update per unit of learning rate. On a parabola along its gradient it is the curvature. With
the loss of another language it is the *relative* critical sharpness $\lambda_c^{1 \to 2}$.
"""

import math
from collections.abc import Callable

DOUBLINGS = 30  # a step outside of start / 2^30 … start * 2^30 is not looked for
HALVINGS = 6  # of the bracket: the step is known to 1.1 %


def critical_sharpness(loss: Callable[[float], float], start: float) -> float:
    """$2 / \\eta_c$, from the loss as a function of the step; `start`: where to begin, such as the learning rate.

    The steps tried are `start` times powers of two until the loss rises (or until it no longer does), and then six
    halvings in between. 0 if no step raises the loss, infinity if every one does.
    """
    here = loss(0.0)

    def rises(step: float) -> bool:
        return not loss(step) <= here  # a loss that is not a number has risen

    step = start
    if rises(step):
        for _ in range(DOUBLINGS):
            step /= 2
            if not rises(step):
                low, high = step, 2 * step
                break
        else:
            return math.inf
    else:
        for _ in range(DOUBLINGS):
            step *= 2
            if rises(step):
                low, high = step / 2, step
                break
        else:
            return 0.0
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if rises(middle) else (middle, high)
    return 2 / math.sqrt(low * high)
