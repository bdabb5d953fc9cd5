"""What a block holds is what its name says, whatever the architecture: nothing merged, nothing left out."""

import peft
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, BertModel

from fishlens import estimate_fisher, find_blocks
from fishlens.fisher import coverage
from fishlens.fisher.blocks import unmeasured

from .architectures import SHAPE, tiny
from .models import adapters_library, sentences

PLAIN = "embeddings layer.0 layer.1 head"
DECODER = "embeddings layer.0 layer.1 final_norm head"
T5 = (
    "embeddings encoder.relative_positions encoder.layer.0 encoder.layer.1 encoder.final_norm "
    "decoder.relative_positions decoder.layer.0 decoder.layer.1 decoder.final_norm head"
)


def names(model, **options) -> str:
    return " ".join(block.name for block in find_blocks(model, **options))


def holds(model, block: str) -> set[str]:
    return set(next(b for b in find_blocks(model) if b.name == block).parameters)


@pytest.mark.parametrize(
    ("family", "blocks"),
    [
        ("Bert", PLAIN),
        ("XLM", PLAIN),
        ("Albert", "embeddings layer.0 head"),
        ("DebertaV2", "embeddings relative_positions layer.0 layer.1 head"),
        ("MPNet", "embeddings relative_positions layer.0 layer.1 head"),
        ("ModernBert", DECODER),
        ("GPT2", DECODER),
        ("OPT", DECODER),
        ("Llama", DECODER),
        ("Mixtral", DECODER),
        ("T5", T5),
        ("MT5", T5),
        (
            "Bart",
            "embeddings encoder.embeddings encoder.layer.0 encoder.layer.1 "
            "decoder.embeddings decoder.layer.0 decoder.layer.1 head",
        ),
    ],
)
def test_where_all_weights_train_every_one_is_in_a_block_named_by_where_it_lies(family, blocks):
    model = tiny(family)
    assert names(model) == blocks
    assert not unmeasured(model, find_blocks(model))
    for block in find_blocks(model):
        if block.layer is not None:
            number = f".{block.layer}."
            side = block.name.partition(".")[0] if block.name.count(".") == 2 else ""
            assert all(number in name and side in name for name in block.parameters)


def test_embeddings_are_a_block_where_they_train_or_where_they_are_asked_for():
    model = tiny("Bert")
    for parameter in model.bert.embeddings.parameters():
        parameter.requires_grad_(False)
    assert names(model) == "layer.0 layer.1 head"
    assert names(model, embeddings=True) == PLAIN
    model.bert.embeddings.LayerNorm.weight.requires_grad_(True)
    assert holds(model, "embeddings") == {"bert.embeddings.LayerNorm.weight"}
    assert names(model, embeddings=False) == "layer.0 layer.1 head"
    assert unmeasured(model, find_blocks(model, embeddings=False)) == ["bert.embeddings.LayerNorm.weight"]


def test_norms_and_tables_of_relative_positions_are_not_in_the_head():
    deberta = holds(tiny("DebertaV2"), "relative_positions")
    assert {name.removeprefix("deberta.encoder.") for name in deberta} == {
        "rel_embeddings.weight",
        "LayerNorm.weight",
        "LayerNorm.bias",
    }
    assert holds(tiny("Llama", "ForCausalLM"), "head") == {"lm_head.weight"}


def test_a_table_that_is_embedding_and_output_layer_is_the_heads_where_it_trains():
    model = tiny("GPT2", "LMHeadModel")
    assert holds(model, "head") == {"transformer.wte.weight"}
    assert holds(model, "embeddings") == {"transformer.wpe.weight"}
    model.requires_grad_(False)
    assert names(model) == "layer.0 layer.1 final_norm"
    assert "transformer.wte.weight" in next(iter(find_blocks(model, embeddings=True))).parameters


def lora(model, **options):
    return peft.get_peft_model(model, peft.LoraConfig(**options))


@pytest.mark.parametrize(
    ("family", "options", "block", "name"),
    [
        ("Bert", {"bias": "lora_only"}, "layer.1", "query.base_layer.bias"),
        ("Bert", {"modules_to_save": ["pooler"]}, "head", "pooler.modules_to_save.default.dense.weight"),
        ("Bert", {"modules_to_save": ["word_embeddings"]}, "embeddings", "word_embeddings.modules_to_save"),
        ("Llama", {"modules_to_save": ["model.norm"]}, "final_norm", "norm.modules_to_save.default.weight"),
        ("Llama", {"trainable_token_indices": [1, 2]}, "embeddings", "trainable_tokens_delta.default"),
        ("Bert", {"target_modules": ["word_embeddings", "key"]}, "embeddings", "lora_embedding_A.default"),
    ],
)
def test_what_peft_trains_beside_lora_is_measured_where_it_lies(family, options, block, name):
    model = lora(tiny(family), **options)
    assert any(name in parameter for parameter in holds(model, block))
    assert not unmeasured(model, find_blocks(model))


def test_the_head_is_what_trains_above_the_layers():
    model = lora(tiny("Bert"), task_type="SEQ_CLS")
    assert {name.split(".")[2] for name in holds(model, "head")} == {"classifier"}  # the pooler is frozen


def test_layers_of_an_encoder_and_a_decoder_are_not_merged():
    adapters = adapters_library()
    assert names(lora(tiny("Bart"), target_modules=["q_proj"])) == (
        "encoder.layer.0 encoder.layer.1 decoder.layer.0 decoder.layer.1 head"
    )
    model = adapters.AutoAdapterModel.from_config(tiny("Bart").config)
    model.add_adapter("task", config="seq_bn")
    model.add_classification_head("task", num_labels=3)
    model.train_adapter("task")
    assert names(model) == "encoder.layer.0 encoder.layer.1 decoder.layer.0 decoder.layer.1 head"
    assert all("encoder.layers.1." in name for name in holds(model, "encoder.layer.1"))


@pytest.mark.parametrize("config", ["prefix_tuning", "mam", "unipelt"])
def test_prefixes_of_all_layers_are_made_from_the_same_parameters_and_are_a_block_of_their_own(config):
    adapters = adapters_library()
    model = adapters.AutoAdapterModel.from_config(BertConfig(**SHAPE))
    model.add_adapter("task", config=config)
    model.train_adapter("task")
    assert all("prefix_tunings" in name for name in holds(model, "prefix"))
    assert not unmeasured(model, find_blocks(model))
    for block in find_blocks(model)[1:]:
        assert not any("prefix_tunings" in name for name in block.parameters)


def test_the_weights_of_a_fusion_are_the_blocks_where_a_fusion_is_active():
    adapters = adapters_library()
    model = adapters.AutoAdapterModel.from_config(BertConfig(**SHAPE))
    for name in ("a", "b"):
        model.add_adapter(name, config="seq_bn")
    fusion = adapters.Fuse("a", "b")
    model.add_adapter_fusion(fusion)
    model.train_adapter_fusion(fusion)
    assert all("adapter_fusion_layer" in name for name in holds(model, "layer.1"))
    assert not unmeasured(model, find_blocks(model))
    assert len(unmeasured(model, find_blocks(model, adapter="b"))) == 10  # and the other way they are named


class TwoTowers(nn.Module):
    def __init__(self, wrap=lambda model: model):
        super().__init__()
        self.query, self.document = (wrap(BertModel(BertConfig(**SHAPE))) for _ in range(2))
        self.out = nn.Linear(32, 3)


def test_two_towers_in_ones_own_module_have_blocks_each():
    tower = "{0}.embeddings {0}.layer.0 {0}.layer.1"
    assert names(TwoTowers()) == f"{tower.format('query')} {tower.format('document')} head"
    with_lora = TwoTowers(lora)
    assert names(with_lora) == "query.layer.0 query.layer.1 document.layer.0 document.layer.1 head"
    assert sum(block.size for block in find_blocks(with_lora)[:-1]) == 2 * 2 * 4 * 8 * 16
    in_a_list = nn.ModuleList([BertModel(BertConfig(**SHAPE)) for _ in range(2)])
    assert names(in_a_list).split()[1:3] == ["0.layer.0", "0.layer.1"]


def test_an_adapter_inside_ones_own_module_is_found():
    adapters = adapters_library()

    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = adapters.AutoAdapterModel.from_config(BertConfig(**SHAPE))
            self.body.add_adapter("task", config="seq_bn")
            self.body.train_adapter("task")
            self.classifier = nn.Linear(16, 3)

    model = Mine()
    assert names(model) == "layer.0 layer.1 head"
    assert all(".adapters.task." in name for name in holds(model, "layer.0"))
    assert holds(model, "head") == {"classifier.weight", "classifier.bias"}


def test_what_trains_in_no_block_is_named():
    model = lora(tiny("Bert"), task_type="SEQ_CLS")
    stray = "base_model.model.bert.encoder.layer.0.output.dense.weight"
    model.get_parameter(stray).requires_grad_(True)  # forgotten, or meant: no adapter's
    batch = sentences()
    assert estimate_fisher(model, batch).meta["unmeasured"] == [stray]
    rows = coverage(model, batch=batch)
    assert (rows[-1].block, rows[-1].parameter) == ("no block", stray) and "not measured" in rows[-1].rule


class Small(nn.Module):
    """Of pure torch, with the head registered first and a list of classifiers."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(8, 2)
        self.embed = nn.Embedding(20, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(8), enable_nested_tensor=False)
        self.more = nn.ModuleList(nn.Linear(8, 2) for _ in range(5))


def test_a_plain_module_has_its_layers_below_its_head():
    assert names(Small()) == "embeddings layer.0 layer.1 final_norm head"
    assert {name.split(".")[0] for name in holds(Small(), "head")} == {"classifier", "more"}


def test_layers_in_a_sequential_are_layers():
    def layer():
        return nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))

    model = nn.Sequential(nn.Embedding(9, 4), nn.Sequential(layer(), layer()), nn.Linear(4, 2))
    assert names(model) == PLAIN


def test_a_subclass_of_a_known_model_has_its_blocks():
    class Mine(BertForSequenceClassification):
        pass

    assert names(Mine(BertConfig(**SHAPE))) == PLAIN
    assert torch.is_tensor(next(iter(find_blocks(Mine(BertConfig(**SHAPE)))[0].parameters.values())))
