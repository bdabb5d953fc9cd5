"""Architectures × what is trained: which blocks there are, how each parameter is measured, and whether it is right.

    python benchmarks/architectures.py --markdown > docs/architectures.md

Tiny random models (two layers, sixteen dimensions, float64). "Right" compares every example's contribution to every
block with a loop of plain autograd over examples and classes that shares nothing with the engine but the blocks.
"""

import argparse
import collections
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from fishlens import estimate_fisher, find_blocks
from fishlens.fisher import coverage

FAMILIES = {
    "BERT": "Bert", "XLM-R": "XLMRoberta", "DeBERTa-v2": "DebertaV2", "MPNet": "MPNet", "ALBERT": "Albert",
    "ModernBERT": "ModernBert", "GPT-2": "GPT2", "Llama": "Llama", "Qwen2": "Qwen2", "Qwen3": "Qwen3",
    "Gemma3": "Gemma3Text", "Mixtral": "Mixtral", "T5": "T5", "BART": "Bart",
}  # fmt: skip
TRAINED = ("all weights", "bottleneck", "LoRA (adapters)", "prefix", "LoRA (peft)", "DoRA (peft)")
BOUND = 1e-9
ROUNDED = 1e-6
"""For models whose norms compute in float32 whatever the model's dtype: an example alone rounds differently."""
FLOAT32_NORMS = ("Llama", "Qwen2", "Qwen3", "Gemma3", "Mixtral", "T5")
TARGETS = r".*\.(query|value|query_proj|value_proj|q_proj|v_proj|q|v|c_attn|Wqkv)"
SHAPE = {
    "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 40, "pad_token_id": 0,
}  # fmt: skip
T5 = {
    "vocab_size": 60,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
OF_FAMILY = {
    "DebertaV2": {**SHAPE, "relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm",
                  "pos_att_type": ["p2c", "c2p"]},
    "Albert": {**SHAPE, "embedding_size": 8},
    "ModernBert": {**SHAPE, "reference_compile": False},
    "GPT2": {"vocab_size": 60, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "pad_token_id": 0},
    "Qwen2": {**SHAPE, "num_key_value_heads": 2},
    "Qwen3": {**SHAPE, "num_key_value_heads": 1, "head_dim": 8},
    "Gemma3Text": {**SHAPE, "num_key_value_heads": 1, "head_dim": 8, "layer_types": ["full_attention"] * 2},
    "Mixtral": {**SHAPE, "num_key_value_heads": 2, "num_local_experts": 3, "num_experts_per_tok": 2},
    "T5": T5,
    "Bart": {"vocab_size": 60, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
             "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 40},
}  # fmt: skip


INTRODUCTION = """\
Which blocks there are, and how each parameter is measured, on tiny random models of other people's architectures. The
last column compares every example's contribution to every block with a loop of plain autograd (float64; relative
difference; norms of Llama, Qwen, Gemma, Mixtral and T5 compute in float32, hence their bound). Printed by
`python benchmarks/architectures.py --markdown`; the tests make each row again and compare."""
MANY = """
## Many more

`python benchmarks/many_architectures.py` makes a tiny random model of every architecture that classifies \
sentences or
images in transformers, and of some with other heads (tags, masked tokens, next tokens, choices, spans,
encoder–decoders), measures all its weights with as many examples as tokens and with others, and compares every
example's contribution to every block with plain autograd, one example at a time, in float64. Of 211 pairs of
architecture and head (160 architectures; transformers 4.57):

| | pairs | which |
|---|---|---|
| right | 172 | 101 with sentences, 20 with images, 51 with other heads: 113 within 1e-9, 59 within 1e-6 (norms, \
rotations or routers in float32) |
| refused by name | 3 | LayoutLMv3 (looks its relative positions up without gradients, so that they never \
train), Reformer (its backward pass \
refuses evaluation mode), CANINE (its own logits are not finite in our configuration) |
| not built | 36 | another library is needed, no smaller configuration was found, or the model computes in \
float32 only |
| wrong | 0 | |

Parameters of seventeen architectures are measured one example at a time, with a note, all or some: where time \
or
windows come first inside (XLNet, Longformer, LED, Mega, Swin), relative positions where N = T (T5, MPNet), \
experts in
one three-dimensional parameter (GPT-OSS), the experts of JetMoe's attention, which other methods than `forward` call
(`map`, `reduce`; its MLP's experts are measured together). Each costs a forward and a backward pass per example.
RoFormer and Nyströmformer are measured; RoFormer's sinusoids are a table that never trains and lie in no block. For
an image alone in its batch torch 2.14's own gradient of VAN is wrong
(finite differences agree with the gradient of the larger batch), so that images stand twice in the loop.

`python benchmarks/peft_methods.py` does the same with 25 methods of peft. Measured so far, on Qwen3 and Llama:
LoRA, DoRA, (IA)³, prefix, prompt, VeRA, LoHa, LoKr, OFT, BOFT, AdaLoRA, layer-norm tuning and HRA are right within
2e-7, all without a note. FourierFT does not run in
float64 (peft 0.21).
"""
HEADINGS = "| trained | blocks | parameters by how they are measured | agreement |\n|---|---|---|---|"


def make(family: str, trained: str) -> Any:
    """The model, ready to measure; None where the library has no such adapter for it."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        **OF_FAMILY.get(family, SHAPE), num_labels=3, eos_token_id=2
    )
    model = getattr(transformers, f"{family}ForSequenceClassification")(config)
    if trained.endswith("(peft)"):
        options = {"r": 2, "target_modules": TARGETS, "use_dora": trained.startswith("DoRA")}
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", **options))
    elif trained != "all weights":
        import adapters  # not beside transformers 5

        chosen = {
            "bottleneck": adapters.SeqBnConfig(reduction_factor=4),
            "LoRA (adapters)": adapters.LoRAConfig(r=2),
            "prefix": adapters.PrefixTuningConfig(prefix_length=3, bottleneck_size=4),
        }[trained]
        try:
            adapters.init(model)
            model.add_adapter("task", config=chosen)
        except Exception:  # adapters raises of every kind where it does not know a model
            return None
        model.train_adapter("task")
    generator = torch.Generator().manual_seed(0)
    model = model.double().eval()
    with torch.no_grad():  # adapters begin at zero, where half of all gradients vanish
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def sentences(count: int = 3, tokens: int = 5) -> dict[str, torch.Tensor]:
    ids = torch.randint(4, 60, (count, tokens), generator=torch.Generator().manual_seed(1))
    ids[:, -1] = 2
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def independent(model: Any, batch: dict[str, torch.Tensor], blocks: Any) -> dict[str, torch.Tensor]:
    """Every example's contribution by plain autograd: Σ_c p_c ‖∇ log p_c‖²."""
    names = [p for block in blocks for p in block.parameters.values()]
    required = [p.requires_grad for p in names]
    for p in names:
        p.requires_grad_(True)
    found = {block.name: torch.zeros(len(batch["input_ids"]), dtype=torch.float64) for block in blocks}
    for n in range(len(batch["input_ids"])):
        log_p = model(**{key: value[n : n + 1] for key, value in batch.items()}).logits[0].log_softmax(-1)
        for c in range(3):
            gradients = torch.autograd.grad(log_p[c], names, retain_graph=True, allow_unused=True)
            of = {id(p): g for p, g in zip(names, gradients, strict=True) if g is not None}
            for block in blocks:
                size = sum(of[id(p)].square().sum() for p in block.parameters.values() if id(p) in of)
                found[block.name][n] += log_p[c].exp().detach() * size
    for p, value in zip(names, required, strict=True):
        p.requires_grad_(value)
    return found


def row(name: str, trained: str) -> tuple[str, str, str]:
    """(blocks, how the parameters are measured, largest relative difference as ≤ the bound)."""
    model = make(FAMILIES[name], trained)
    if model is None:
        return "not offered by adapters", "", ""
    blocks, batch = find_blocks(model), sentences()
    rules = collections.Counter(one.rule for one in coverage(model, blocks, batch))
    found = estimate_fisher(model, batch, blocks=blocks, labels="exact").per_example
    worst = 0.0
    for block, expected in independent(model, batch, blocks).items():
        gap = (found[block] - expected).abs()
        worst = max(worst, float((gap / expected.abs().clamp(min=1e-300)).where(gap > 0, 0.0).max()))
    bound = ROUNDED if name in FLOAT32_NORMS else BOUND
    verdict = f"≤ {bound:.0e}" if worst <= bound else f"**{worst:.1e}**"
    return (
        shortened([block.name for block in blocks]),
        ", ".join(f"{n} {r}" for r, n in sorted(rules.items())),
        verdict,
    )


def shortened(names: list[str]) -> str:
    """`layer.0 … layer.1` as `layer.0–1`."""
    text = ", ".join(names)
    return re.sub(r"((?:\w+\.)?layer)\.0, \1\.1", r"\1.0–1", text)


def markdown() -> Iterator[str]:
    yield "# Architectures"
    yield ""
    yield INTRODUCTION
    for name in FAMILIES:
        yield f"\n## {name}\n\n{HEADINGS}"
        for trained in TRAINED:
            yield f"| {trained} | {' | '.join(row(name, trained))} |"
    yield MANY.rstrip()


def quietly() -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    logging.getLogger("adapters").setLevel(logging.ERROR)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", action="store_true", help="print docs/architectures.md")
    parser.add_argument("--write", type=Path, help="write it to this file instead")
    arguments = parser.parse_args()
    quietly()
    lines = "\n".join(markdown()) + "\n"
    if arguments.write:
        arguments.write.write_text(lines, encoding="utf-8")
    else:
        print(lines, end="")
