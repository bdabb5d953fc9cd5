"""An output shape is what the model's own loss means: log p against the loss that the head itself computes."""

import pytest
import torch

from fishlens import InputError
from fishlens.fisher.batches import as_batch
from fishlens.fisher.forward import predict
from fishlens.fisher.outputs import OUTPUTS
from fishlens.fisher.which_output import find_output

from .models import batch_for, head, mad_x


@pytest.mark.parametrize("kind", [kind for kind in OUTPUTS if kind != "seq2seq_lm"])
def test_log_p_is_the_loss_of_the_head(kind):
    model = mad_x("seq_bn", None if kind == "classification" else head(kind))
    batch = batch_for(kind)
    output = find_output(model)
    assert output.name == kind
    prediction = predict(model, output, as_batch(batch))
    targets, scored = output.observed(as_batch(batch).labels, prediction)
    log_p = prediction.distribution.log_probability(prediction.logits, targets, scored).sum()
    given = {k: v.clone() for k, v in batch.items()}  # the QA head clamps its labels in place
    loss = model(**given).loss
    if kind == "question_answering":  # the mean over starts plus the mean over ends, halved
        each = [
            prediction.distribution.log_probability(
                prediction.logits[:, m : m + 1], targets[:, m : m + 1], on
            ).sum()
            / on.sum()
            for m, on in enumerate(scored.split(1, dim=1))
        ]
        expected = -sum(each) / 2
    elif kind == "regression":  # the squared error, without its half
        expected = -2 * log_p / len(targets)
    else:
        terms = scored.sum() * (prediction.logits.shape[2] if kind == "multilabel" else 1)
        expected = -log_p / terms
    # (the multi-label head computes its loss in float32)
    torch.testing.assert_close(expected, loss.to(expected), rtol=1e-6, atol=0)


def test_a_model_of_which_nothing_is_known_needs_a_name():
    from transformers import XLMRobertaModel

    from .models import config

    with pytest.raises(InputError, match="cannot tell what XLMRobertaModel predicts; give output="):
        find_output(XLMRobertaModel(config()))
