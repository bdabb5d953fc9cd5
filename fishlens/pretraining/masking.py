"""What masked-language modelling predicts: which tokens are hidden, and the loss of predicting them."""

from typing import Any

import numpy as np
import torch

from fishlens.errors import InputError
from fishlens.pretraining.raw_text import Rows, pad
from fishlens.pretraining.settings import MaskedLMSettings
from fishlens.training.evaluation import evaluation_mode


def mask_tokens(
    ids: np.ndarray,
    special: np.ndarray,
    mask_id: int,
    vocabulary: int,
    share: float,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """BERT's masking: a `share` of the ordinary tokens is to be predicted; 80 % of them become the mask, 10 % another
    token, 10 % stay. Every row that has an ordinary token has at least one to predict.

    Args:
        ids: [rows, T]. special: bool [rows, T], tokens that are never predicted (padding included).

    Returns:
        (input ids, chosen: bool [rows, T]); what to predict is `ids[chosen]`.
    """
    draws = np.where(special, 2.0, random.random(ids.shape))
    chosen = draws < share
    first = draws.argmin(1)
    lucky = draws.min(1) < 1
    chosen[np.arange(len(ids))[lucky], first[lucky]] = True
    fate = random.random(ids.shape)
    inputs = np.where(chosen & (fate < 0.8), mask_id, ids)
    replaced = chosen & (fate >= 0.9)
    return np.where(replaced, random.integers(0, vocabulary, ids.shape), inputs), chosen


class MaskedLMLoss:
    """The loss of a Hugging Face masked-LM model, with logits made for the chosen positions only.

    The model's head (whatever takes the encoder's output) is given those positions alone, which saves most of the
    work of a large vocabulary.
    """

    def __init__(self, model: Any, tokenizer: Any, settings: MaskedLMSettings):
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        heads = [getattr(model, name) for name in ("lm_head", "cls", "predictions") if hasattr(model, name)]
        if not heads:
            raise InputError(
                f"{type(model).__name__} has no masked-LM head that fishlens knows (lm_head, cls)"
            )
        self._head = heads[0]
        self._special = np.zeros(len(tokenizer), dtype=bool)
        self._special[tokenizer.all_special_ids] = True

    def __call__(self, rows: Rows, random: np.random.Generator) -> tuple[torch.Tensor, int]:
        """(mean loss over the masked tokens, their number)."""
        ids, attention = pad(rows, self.tokenizer.pad_token_id)
        inputs, chosen = mask_tokens(
            ids,
            self._special[ids],
            self.tokenizer.mask_token_id,
            len(self.tokenizer),
            self.settings.mask_share,
            random,
        )
        device = next(self.model.parameters()).device
        where = torch.from_numpy(chosen).to(device)
        gather = self._head.register_forward_pre_hook(lambda _, given: (given[0][where], *given[1:]))
        try:
            with torch.autocast(device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
                logits = self.model(
                    input_ids=torch.from_numpy(inputs).to(device),
                    attention_mask=torch.from_numpy(attention).to(device),
                ).logits
        finally:
            gather.remove()
        labels = torch.from_numpy(ids[chosen]).to(device)
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return torch.nn.functional.cross_entropy(wide, labels), len(labels)


@torch.no_grad()
def heldout_loss(loss: MaskedLMLoss, rows: Rows) -> float:
    """Mean loss over the masked tokens of held-out rows, always the same ones; its exponential is the perplexity."""
    settings, total, count = loss.settings, 0.0, 0
    with evaluation_mode(loss.model):
        for number, start in enumerate(range(0, len(rows), settings.batch)):
            random = np.random.default_rng([settings.seed, 3, number])
            value, tokens = loss(rows[start : start + settings.batch], random)
            total, count = total + value.item() * tokens, count + tokens
    return total / count
