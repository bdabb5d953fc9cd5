"""A causal language model as a classifier: a label is as likely as its answer is after the prompt."""

import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import MultipleChoiceModelOutput

from fishlens.errors import InputError


class LabelLikelihood(nn.Module):
    """Of rows `[N, C, T]`, padded on the left, the logits `[N, C]`: Σ log p(token | those before it) over the answer.

    lm: a causal language model of transformers, with or without peft's adapters. Logits of the vocabulary are asked for
    at the answers alone, where the model offers that.
    """

    def __init__(self, lm: Any) -> None:
        super().__init__()
        self.lm = lm
        inner = lm.get_base_model() if hasattr(lm, "get_base_model") else lm
        self._takes = frozenset(inspect.signature(inner.forward).parameters)

    @property
    def config(self) -> Any:
        return self.lm.config

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        answer_mask: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> MultipleChoiceModelOutput:
        """answer_mask `[N, C, K]`: which of the last K tokens of a row belong to its answer. labels `[N]`."""
        count, choices, longest = answer_mask.shape
        ids, mask = input_ids.flatten(0, 1), attention_mask.flatten(0, 1)
        told: dict[str, Any] = {"use_cache": False, "output_hidden_states": output_hidden_states}
        told["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        told["logits_to_keep"] = longest + 1
        result = self.lm(
            input_ids=ids, attention_mask=mask, **{k: v for k, v in told.items() if k in self._takes}
        )
        logits = result.logits[:, -longest - 1 : -1]
        wide = logits if logits.dtype == torch.float64 else logits.float()
        found = wide.log_softmax(-1).gather(-1, ids[:, -longest:].unsqueeze(-1)).squeeze(-1)
        scores = (found * answer_mask.flatten(0, 1)).sum(-1).unflatten(0, (count, choices))
        loss = None if labels is None else nn.functional.cross_entropy(scores, labels)
        return MultipleChoiceModelOutput(
            loss=cast(Any, loss), logits=scores, hidden_states=result.hidden_states
        )


def refuse_unless_causal(lm: Any, name: str) -> None:
    """Raises `InputError` for a model in which a token sees those after it: the sum would not be a likelihood."""
    ids = torch.tensor([[3, 4, 5, 6], [3, 4, 5, 7]]) % lm.config.get_text_config().vocab_size
    training = lm.training
    lm.eval()
    try:
        with torch.no_grad():
            one, other = lm(input_ids=ids.to(lm.device)).logits[:, :3]
    finally:
        lm.train(training)
    if not torch.allclose(one, other, rtol=1e-3, atol=1e-4):
        raise InputError(
            f"model {name!r} is a {lm.config.model_type} in which a token sees those after it; the likelihood of "
            "answers needs a causal language model"
        )
