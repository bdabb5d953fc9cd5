"""Masked LM: what is predicted, what is trained, and that a killed run goes on to the same bits."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fishlens.errors import InputError
from fishlens.pretraining.encoder import EncoderShape, Vocabulary, new_encoder, pretrain
from fishlens.pretraining.language_adapter import WEIGHTS, _add_adapter, train_language_adapter
from fishlens.pretraining.masked_lm import Interrupted, learning_rate, train_masked_lm
from fishlens.pretraining.masking import MaskedLMLoss, mask_tokens
from fishlens.pretraining.raw_text import Batches, encode_lines, pad
from fishlens.pretraining.settings import MaskedLMSettings
from fishlens.pretraining.tokenizer_training import train_tokenizer

LINES = [
    f"{a} {b} {c}"
    for a in ("red", "blue")
    for b in ("cat", "dog", "cow")
    for c in ("sat", "ran", "ate", "hid")
]
SHAPE = EncoderShape(layers=2, hidden=16, heads=2, feed_forward=32, positions=16, dropout=0.2)
SETTINGS = MaskedLMSettings(steps=12, batch=4, max_length=16, warmup=2, log_every=3, save_every=5, seed=1)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(LINES, "word", 100)


@pytest.fixture
def texts(tmp_path):
    for name, lines in {"aa": LINES, "bb": [line[::-1] for line in LINES]}.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return {name: tmp_path / f"{name}.txt" for name in ("aa", "bb")}


def run(tokenizer, folder, settings=SETTINGS, note=lambda text: None):
    model = new_encoder(tokenizer, SHAPE, seed=0)
    rows = encode_lines(tokenizer, LINES, 16, join=False)
    batches = Batches({"aa": rows}, {"aa": 1.0}, settings.batch, settings.seed)
    curve = train_masked_lm(model, tokenizer, batches, settings, folder, {"aa": rows[:4]}, note)
    return {name: p.detach().clone() for name, p in model.named_parameters()}, curve


def test_masking_leaves_special_tokens_alone_and_every_row_has_something_to_predict():
    random = np.random.default_rng(0)
    ids = random.integers(5, 50, (400, 20))
    special = np.zeros_like(ids, dtype=bool)
    special[:, [0, -1]] = True
    special[7] = True  # a row without ordinary tokens has nothing to predict
    inputs, chosen = mask_tokens(ids, special, 4, 50, 0.15, random)
    assert not (chosen & special).any()
    assert (inputs == ids)[~chosen].all()
    assert chosen.any(1).sum() == 399
    assert not chosen[7].any()
    assert chosen[~special].mean() == pytest.approx(0.15, abs=0.02)
    fate = inputs[chosen]
    assert (fate == 4).mean() == pytest.approx(0.8, abs=0.04)
    assert (fate == ids[chosen]).mean() == pytest.approx(0.1, abs=0.04)


def test_the_loss_is_that_of_the_full_logits_at_the_masked_positions(tokenizer):
    model = new_encoder(tokenizer, replace(SHAPE, dropout=0.0), seed=0).double()
    rows = encode_lines(tokenizer, LINES, 16, join=True)[:5]
    loss = MaskedLMLoss(model, tokenizer, replace(SETTINGS, mask_share=0.3))
    mine, count = loss(rows, np.random.default_rng(3))
    ids, attention = pad(rows, tokenizer.pad_token_id)
    special = np.isin(ids, tokenizer.all_special_ids)
    inputs, chosen = mask_tokens(
        ids, special, tokenizer.mask_token_id, len(tokenizer), 0.3, np.random.default_rng(3)
    )
    labels = torch.from_numpy(np.where(chosen, ids, -100))
    theirs = model(
        input_ids=torch.from_numpy(inputs), attention_mask=torch.from_numpy(attention), labels=labels
    ).loss
    assert count == chosen.sum()
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=0)
    assert not model.lm_head._forward_pre_hooks


def test_training_lowers_the_loss_on_held_out_rows(tokenizer, tmp_path):
    _, curve = run(
        tokenizer, tmp_path, replace(SETTINGS, steps=150, learning_rate=5e-3, save_every=75, log_every=75)
    )
    assert curve[-1]["heldout/aa"] < 0.7 * np.log(len(tokenizer))
    assert [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()] == curve


@pytest.mark.parametrize("stop_at", [1, 4, 5, 6, 11])
def test_an_interrupted_run_goes_on_to_the_same_bits(tokenizer, tmp_path, stop_at, monkeypatch):
    whole, curve = run(tokenizer, tmp_path / "whole")
    original, calls = Batches.at, []

    def interrupting(self, step):
        if step == stop_at - 1 and not calls:
            calls.append(step)
            os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C in the middle of a step
        return original(self, step)

    monkeypatch.setattr(Batches, "at", interrupting)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as stopped:
        run(tokenizer, tmp_path / "stopped")
    assert stopped.value.step == stop_at
    assert signal.getsignal(signal.SIGINT) is handler
    notes = []
    resumed, again = run(tokenizer, tmp_path / "stopped", note=notes.append)
    assert notes[0] == f"resuming at step {stop_at} of 12"
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    without_time = [[{k: v for k, v in r.items() if k != "seconds"} for r in c] for c in (curve, again)]
    assert without_time[0] == without_time[1]


def test_in_bfloat16_the_forward_pass_is_rounded_and_the_weights_are_not(tokenizer, tmp_path):
    full, exact = run(tokenizer, tmp_path / "fp32")
    weights, rounded = run(tokenizer, tmp_path / "bf16", replace(SETTINGS, precision="bf16"))
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert not torch.equal(weights["lm_head.bias"], full["lm_head.bias"])  # autocast did something
    assert [r["loss"] for r in rounded] == pytest.approx([r["loss"] for r in exact], rel=0.02)
    assert [r["loss"] for r in rounded] != [r["loss"] for r in exact]
    fine = torch.tensor([r["loss"] for r in rounded])
    assert not torch.equal(fine, fine.bfloat16().float())  # the loss itself is float32
    value, _ = MaskedLMLoss(
        new_encoder(tokenizer, SHAPE, seed=0), tokenizer, replace(SETTINGS, precision="bf16")
    )(encode_lines(tokenizer, LINES, 16, join=False), np.random.default_rng(0))
    assert value.dtype == torch.float32
    again = run(tokenizer, tmp_path / "again", replace(SETTINGS, precision="bf16"))[0]
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_an_unknown_precision_is_refused():
    with pytest.raises(InputError, match="precision is 'half'; expected fp32 or bf16"):
        replace(SETTINGS, precision="half")


def test_a_folder_of_another_run_is_refused(tokenizer, tmp_path):
    run(tokenizer, tmp_path)
    with pytest.raises(InputError, match=r"holds a run with learning_rate = 0\.001, not 0\.01"):
        run(tokenizer, tmp_path, replace(SETTINGS, learning_rate=0.01))


def test_the_learning_rate_rises_over_the_warmup_and_falls_to_zero():
    rates = [learning_rate(step, SETTINGS) for step in range(13)]
    assert rates[0] == pytest.approx(0.0005)
    assert max(rates) == rates[1] == rates[2] == pytest.approx(0.001)
    assert rates[12] == 0


def test_pretraining_makes_a_standard_folder_of_xlm_rs_architecture(texts, tmp_path):
    from adapters import AutoAdapterModel
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    folder = pretrain(
        texts, tmp_path / "run", SHAPE, Vocabulary("word", 200), SETTINGS, heldout=texts, parallel=texts,
        translation_share=0.5, note=lambda text: None,
    )  # fmt: skip
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "xlm-roberta"
    assert tokenizer.is_fast
    assert tokenizer("red cat", "dog")["input_ids"][:1] == [0]
    longest = tokenizer(["red cat " * 20], truncation=True, return_tensors="pt", max_length=16)
    assert model(**longest).logits.shape == (1, 16, len(tokenizer))
    assert AutoAdapterModel.from_pretrained(folder).config.num_hidden_layers == 2


def test_a_language_adapter_trains_alone_and_loads_into_the_models_of_the_trainer(texts, tmp_path):
    from adapters import AutoAdapterModel
    from transformers import AutoModelForMaskedLM

    base = pretrain(texts, tmp_path / "run", SHAPE, Vocabulary("word", 200), SETTINGS, note=lambda text: None)
    before = AutoModelForMaskedLM.from_pretrained(base).state_dict()
    learner = AutoModelForMaskedLM.from_pretrained(base)
    _add_adapter(learner, "aa", "seq_bn_inv", seed=0)
    trainable = [name for name, p in learner.named_parameters() if p.requires_grad]
    assert trainable
    assert all("aa" in name.split(".") for name in trainable)  # the masked-LM head is frozen too
    folder = tmp_path / "aa-adapter"
    settings = replace(SETTINGS, steps=40, learning_rate=1e-2)
    summary = train_language_adapter(
        base, "aa", texts["aa"], folder, settings, heldout=texts["aa"],
        config="seq_bn_inv[reduction_factor=4]", note=lambda text: None,
    )  # fmt: skip
    assert summary["perplexity"] < summary["perplexity_without"]
    trained = load_file(folder / WEIGHTS)
    assert {path.name for path in folder.iterdir()} == {
        WEIGHTS,
        "adapter_config.json",
        "curve.jsonl",
        "training.json",
    }
    assert all("aa" in name.split(".") for name in trained)
    assert any("invertible_adapters" in name for name in trained)
    after = AutoModelForMaskedLM.from_pretrained(base).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert str(tmp_path) not in (folder / "adapter_config.json").read_text()

    loaded = AutoAdapterModel.from_pretrained(base)
    loaded.load_adapter(str(folder), load_as="aa", use_safetensors=True)
    state = {name.removeprefix("roberta."): value for name, value in loaded.state_dict().items()}
    for name, value in trained.items():
        assert torch.equal(state[name.removeprefix("roberta.")], value), name

    with pytest.raises(InputError, match="already holds a finished adapter"):
        train_language_adapter(base, "aa", texts["aa"], folder, settings, note=lambda text: None)


@pytest.fixture
def headless(texts, tmp_path):
    """A checkpoint of the encoder alone, as most are published."""
    from transformers import AutoModel, AutoTokenizer

    made = pretrain(
        texts, tmp_path / "whole", SHAPE, Vocabulary("word", 200), SETTINGS, note=lambda text: None
    )
    AutoModel.from_pretrained(made).save_pretrained(tmp_path / "headless")
    AutoTokenizer.from_pretrained(made).save_pretrained(tmp_path / "headless")
    return tmp_path / "headless"


def test_no_adapter_is_trained_under_a_random_head(texts, headless, tmp_path):
    with pytest.raises(InputError, match=r"has no masked-LM head \(lm_head.*pretrain --from"):
        train_language_adapter(headless, "aa", texts["aa"], tmp_path / "aa", SETTINGS, note=lambda text: None)
    assert not (tmp_path / "aa").exists()


def test_training_goes_on_with_an_existing_encoder_and_gives_it_the_head_that_it_lacks(
    texts, headless, tmp_path
):
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    notes = []
    folder = pretrain(
        texts, tmp_path / "more", headless, None, SETTINGS, freeze_embeddings=True, note=notes.append
    )
    assert any("no masked-LM head" in text for text in notes)
    old, new = load_file(headless / "model.safetensors"), AutoModelForMaskedLM.from_pretrained(folder)
    body = new.base_model.state_dict()
    same = {name for name, value in old.items() if name in body and torch.equal(value, body[name])}
    assert "embeddings.word_embeddings.weight" in same and "encoder.layer.0.output.dense.weight" not in same
    assert len(AutoTokenizer.from_pretrained(folder)) == len(AutoTokenizer.from_pretrained(headless))
    train_language_adapter(folder, "aa", texts["aa"], tmp_path / "aa", SETTINGS, note=lambda text: None)


def test_an_existing_encoder_keeps_its_shape(texts, headless, tmp_path):
    with pytest.raises(InputError, match="keeps its vocabulary"):
        pretrain(texts, tmp_path / "more", headless, Vocabulary("word", 200), SETTINGS)
    with pytest.raises(InputError, match="max_length is 99"):
        pretrain(texts, tmp_path / "more", headless, None, replace(SETTINGS, max_length=99))


def test_a_limit_in_minutes_ends_training_with_a_learning_rate_of_zero(tokenizer, tmp_path, monkeypatch):
    from fishlens.pretraining import masked_lm

    class Clock:
        now = 0.0

        def __init__(self, before):
            pass

        @property
        def seconds(self):
            Clock.now += 1
            return Clock.now

    monkeypatch.setattr(masked_lm, "_Clock", Clock)
    _, curve = run(tokenizer, tmp_path / "r", replace(SETTINGS, steps=10_000, minutes=0.5))
    assert 5 < curve[-1]["step"] < 30
    timed = replace(SETTINGS, steps=10_000, minutes=0.5)
    assert learning_rate(9, timed, seconds=15) == pytest.approx(SETTINGS.learning_rate / 2)
    assert learning_rate(9, timed, seconds=30) == 0
