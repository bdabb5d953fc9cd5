"""Texts in the place of batches: what they become for every kind of model, and the script's tokenizer, left alone."""

import copy
import json
import os

import pytest
import torch
import transformers
from transformers import BertConfig, GPT2Config, PreTrainedTokenizerFast, T5Config

from fishlens import FisherCallback, InputError, estimate_fisher, load_runs
from fishlens.tracking.texts import Reader, Texts

WORDS = [f"w{i}" for i in range(30)]
SMALL = BertConfig(
    vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
    max_position_embeddings=12
)  # fmt: skip
ONE = ["w1 w2 w3", "w4", "w5 w6", "w7 w8 w9 w10 w11"]
PAIRS = [("w1 w2", "w3"), ("w4", "w5 w6 w7"), ("w8", "w9")]


@pytest.fixture
def tokenizer():
    """One token a word, but `w1` is two: `w` and `1`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = {
        "pad_token": "[P]",
        "unk_token": "[U]",
        "cls_token": "[C]",
        "sep_token": "[S]",
        "mask_token": "[M]",
    }
    vocabulary = {word: i for i, word in enumerate([*special.values(), "w", "##1", *WORDS[2:]])}
    words = Tokenizer(models.WordPiece(vocabulary, unk_token="[U]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[C] $A [S]", pair="[C] $A [S] $B:1 [S]:1", special_tokens=[("[C]", 2), ("[S]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=64, **special)


def made(kind, config=SMALL):
    torch.manual_seed(0)
    config = copy.deepcopy(config)
    config.num_labels = 2 if kind == "BertForQuestionAnswering" else 3
    return getattr(transformers, kind)(config).eval()


T5 = T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
GPT2 = GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=12)
READ = {
    "classification": ("BertForSequenceClassification", SMALL, ONE),
    "pairs": ("BertForSequenceClassification", SMALL, PAIRS),
    "tagging": ("BertForTokenClassification", SMALL, ONE),
    "question_answering": ("BertForQuestionAnswering", SMALL, PAIRS),
    "masked_lm": ("BertForMaskedLM", SMALL, ONE),
    "causal_lm": ("GPT2LMHeadModel", GPT2, ONE),
    "seq2seq_lm": ("T5ForConditionalGeneration", T5, PAIRS),
}


@pytest.mark.parametrize("what", READ)
def test_every_kind_of_model_gets_what_its_texts_say(what, tokenizer):
    """Each text by itself, unpadded: the engine's numbers do not know of the batches."""
    kind, config, texts = READ[what]
    model = made(kind, config)
    batches, notes = Reader(model, tokenizer, size=3).batches(Texts(tuple(texts)))
    found = estimate_fisher(model, batches, labels="mc")
    alone = [one for text in texts for one in Reader(model, tokenizer, size=1).batches(Texts((text,)))[0]]
    if what == "masked_lm":  # which tokens are asked for follows from a text's number
        alone = [unpadded(row) for row in single_rows(batches)]
    if what == "question_answering":  # where an answer may begin depends on the padding, too
        alone = single_rows(batches)
    expected = estimate_fisher(model, alone, labels="mc")
    assert found.examples == len(texts)
    assert found.trace == pytest.approx(expected.trace, rel=1e-4)
    assert notes == [f"the Fisher information is measured on {len(texts)} texts, without labels, cut to "
                     f"{64 if what == 'seq2seq_lm' else 12 if what != 'causal_lm' else 64} tokens"]  # fmt: skip


def single_rows(batches):
    return [
        {k: v[i : i + 1] for k, v in batch.items()}
        for batch in batches
        for i in range(len(batch["input_ids"]))
    ]


def unpadded(row):
    return {key: value[:, row["attention_mask"][0] == 1] for key, value in row.items()}


def test_the_first_token_of_every_word_is_tagged(tokenizer):
    (batch,), _ = Reader(made("BertForTokenClassification"), tokenizer).batches(Texts(("w1 w2", "w3")))
    assert batch["labels"].tolist() == [[-100, 0, -100, 0, -100], [-100, 0, -100, -100, -100]]


def test_one_token_or_15_percent_are_masked_and_asked_for(tokenizer):
    texts = Texts((" ".join(WORDS[2:22]), "w5"))
    reader = Reader(made("BertForMaskedLM"), tokenizer, max_length=50)
    reader.model.bert.embeddings.position_embeddings = torch.nn.Embedding(50, 16)
    (batch,), _ = reader.batches(texts)
    asked = batch["labels"] != -100
    assert asked.sum(dim=1).tolist() == [3, 1]
    assert (batch["input_ids"][asked] == tokenizer.mask_token_id).all()
    encoded = tokenizer(list(texts.texts), padding=True, return_tensors="pt")["input_ids"]
    assert torch.equal(torch.where(asked, batch["labels"], batch["input_ids"]), encoded)
    assert torch.equal(reader.batches(texts)[0][0]["labels"], batch["labels"])


def test_what_the_decoder_reads_is_the_second_text_without_its_padding(tokenizer):
    (batch,), _ = Reader(made("T5ForConditionalGeneration", T5), tokenizer).batches(Texts(tuple(PAIRS)))
    second = [tokenizer(text)["input_ids"] for _, text in PAIRS]
    assert [[i for i in row if i != -100] for row in batch["labels"].tolist()] == second


@pytest.mark.parametrize(
    ("kind", "texts", "said"),
    [
        (
            "BertForTokenClassification",
            PAIRS,
            "is pairs of texts, but a BertForTokenClassification reads one text an",
        ),
        (
            "BertForQuestionAnswering",
            ONE,
            "is one text an example, but a BertForQuestionAnswering reads pairs of",
        ),
        ("BertForMultipleChoice", ONE, "reads questions with their choices; expected batches"),
        (
            "BertForSequenceClassification",
            [*ONE, *PAIRS],
            "has one text an example and pairs of texts|has pairs",
        ),
        (
            "BertForSequenceClassification",
            ["zz yy xx", "w1"],
            "makes 60% of 2 texts .U.; expected at most 50%",
        ),
    ],
)
def test_texts_that_the_model_does_not_read_are_one_sentence(tokenizer, kind, texts, said):
    with pytest.raises(InputError, match=said) as raised:
        Reader(made(kind), tokenizer).batches(Texts(tuple(texts)))
    assert "\n" not in str(raised.value)


def test_without_a_tokenizer_it_is_said_how_to_give_one(tmp_path):
    with pytest.raises(
        InputError, match=r"the Trainer has no tokenizer, and the one of '' cannot be loaded .*tokenizer="
    ):
        Reader(made("BertForSequenceClassification"), None).batches(Texts(("w1",)))
    with pytest.raises(InputError, match=r"the tokenizer '.*/nowhere' cannot be loaded"):
        Reader(made("BertForSequenceClassification"), tmp_path / "nowhere").batches(Texts(("w1",)))


# -- in a Trainer ------------------------------------------------------------------------------------------------------


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_trainer_with_texts_ends_in_the_same_bits_and_its_tokenizer_is_not_touched(
    tmp_path, tokenizer, make_model, make_trainer
):
    texts = [" ".join(WORDS[2 + i : 5 + i]) for i in range(20)]
    tokenizer.backend_tokenizer.enable_truncation(2)
    state = lambda: (  # noqa: E731
        tokenizer.backend_tokenizer.to_str(),
        dict(tokenizer.deprecation_warnings),
        os.environ.get("TOKENIZERS_PARALLELISM"),
    )
    before = state()
    found = {}
    for name in ("plain", "texts", "batches"):
        model = make_model()
        languages = {"de": texts}
        if name == "batches":
            languages = {"de": Reader(model, tokenizer, size=4).batches(Texts(tuple(texts[:8])))[0]}
        callback = FisherCallback(every=4, run=tmp_path / name, examples=8, languages=languages)
        trainer = make_trainer(model, [] if name == "plain" else [callback], output=f"out-{name}")
        trainer.processing_class = trainer.callback_handler.processing_class = tokenizer
        trainer.train()
        found[name] = weights(model)
    assert all(torch.equal(found["plain"][key], found[name][key]) for name in found for key in found[name])
    assert before == state()
    told, given = (load_runs(tmp_path / name) for name in ("texts", "batches"))
    assert set(told.fisher_series.language) == {"de"} and set(told.fisher_series.step) == {0, 4, 8}
    assert told.fisher_series.trace.tolist() == given.fisher_series.trace.tolist()
    assert told.runs.targets.tolist() == ["de"]
    notes = [json.loads(line) for line in (tmp_path / "texts/journal-1.jsonl").read_text().splitlines()]
    assert any("'de': the Fisher information is measured on 8 texts" in n.get("text", "") for n in notes)


@pytest.mark.parametrize(
    ("languages", "said"),
    [
        ({"de": "one text"}, "language 'de': is the text 'one text'; expected a list of texts, or batches"),
        ({"de": ["a", 3]}, "language 'de': has 3 as text 1; expected a text, or a pair of two"),
        ({"de": [("a", "b", "c")]}, r"language 'de': has \('a', 'b', 'c'\) as text 0"),
        ({"../de": ["w1"]}, "the name of a language is '../de', expected a name that can be a folder's"),
    ],
)
def test_languages_that_cannot_be_read_are_said_before_training(
    tokenizer, make_model, make_trainer, languages, said
):
    model = make_model()
    trainer = make_trainer(model, [FisherCallback(languages=languages)])
    trainer.callback_handler.processing_class = tokenizer
    with pytest.raises(InputError, match=said):
        trainer.train()
    assert trainer.state.global_step == 0
