"""A model small enough to see through, and the tokenizer of the small real encoder."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, XLMRobertaConfig


@pytest.fixture
def model():
    """An XLM-R of two layers and random weights with room for the tokenizer above."""
    import torch
    from adapters import AutoAdapterModel

    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=100, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=66, pad_token_id=1, type_vocab_size=1,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.3,
    )  # fmt: skip
    return AutoAdapterModel.from_config(config).eval()


@pytest.fixture(scope="session")
def mini_xlmr(shared: Path):
    """The tokenizer of the small real encoder: Unigram with a space marker, as XLM-R's."""
    return AutoTokenizer.from_pretrained(shared / "models" / "mini-xlmr")
