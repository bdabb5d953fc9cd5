"""A toy run: a character tokenizer, a tiny random XLM-R, language adapters for it and toy data, on disk."""

import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
TOPICS = ("entertainment", "geography", "health", "politics", "science/technology", "sports", "travel")
CODES = {"en": "eng_Latn", "de": "deu_Latn", "es": "spa_Latn"}


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token per ASCII character, XLM-R's special tokens around it: every offset can be counted by hand."""
    vocab = {token: i for i, token in enumerate([*SPECIAL, *map(chr, range(32, 127))])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],  # the model has one token type, as XLM-R
        bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>", mask_token="<mask>",
    )  # fmt: skip


def adapters_library():
    return pytest.importorskip("adapters", reason="needs the library adapters (pip install 'fishlens[madx]')")


def make_encoder(place: Path, tokenizer, layers: int = 4, width: int = 32, dropout: float = 0.1) -> Path:
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=100, hidden_size=width, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=66, pad_token_id=1, type_vocab_size=1,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    adapters_library().AutoAdapterModel.from_config(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="session")
def encoder(tmp_path_factory, tokenizer) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder"), tokenizer)


@pytest.fixture(scope="session")
def encoder_12(tmp_path_factory, tokenizer) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder-12"), tokenizer, layers=12)


@pytest.fixture(scope="session")
def encoder_narrow(tmp_path_factory, tokenizer) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder-narrow"), tokenizer, width=16)


@pytest.fixture(scope="session")
def encoder_without_dropout(tmp_path_factory, tokenizer) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder-still"), tokenizer, dropout=0.0)


@pytest.fixture(scope="session")
def language_adapters(tmp_path_factory, encoder) -> Path:
    """A folder with a random seq_bn_inv adapter for each of en, de, es, made for `encoder`."""
    place = tmp_path_factory.mktemp("language-adapters")
    model = adapters_library().AutoAdapterModel.from_pretrained(encoder)
    for language in CODES:
        model.add_adapter(language, config="seq_bn_inv")
        model.save_adapter(str(place / language), language, with_head=False, use_safetensors=True)
    return place


@pytest.fixture(scope="session")
def data_root(tmp_path_factory) -> Path:
    """SIB-200's layout with made-up lines: 40 to train, 14 to validate, 14 to test; the topic's name is in the text."""
    root = tmp_path_factory.mktemp("data")
    generator = random.Random(0)
    for code in CODES.values():
        folder = root / "sib200" / code
        folder.mkdir(parents=True)
        for split, rows in (("train", 40), ("dev", 14), ("test", 14)):
            lines = ["index_id\tcategory\ttext"]
            for i in range(rows):
                topic = TOPICS[i % len(TOPICS)]
                filler = "".join(generator.choice("abcdefgh ") for _ in range(generator.randint(4, 12)))
                lines.append(f"{i}\t{topic}\t{filler}{topic[:6]}")
            (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


@pytest.fixture
def bare_recipe(data_root) -> dict:
    """A short run with everything on but a model; 40 rows in batches of 16 are three updates an epoch."""
    return {
        "name": "toy",
        "seed": 5,
        "task": {"name": "topic"},
        "data": {"root": str(data_root), "source": "en", "targets": ["de", "es"]},
        "train": {"steps": 8, "batch_size": 16, "learning_rate": 1e-2, "log_every": 1},
        "schedule": {"name": "gu", "every": 2},
        "tracking": {"every": None, "examples": 8},
        "evaluate": {"every": 4, "batch_size": 16},
    }


@pytest.fixture
def recipe(bare_recipe, encoder, language_adapters) -> dict:
    """The same with MAD-X on a tiny XLM-R."""
    return {
        **bare_recipe,
        "model": str(encoder),
        "adapter": "seq_bn",
        "language_adapters": str(language_adapters) + "/{language}",
    }
