"""What a model's output means is decided once, by a stated rule, or asked."""

import math

import pytest
import torch
from torch import nn
from transformers import BertForSequenceClassification

from fishlens import InputError, Tracker, estimate_fisher, find_blocks, load_runs
from fishlens.fisher import self_check
from fishlens.fisher.batches import as_batch
from fishlens.fisher.forward import predict
from fishlens.fisher.which_output import find_output

from .architectures import tiny
from .models import sentences


def plain(outputs: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, outputs)).double()


def measured(model, batch, **options):
    return estimate_fisher(model, batch, blocks=find_blocks(model, by="module"), **options)


def test_float_labels_mean_the_same_before_and_after_transformers_has_written_its_config():
    model = tiny("Bert").double()
    batch = sentences() | {"labels": torch.tensor([[0.0, 1.0, 1.0]] * 5, dtype=torch.float64)}
    before = estimate_fisher(model, batch)
    assert model(**batch).loss is not None and model.config.problem_type == "multi_label_classification"
    after = estimate_fisher(model, batch)
    assert before.trace == after.trace
    assert (before.meta["output"], after.meta["output"]) == ("multilabel", "multilabel")
    assert before.meta["output_from"] == "labels that are floats, as transformers' loss has it"
    assert after.meta["output_from"] == "config.problem_type"


def test_a_tracker_keeps_what_it_decided_and_says_so(tmp_path):
    model, batch = tiny("Bert"), sentences()
    with Tracker(model, batch, every=1, run=tmp_path / "run") as tracker:
        first = tracker.step(0)
        model.config.problem_type = "multi_label_classification"
        assert tracker.step(1).trace == first.trace
    assert tracker.identity["output"] == "classification"
    assert tracker.identity["output_from"] == "labels that are whole numbers"


def test_a_change_of_identity_under_way_loses_the_probe_by_name(capsys):
    model = tiny("Bert")
    with Tracker(model, sentences(), every=1) as tracker:
        assert tracker.step(0) is not None
        model.double()
        assert tracker.step(1) is None
    assert "has changed under way: dtype from 'float32' to 'float64'" in capsys.readouterr().err


def test_real_labels_of_the_outputs_shape_are_a_regression():
    model, x = plain(), torch.randn(6, 8, dtype=torch.float64)
    y = torch.randn(6, 4, dtype=torch.float64)
    found = measured(model, (x, y))
    assert found.meta["output"] == "regression"
    assert found.trace == measured(model, (x, y), output="regression").trace


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (torch.ones(6, 4), "could be yes or no for every output, shares that sum to one, or targets"),
        (torch.ones(6, 4, dtype=torch.long), "could be yes or no for every output"),
        (torch.linspace(0, 1, 6), "out of the range of 4 classes, which are whole numbers"),
        (torch.ones(6, 3), r"cannot tell what labels of shape \[6, 3\] for outputs of shape \[6, 4\] mean"),
    ],
)
def test_labels_that_could_mean_several_things_are_asked_for(labels, says):
    with pytest.raises(InputError, match=says):
        measured(plain(), (torch.randn(6, 8, dtype=torch.float64), labels))


def test_a_label_for_every_output_is_expected():
    batch = (torch.randn(6, 8, dtype=torch.float64), torch.randn(6))
    with pytest.raises(InputError, match=r"labels of shape \[6\] for outputs of shape \[6, 4\]"):
        measured(plain(), batch, labels="empirical", output="regression")


def test_one_output_without_labels_may_be_a_reward_and_is_asked_for():
    model, batch = tiny("Bert", num_labels=1), sentences()
    del batch["labels"]
    with pytest.raises(InputError, match="a regression, a yes or no, or a reward"):
        estimate_fisher(model, batch)
    assert estimate_fisher(model, batch, output="regression").meta["output_from"] == "told"


def test_a_subclass_predicts_what_its_parent_does():
    class Mine(BertForSequenceClassification):
        pass

    assert find_output(Mine(tiny("Bert").config)).name == "classification"


def test_padding_is_neither_predicted_nor_predicted_from_on_either_side():
    model = tiny("GPT2", "LMHeadModel", vocab_size=12).double()
    ids = torch.randint(4, 12, (1, 5), generator=torch.Generator().manual_seed(1))
    nothing = torch.zeros(1, 3, dtype=torch.long)
    mask = torch.cat([nothing, torch.ones_like(ids)], 1)
    left = {
        "input_ids": torch.cat([nothing, ids], 1),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
    }
    alone = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    options = {"labels": "exact", "max_passes": 10**6}
    expected, found = estimate_fisher(model, alone, **options), estimate_fisher(model, left, **options)
    for block, trace in expected.trace.items():
        assert math.isclose(found.trace[block], trace, rel_tol=1e-9)


@pytest.mark.parametrize("family", ["T5", "Bart"])
def test_an_encoder_decoder_reads_its_labels_shifted_as_in_its_own_loss(family):
    model = tiny(family, "ForConditionalGeneration").double()
    batch = sentences(3)
    batch["labels"] = batch["input_ids"].flip(1).masked_fill(batch["attention_mask"] == 0, -100)
    output = find_output(model)
    prediction = predict(model, output, as_batch(batch))
    targets, scored = output.observed(as_batch(batch).labels, prediction)
    log_p = prediction.distribution.log_probability(prediction.logits, targets, scored).sum()
    torch.testing.assert_close(-log_p / scored.sum(), model(**batch).loss)
    assert estimate_fisher(model, batch, labels="mc").meta["output"] == "seq2seq_lm"
    del batch["labels"]
    with pytest.raises(InputError, match="needs 'labels' or 'decoder_input_ids'"):
        estimate_fisher(model, batch)


def test_where_nothing_is_scored_it_is_said_and_not_tracked():
    model, ids = tiny("GPT2", "LMHeadModel"), torch.randint(0, 60, (4, 8))
    batch = {"input_ids": ids, "labels": torch.full_like(ids, -100)}
    assert any("nothing is scored" in note for note in estimate_fisher(model, batch).meta["notes"])
    with pytest.raises(InputError, match="nothing is scored in any example: every label is −100"):
        Tracker(model, batch)
    batch["labels"][2, 3] = 5  # one token in the third example is enough
    assert sum(Tracker(model, batch, every=1).step(0).trace.values()) > 0


def test_a_model_that_predicts_one_position_predicts_no_next_token():
    class LastOnly(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(20, 4), nn.Linear(4, 20)

        def forward(self, ids):
            return self.out(self.embed(ids)[:, [-1]]), None

    with pytest.raises(InputError, match="logits for one position only"):
        measured(LastOnly(), torch.randint(0, 20, (3, 5)), output="causal_lm")


def test_what_a_model_says_of_a_batch_is_passed_on_in_one_sentence():
    model = tiny("GPT2", pad_token_id=None)
    with pytest.raises(
        InputError, match="GPT2ForSequenceClassification does not take this batch: ValueError: Cannot"
    ):
        estimate_fisher(model, sentences())


class TimeFirstTagger(nn.Module):
    """`[T, N]` in, `[T, N, C]` out: with one label a token no shape tells which is which."""

    def __init__(self):
        super().__init__()
        self.embed, self.rnn, self.out = nn.Embedding(30, 8), nn.LSTM(8, 12), nn.Linear(12, 4)

    def forward(self, ids):
        return self.out(self.rnn(self.embed(ids))[0])


def test_the_self_check_finds_a_tagger_that_puts_time_first():
    torch.manual_seed(0)
    model = TimeFirstTagger().double()
    batch = (torch.randint(0, 30, (5, 9)), torch.randint(0, 4, (5, 9)))
    blocks = find_blocks(model, by="module")
    for block in blocks:
        try:
            check = self_check(model, batch, blocks=blocks, block=block.name, output="tagging", labels="mc")
        except InputError as error:  # seen by the probe itself, where the block's leaves show it
            assert "the rows of the batch depend on one another" in str(error)
        else:
            assert not check.passed and check.error > 0.01


class Several(nn.Module):
    """Returns what `how` makes of its hidden state and its output."""

    def __init__(self, how):
        super().__init__()
        self.hidden, self.out, self.how = nn.Linear(8, 6), nn.Linear(6, 3), how

    def forward(self, x):
        hidden = torch.tanh(self.hidden(x))
        return self.how(hidden, self.out(hidden))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (lambda h, z: (h, z), r"several tensors that could be its logits, of shapes \[5, 6\], \[5, 3\]"),
        (lambda h, z: (z, h[:, :4], h), "several tensors that could be its logits"),
        (lambda h, z: z.softmax(-1), "lie between 0 and 1 and sum to one"),
    ],
)
def test_what_may_not_be_the_logits_is_asked_for(how, says):
    model, x = Several(how).double(), torch.randn(5, 8, dtype=torch.float64)
    with pytest.raises(InputError, match=says):
        measured(model, x)
    assert measured(model, x, output="classification").meta["output"] == "classification"


def test_a_loss_alone_in_a_tuple_is_one_sentence():
    with pytest.raises(InputError, match="expects logits of 2 dimensions"):
        measured(Several(lambda h, z: (z.mean(),)).double(), torch.randn(5, 8, dtype=torch.float64))


@pytest.mark.parametrize(
    "how",
    [
        lambda h, z: z,
        lambda h, z: (z, h[:, :1]),
        lambda h, z: (z, h[None]),
        lambda h, z: z.log_softmax(-1),
        lambda h, z: (z.square().mean(), z),
    ],
)
def test_logits_beside_other_things_or_as_log_probabilities_are_measured(how):
    torch.manual_seed(0)
    model, x = Several(how).double(), torch.randn(5, 8, dtype=torch.float64)
    alone = Several(lambda h, z: z).double()
    alone.load_state_dict(model.state_dict())
    assert measured(model, x).trace == pytest.approx(measured(alone, x).trace, rel=1e-9)


def test_what_nobody_has_said_is_in_the_journal_once(tmp_path):
    for run, options in (("told", {"output": "classification"}), ("untold", {})):
        with Tracker(
            plain(), torch.randn(4, 8).double(), blocks="module", every=1, run=tmp_path / run, **options
        ) as t:
            t.step(0)
            t.step(1)
    said = [note for note in load_runs(tmp_path / "untold").notes.text if "nothing says what" in note]
    assert len(said) == 1
    assert not any("nothing says what" in note for note in load_runs(tmp_path / "told").notes.text)
