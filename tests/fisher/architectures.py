"""Tiny models of other people's architectures: two layers, sixteen dimensions, random weights."""

import torch
import transformers
from torch import nn

SHAPE = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
BART = {
    "vocab_size": 60, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 40,
}  # fmt: skip
T5 = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
GPT2 = {"vocab_size": 60, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "pad_token_id": 0}
SETTINGS = {
    "Bart": {**BART, "decoder_start_token_id": 2, "eos_token_id": 2},
    "T5": {**T5, "decoder_start_token_id": 0, "eos_token_id": 1},
    "MT5": {**T5, "decoder_start_token_id": 0, "eos_token_id": 1},
    "GPT2": GPT2,
    "DebertaV2": {**SHAPE, "relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm",
                  "pos_att_type": ["p2c", "c2p"]},
    "Albert": {**SHAPE, "embedding_size": 8},
    "ModernBert": {**SHAPE, "pad_token_id": 0, "reference_compile": False},
    "OPT": {**{k: v for k, v in SHAPE.items() if k != "intermediate_size"}, "ffn_dim": 24, "word_embed_proj_dim": 16},
    "XLM": {"vocab_size": 60, "emb_dim": 16, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 40},
}  # fmt: skip
DECODER = {**SHAPE, "num_key_value_heads": 1, "pad_token_id": 0}
for _name in ("Llama", "Qwen2", "Mixtral", "Qwen3"):
    SETTINGS[_name] = {**DECODER, "head_dim": 8} if _name == "Qwen3" else DECODER
SETTINGS["Mixtral"] = {**SETTINGS["Mixtral"], "num_local_experts": 3, "num_experts_per_tok": 2}


def tiny(family: str, kind: str = "ForSequenceClassification", **changes) -> nn.Module:
    """`family` as transformers spells it (`Bert`, `DebertaV2`), with a fresh head for three classes."""
    torch.manual_seed(0)
    settings = {**SETTINGS.get(family, SHAPE), "num_labels": 3, **changes}
    config = getattr(transformers, f"{family}Config")(**settings)
    return getattr(transformers, f"{family}{kind}")(config).eval()
