"""Every method of peft on models of many makes: is every number right, and which blocks does a method have?

    python benchmarks/peft_methods.py                              Qwen3, every method; then every model with LoRA
    python benchmarks/peft_methods.py --only llama gemma2 --methods vera adalora

Tiny random models in float64: every example's contribution to every block against a loop of plain autograd over one
example at a time. `refused` prints what fishlens says; `not built` what the library says.
"""

import argparse
import logging
import sys
import warnings
from collections import Counter
from typing import Any

import many_architectures as many
import peft
import torch
import transformers

from fishlens import InputError, estimate_fisher, find_blocks

TARGETS = (
    r".*\.(q_proj|v_proj|query|value|query_proj|value_proj|q|v|c_attn|Wqkv|qkv_proj|query_key_value|in_proj"
    r"|q_b_proj|kv_b_proj)"
)
QUERIES = r".*\.(q_proj|query|query_proj|q|c_attn|Wqkv|qkv_proj|query_key_value|in_proj|q_b_proj)"
"""Of one shape each, for methods that share a matrix."""
NORMS = r".*\.\w*(norm|Norm|layer_norm|ln_\d)"
# name -> class of the configuration, its fields
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("LoraConfig", {"r": 2, "target_modules": TARGETS}),
    "dora": ("LoraConfig", {"r": 2, "target_modules": TARGETS, "use_dora": True}),
    "rslora": ("LoraConfig", {"r": 2, "target_modules": TARGETS, "use_rslora": True}),
    "bias": ("LoraConfig", {"r": 2, "target_modules": TARGETS, "lora_bias": True}),
    "ia3": ("IA3Config", {"target_modules": TARGETS, "feedforward_modules": []}),
    "vera": ("VeraConfig", {"r": 2, "target_modules": QUERIES}),
    "loha": ("LoHaConfig", {"r": 2, "target_modules": TARGETS}),
    "lokr": ("LoKrConfig", {"r": 2, "target_modules": TARGETS}),
    "adalora": ("AdaLoraConfig", {"init_r": 2, "target_r": 1, "total_step": 10, "target_modules": TARGETS}),
    "oft": ("OFTConfig", {"r": 0, "oft_block_size": 4, "target_modules": TARGETS}),
    "boft": ("BOFTConfig", {"boft_block_size": 4, "target_modules": TARGETS}),
    "fourierft": ("FourierFTConfig", {"n_frequency": 10, "target_modules": TARGETS}),
    "hra": ("HRAConfig", {"r": 2, "target_modules": TARGETS}),
    "vblora": (
        "VBLoRAConfig",
        {"r": 2, "num_vectors": 8, "vector_length": 4, "topk": 2, "target_modules": QUERIES},
    ),
    "ln_tuning": ("LNTuningConfig", {"target_modules": NORMS}),
    "randlora": ("RandLoraConfig", {"r": 2, "target_modules": QUERIES}),
    "shira": ("ShiraConfig", {"r": 2, "target_modules": TARGETS}),
    "bone": ("BoneConfig", {"r": 4, "target_modules": TARGETS}),
    "miss": ("MissConfig", {"r": 4, "target_modules": TARGETS}),
    "c3a": ("C3AConfig", {"block_size": 4, "target_modules": TARGETS}),
    "road": ("RoadConfig", {"target_modules": TARGETS}),
    "prefix": ("PrefixTuningConfig", {"num_virtual_tokens": 3}),
    "prompt": ("PromptTuningConfig", {"num_virtual_tokens": 3}),
    "ptuning": ("PromptEncoderConfig", {"num_virtual_tokens": 3, "encoder_hidden_size": 8}),
    "poly": ("PolyConfig", {"r": 2, "n_tasks": 1, "target_modules": TARGETS}),
}
MODELS = (
    "llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "opt", "gpt2",
    "gpt_neox", "mixtral", "stablelm", "glm", "glm4", "nemotron", "smollm3", "hunyuan_v1_dense", "deepseek_v3",
    "jamba", "mt5", "umt5", "mbart", "t5", "xlm-roberta-xl", "deberta-v2", "modernbert", "modernbert-decoder",
    "eurobert", "qwen3_next", "minimax", "bloom", "falcon", "starcoder2", "persimmon", "biogpt", "diffllama", "helium",
    "zamba", "zamba2", "doge", "ernie4_5", "exaone4", "gpt_oss", "seed_oss", "arcee", "t5gemma", "luke", "canine",
)  # fmt: skip


def build(architecture: str, method: str) -> Any:
    """The model with the adapter, all that trains away from where it begins (half of it begins at zero)."""
    names = many.auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    model = many.tiny(architecture, names[architecture])
    if method == "full":
        return model
    kind, fields = METHODS[method]
    model = peft.get_peft_model(model, getattr(peft, kind)(task_type="SEQ_CLS", **fields)).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def measured(model: Any, count: int, tokens: int) -> tuple[float, list[str], list[str]]:
    """(largest relative difference, the blocks, what is said of parameters measured one at a time)."""
    blocks, data = find_blocks(model), many.batch("sentence", model, count, tokens)
    estimate = estimate_fisher(model, data, blocks=blocks, labels="exact")
    largest = 0.0
    for block, right in many.one_by_one(model, data, blocks).items():
        gap = (estimate.per_example[block] - right).abs().max()
        largest = max(largest, float(gap / right.abs().max().clamp(min=1e-12)))
    return (
        largest,
        [b.name for b in blocks],
        [n for n in estimate.meta["notes"] if "one example at a time" in n],
    )


def outcome(architecture: str, method: str) -> tuple[str, str]:
    try:
        model = build(architecture, method)
        with torch.no_grad():
            model(**many.batch("sentence", model, 2, 5))
    except Exception as error:
        return "not built", f"{type(error).__name__}: {error}"
    try:
        found = [measured(model, count, 5) for count in (5, 3)]
    except InputError as error:
        return "refused", str(error)
    except Exception as error:
        return "wrong", f"{type(error).__name__}: {error}"
    largest = max(value for value, _, _ in found)
    slow = max((notes for _, _, notes in found), key=len)
    said = f"{largest:.0e}; blocks {', '.join(found[0][1])}{'; ' + slow[0] if slow else ''}"
    return "right" if largest <= many.ROUNDED else "wrong", said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="architectures, as transformers names them")
    parser.add_argument("--methods", nargs="*", choices=[*METHODS, "full"])
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    torch.set_default_dtype(torch.float64)
    pairs = [("qwen3", method) for method in METHODS] + [(name, "lora") for name in MODELS]
    if chosen.only or chosen.methods:
        pairs = [(name, m) for name in chosen.only or ("qwen3",) for m in chosen.methods or METHODS]
    counts: Counter[str] = Counter()
    for architecture, method in pairs:
        verdict, said = outcome(architecture, method)
        counts[verdict] += 1
        print(f"{architecture}, {method}: {verdict}: {' '.join(said.split())[:300]}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()), file=sys.stderr)


if __name__ == "__main__":
    main()
