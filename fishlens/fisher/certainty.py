"""How certain a model is of what it predicts: what a probe sees of the predictions without any gradient."""

import torch
from torch import Tensor

from fishlens.fisher.distributions import Categorical, widened
from fishlens.fisher.outputs import BatchLogits

MOST_CLASSES = 4096  # more are a vocabulary, whose probabilities would take as much memory as all the rest


def certainty(prediction: BatchLogits) -> Tensor | None:
    """`[2, N]`: of every example the entropy of p(y | x) in nats, and the largest probability.

    Both are means over the example's scored variables (start and end, words), so that long sentences compare with short
    ones; nan for an example that has none. None for outputs that are not a softmax, or one over a vocabulary.
    """
    if not isinstance(prediction.distribution, Categorical) or prediction.logits.shape[-1] > MOST_CLASSES:
        return None
    p = torch.softmax(widened(prediction.logits), dim=-1)
    each = torch.stack([torch.special.entr(p).sum(-1), p.amax(-1)])
    scored = prediction.scored
    if scored.shape[1] == 1:
        return torch.where(scored, each, torch.nan).squeeze(-1)
    return torch.where(scored, each, 0.0).sum(-1) / scored.sum(-1)
