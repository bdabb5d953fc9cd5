"""Every architecture of transformers that classifies text or images, and several heads: is every number right?

    python benchmarks/many_architectures.py                         all of them, one line each; some minutes
    python benchmarks/many_architectures.py --only bert t5 --markdown

Tiny random models in float64, all weights measured, with as many examples as tokens (N = T) and with others: every
example's contribution to every block against a loop of plain autograd over one example at a time. `refused` prints
what fishlens says; `not built` is a configuration of ours that the library does not take.
"""

import argparse
import inspect
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto as auto

from fishlens import InputError, estimate_fisher, find_blocks
from fishlens.fisher import reference_fisher

ROUNDED = 1e-5
"""Many norms, rotary embeddings and routers compute in float32, whatever the model's dtype."""
LARGEST = 3_000_000
_WIDTHS = (
    "hidden_size", "d_model", "n_embd", "emb_dim", "dim", "hidden_dim", "embedding_size", "entity_emb_size",
    "word_embed_proj_dim", "true_hidden_size", "d_embed", "decoder_hidden_size",
)  # fmt: skip
_DEPTHS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "encoder_layers",
    "decoder_layers",
    "depth",
)
_HEADS = (
    "num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads",
    "num_key_value_heads",
)  # fmt: skip
_INNER = (
    "intermediate_size", "d_inner", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim", "n_inner",
    "moe_intermediate_size", "shared_expert_intermediate_size", "intra_bottleneck_size",
)  # fmt: skip
SMALL = {
    **dict.fromkeys(("vocab_size", "entity_vocab_size", "pronunciation_vocab_size", "shape_vocab_size"), 60),
    **dict.fromkeys(_WIDTHS, 16),
    **dict.fromkeys(_DEPTHS, 2),
    **dict.fromkeys(_HEADS, 2),
    **dict.fromkeys(("head_dim", "d_head", "d_kv", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(_INNER, 24),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_2d_position_embeddings", "max_seq_len"), 64),
    **dict.fromkeys(("num_local_experts", "n_routed_experts", "num_experts"), 4),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "lora_rank", "kv_channels"), 8),
    "num_decoder_layers": 2, "num_experts_per_tok": 2, "dropout": 0.0, "attention_dropout": 0.0, "image_size": 32,
    "patch_size": 16, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "sliding_window": 8,
}  # fmt: skip
_STAGES = {"depths": [1, 1], "hidden_sizes": [8, 16], "image_size": 32}
_SWIN = {
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [1, 2],
    "window_size": 2,
    "patch_size": 4,
    "image_size": 32,
}
CHANGES: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 8},
    "modernbert": {"reference_compile": False},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "deepseek_v3": {"head_dim": 8, "q_lora_rank": 8},
    "lilt": {"hidden_size": 24},
    "layoutlmv3": {"coordinate_size": 2, "shape_size": 4, "visual_embed": False},
    "roc_bert": {"pronunciation_embed_dim": 8, "shape_embed_dim": 8},
    "jetmoe": {"num_key_value_heads": 1},  # heads are experts' heads: 1 × 2 chosen
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
    "qwen3_next": {
        "layer_types": ["linear_attention", "full_attention"], "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "linear_num_key_heads": 2, "linear_num_value_heads": 2,
    },
    "jamba": {"use_mamba_kernels": False, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4},
    "reformer": {
        "axial_pos_embds": False, "attn_layers": ["local", "local"], "attention_head_size": 8, "is_decoder": False,
        "feed_forward_size": 24, "local_attn_chunk_length": 4,
    },
    "canine": {"downsampling_rate": 1, "upsampling_kernel_size": 3, "num_hash_buckets": 60},
    "convnext": _STAGES | {"num_stages": 2}, "convnextv2": _STAGES | {"num_stages": 2},
    "resnet": _STAGES | {"embedding_size": 8}, "regnet": _STAGES | {"embedding_size": 8, "groups_width": 8},
    "focalnet": {"embed_dim": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "focal_levels": [1, 1],
                 "focal_windows": [3, 3]},
    "bit": _STAGES | {"embedding_size": 8, "num_groups": 2},
    "swin": _SWIN, "swinv2": _SWIN, "donut-swin": _SWIN,
    "poolformer": {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16]},
    "van": _STAGES | {"patch_sizes": [7, 3], "strides": [4, 2], "mlp_ratios": [2, 2]},
}  # fmt: skip
TEXT = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
ENCODERS = ("bert", "xlm-roberta", "deberta-v2", "albert", "mpnet", "modernbert", "electra", "distilbert")
HEADS = {
    "token": ("ForTokenClassification", (*ENCODERS, "xlnet", "gpt2", "llama", "t5")),
    "masked": ("ForMaskedLM", ENCODERS),
    "causal": ("ForCausalLM", ("llama", "qwen3", "gemma2", "mistral", "mixtral", "opt", "bloom", "gpt_neox")),
    "choice": ("ForMultipleChoice", ("bert", "xlm-roberta", "albert", "deberta-v2", "distilbert", "electra")),
    "spans": ("ForQuestionAnswering", (*ENCODERS, "bart", "t5", "llama")),
    "seq2seq": ("ForConditionalGeneration", ("t5", "mt5", "bart", "mbart", "pegasus", "umt5")),
}


@dataclass(frozen=True)
class Case:
    """One architecture with one head, as transformers names them."""

    architecture: str
    head: str
    build: Callable[[], Any]


def cases() -> Iterator[Case]:
    sequence = auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    image = auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    for head, names in (("sentence", sequence), ("image", image)):
        for architecture, classes in names.items():
            found = classes if isinstance(classes, str) else classes[0]
            yield Case(architecture, head, lambda a=architecture, c=found: tiny(a, c))
    for head, (suffix, architectures) in HEADS.items():
        for architecture in architectures:
            yield Case(architecture, head, lambda a=architecture, s=suffix: tiny(a, prefix(a) + s))


def prefix(architecture: str) -> str:
    names = auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    return names.get(architecture, f"{architecture.title()}ForSequence").partition("For")[0]


def tiny(architecture: str, class_name: str) -> Any:
    """A small model with random weights, in float64."""
    model_class = getattr(transformers, class_name)
    config_class = model_class.config_class
    default = config_class()
    known = {**default.to_dict(), **dict.fromkeys(config_class.attribute_map)}
    settings = {key: value for key, value in SMALL.items() if key in known and known[key] != 0}
    settings |= {key: value for key, value in TEXT.items() if key in known and value is not None}
    settings |= CHANGES.get(architecture, {})
    labels = 2 if class_name.endswith("QuestionAnswering") else 3
    config = config_class(**settings, num_labels=labels)
    config._attn_implementation = "eager"
    with torch.device("meta"):
        size = sum(p.numel() for p in model_class(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{size} parameters")
    torch.manual_seed(0)
    model = model_class(config).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # initial weights are so small that products of them vanish
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.1 * noise.to(parameter.dtype))
    return model


def batch(head: str, model: Any, count: int, tokens: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    if head == "image":
        size = getattr(model.config, "image_size", 32)
        size = size if isinstance(size, int) else size[0]
        channels = getattr(model.config, "num_channels", 3)
        return {"pixel_values": torch.randn(count, channels, size, size, generator=generator).double()}
    taken = inspect.signature(model.forward).parameters
    shape = (count, 3, tokens) if head == "choice" else (count, tokens)
    ids = torch.randint(4, 60, shape, generator=generator)
    ids[..., -1] = 2
    found = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if head == "seq2seq":
        found["labels"] = torch.randint(4, 60, (count, 3), generator=generator)
    if head == "masked":
        found["labels"] = ids.where(torch.rand(ids.shape, generator=generator) < 0.6, -100)
    return {key: value for key, value in found.items() if key in taken}


def worst(case: Case, model: Any, count: int, tokens: int) -> tuple[float, int]:
    """(largest relative difference over blocks and examples, how many parameters are measured one by one)."""
    blocks, data = find_blocks(model, by="layer", embeddings=True), batch(case.head, model, count, tokens)
    exact = case.head in ("sentence", "image", "choice")
    options: dict[str, Any] = {"labels": "exact" if exact else "mc", "seed": 3}
    estimate = estimate_fisher(model, data, blocks=blocks, **options)
    if case.head in ("sentence", "image"):
        expected = one_by_one(model, data, blocks)
    else:
        expected = reference_fisher(model, data, blocks, **options).per_example
    largest = 0.0
    for block, right in expected.items():
        scale = right.abs().max().clamp(min=1e-12)
        largest = max(largest, float((estimate.per_example[block] - right).abs().max() / scale))
    return largest, sum("one example at a time" in note for note in estimate.meta["notes"])


def one_by_one(model: Any, data: dict[str, torch.Tensor], blocks: Any) -> dict[str, torch.Tensor]:
    """Every example's contribution by plain autograd, alone in its batch: Σ_c p_c ‖∇ log p_c‖².

    An image stands there twice: torch 2.14's gradient of a batch norm whose batch is one image in another memory format
    is wrong (VAN; finite differences agree with the gradient of the larger batch).
    """
    parameters = [p for block in blocks for p in block.parameters.values()]
    count = len(next(iter(data.values())))
    found = {block.name: torch.zeros(count, dtype=torch.float64) for block in blocks}
    for n in range(count):
        rows = [n, n] if "pixel_values" in data else [n]
        log_p = model(**{key: value[rows] for key, value in data.items()}).logits[0].log_softmax(-1)
        for log in log_p:
            gradients = torch.autograd.grad(log, parameters, retain_graph=True, allow_unused=True)
            of = {id(p): g for p, g in zip(parameters, gradients, strict=True) if g is not None}
            for block in blocks:
                size = sum(of[id(p)].square().sum() for p in block.parameters.values() if id(p) in of)
                found[block.name][n] += log.exp().detach() * size
    return found


def outcome(case: Case) -> tuple[str, str]:
    """(right, wrong, refused or not built; what there is to say)."""
    try:
        model = case.build()
        with torch.no_grad():
            model(**batch(case.head, model, 2, 5))
    except Exception as error:
        return "not built", f"{type(error).__name__}: {error}"
    tokens = 5
    try:
        found = [worst(case, model, count, tokens) for count in (tokens, 3)]
    except InputError as error:
        return "refused", str(error)
    except Exception as error:
        return "wrong", f"{type(error).__name__}: {error}"
    largest = max(value for value, _ in found)
    slow = max(number for _, number in found)
    said = f"{largest:.0e}" + (f", {slow} parameters one example at a time" if slow else "")
    return "right" if largest <= ROUNDED else "wrong", said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="architectures, as transformers names them")
    parser.add_argument("--head", help="sentence, image, token, masked, causal, choice, spans or seq2seq")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    torch.set_default_dtype(torch.float64)  # some models write constants of float64's range into a tensor
    counts: Counter[str] = Counter()
    for case in cases():
        if (chosen.only and case.architecture not in chosen.only) or (
            chosen.head and case.head != chosen.head
        ):
            continue
        verdict, said = outcome(case)
        counts[verdict] += 1
        print(f"{case.architecture} ({case.head}): {verdict}: {' '.join(said.split())[:300]}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()), file=sys.stderr)


if __name__ == "__main__":
    main()
