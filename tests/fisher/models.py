"""The smallest models that can fail: two layers, sixteen dimensions, float64, weights large enough to
matter."""

import pytest
import torch
from transformers import XLMRobertaConfig

VOCABULARY, TOKENS = 60, 7


def config(layers: int = 2, **changes):
    return XLMRobertaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=40,
        **changes,
    )


def shaken(model, seed: int = 0):
    """The model in float64 with random weights: adapters start at zero, where half of all gradients
    vanish."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise * (0.3 if parameter.numel() < 2000 else 0.05))
    return model


def adapters_library():
    """The library; a test that needs it is skipped where it is not installed."""
    return pytest.importorskip("adapters", reason="needs the library adapters (pip install 'fishlens[madx]')")


def mad_x(task: str = "seq_bn", add_head=None, layers: int = 2):
    """A task adapter called `task` on top of a frozen language adapter called `en`, in a Stack."""
    adapters = adapters_library()
    torch.manual_seed(0)
    model = adapters.AutoAdapterModel.from_config(config(layers))
    model.add_adapter("en", config=adapters.SeqBnInvConfig(reduction_factor=4))
    named = {
        "seq_bn": adapters.SeqBnConfig(reduction_factor=4),
        "double_seq_bn": adapters.DoubleSeqBnConfig(reduction_factor=4),
        "par_bn": adapters.ParBnConfig(reduction_factor=4),
        "lora": adapters.LoRAConfig(r=3, alpha=6, dropout=0.0),
    }
    model.add_adapter("task", config=named[task])
    if add_head is None:
        model.add_classification_head("task", num_labels=3)
    else:
        add_head(model)
    model.train_adapter("task")
    model.active_adapters = adapters.Stack("en", "task")
    return shaken(model).eval()


def sentences(count: int = 5, seed: int = 1, tokens: int = TOKENS) -> dict[str, torch.Tensor]:
    """Token ids with padding at the end of some rows, and three-class labels."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, VOCABULARY, (count, tokens), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(1, count, 2):
        mask[row, tokens - 1 - row % 3 :] = 0
    ids[mask == 0] = 1
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": torch.randint(0, 3, (count,), generator=generator),
    }


def head(kind: str):
    """A function that gives an `adapters` model the head `kind`, called `task`."""

    def add(model):
        if kind == "two classes":
            model.add_classification_head("task", num_labels=2)
        elif kind == "regression":
            model.add_classification_head("task", num_labels=1)
        elif kind == "multilabel":
            model.add_classification_head("task", num_labels=3, multilabel=True)
        elif kind == "multiple_choice":
            model.add_multiple_choice_head("task", num_choices=3)
        elif kind == "question_answering":
            model.add_qa_head("task")
        elif kind == "tagging":
            model.add_tagging_head("task", num_labels=3)
        elif kind == "masked_lm":
            model.add_masked_lm_head("task")
        elif kind == "causal_lm":
            model.add_causal_lm_head("task")
        else:
            raise ValueError(kind)

    return add


def batch_for(kind: str, count: int = 3, tokens: int = 5, vocabulary: int = VOCABULARY, seed: int = 5):
    """A batch with the labels that `kind` has; token-wise ones have −100 in it and the counts differ by
    row."""
    generator = torch.Generator().manual_seed(seed)

    def integers(high, *shape, low=0):
        return torch.randint(low, high, shape, generator=generator)

    shape = (count, 3, tokens) if kind == "multiple_choice" else (count, tokens)
    batch = {"input_ids": integers(vocabulary, *shape, low=4)}
    batch["attention_mask"] = torch.ones(shape, dtype=torch.long)
    batch["attention_mask"][1, ..., -1] = 0
    if kind in ("classification", "multiple_choice"):
        batch["labels"] = integers(3, count)
    elif kind == "two classes":
        batch["labels"] = integers(2, count)
    elif kind == "regression":
        batch["labels"] = torch.randn(count, generator=generator, dtype=torch.float64)
    elif kind == "multilabel":
        batch["labels"] = integers(2, count, 3).double()
    elif kind == "question_answering":
        batch["start_positions"], batch["end_positions"] = integers(tokens, count), integers(tokens, count)
        batch["end_positions"][0] = tokens + 3  # the answer ends outside the window: no label
    else:
        high = 3 if kind == "tagging" else vocabulary
        batch["labels"] = integers(high, count, tokens)
        batch["labels"][0, :2] = -100
        batch["labels"][1, 2:] = -100
    return batch
