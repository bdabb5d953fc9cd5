"""peft's adapters in the same loop: encoders and decoders, every schedule, the same bits after an interruption."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from fishlens.errors import InputError
from fishlens.recipe import load_recipe
from fishlens.training.model import assemble
from fishlens.training.peft_adapter import lora_settings
from fishlens.training.preparation import prepare_task
from fishlens.training.run import train

SIZES = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 66, "pad_token_id": 1, "num_key_value_heads": 1, "head_dim": 8,
}  # fmt: skip


@pytest.fixture
def recipe(bare_recipe, tokenizer, tmp_path):
    """Without the library adapters."""
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model("xlm-roberta", **SIZES)).save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    return {**bare_recipe, "model": str(tmp_path / "encoder")}


@pytest.fixture(params=["xlm-roberta", "bert", "qwen3"])
def settings(request, recipe, tokenizer, tmp_path):
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(request.param, **SIZES)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return {
        **recipe,
        "model": str(tmp_path / "model"),
        "adapter": "peft:lora[r=4]",
        "language_adapters": None,
        "data": {**recipe["data"], "targets": ["de"]},
        "train": {"steps": 4, "batch_size": 8, "learning_rate": 1e-2},
        "schedule": {"name": "fun", "every": 1, "first": "select"},
        "tracking": {"every": 2, "examples": 4},
        "checkpoint": {"every": 1, "keep": 9},
    }


def test_a_block_is_a_layers_lora_and_the_head_is_what_the_checkpoint_lacks(settings):
    resolved = load_recipe(settings)
    made = assemble(resolved, prepare_task(resolved))
    assert made.thawable == ["layer.0", "layer.1"]
    train_ = {name for name, p in made.model.named_parameters() if p.requires_grad}
    assert train_ == set(made.parameters())
    assert all("lora_" in name or "modules_to_save" in name for name in train_)
    made.check("de", made.thawable)


def test_fun_trains_and_what_it_leaves_is_read_by_peft_itself(settings, tmp_path):
    result = train(settings, tmp_path / "run")
    assert set(result.test) == {"en", "de"}
    journal = [json.loads(line) for line in (tmp_path / "run" / "journal-1.jsonl").read_text().splitlines()]
    thawed = [block for r in journal if r["kind"] == "unfreeze" for block in r["chosen"]]
    assert sorted(thawed) == ["layer.0", "layer.1"]
    assert all(min(r["trace"].values()) > 0 for r in journal if r["kind"] == "fisher" and r["step"] > 0)
    labels = len(prepare_task(load_recipe(settings)).labels)
    base = AutoModelForSequenceClassification.from_pretrained(settings["model"], num_labels=labels)
    PeftModel.from_pretrained(base, tmp_path / "run" / "adapter")


def test_an_interrupted_run_ends_in_the_same_bits(settings, tmp_path):
    train(settings, tmp_path / "whole")

    class Stop(Exception): ...

    def stop(step):
        if step == 2:
            raise Stop

    with pytest.raises(Stop):
        train(settings, tmp_path / "cut", on_step=stop)
    train(settings, tmp_path / "cut")
    files = [
        next((tmp_path / name / "adapter").glob("*.safetensors")).read_bytes() for name in ("whole", "cut")
    ]
    assert files[0] == files[1]


def test_dora_is_an_option(settings, tmp_path):
    result = train({**settings, "adapter": "peft:dora[r=2]", "train": {**settings["train"], "steps": 1}}, tmp_path / "r")
    assert result.status == "finished"


def test_language_adapters_are_refused_with_the_reason(settings):
    with pytest.raises(InputError, match="language adapters belong to MAD-X"):
        load_recipe({**settings, "language_adapters": "x/{language}"})


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ("peft:ia3", "expected one of peft:lora, peft:dora, peft:rslora"),
        ("peft:lora[rank=3]", "no field 'rank'"),
        ("peft:lora[r=[]", "cannot be read"),
        ("peft:lora[target_modules=[nothing]]", "does not fit the model"),
    ],
)
def test_an_adapter_that_peft_does_not_have_is_named(recipe, adapter, message):
    resolved = load_recipe({**recipe, "adapter": adapter, "language_adapters": None})
    with pytest.raises(InputError, match=message):
        assemble(resolved, prepare_task(resolved))


def test_fields_are_those_of_lora_config():
    assert lora_settings("peft:rslora[r=16,target_modules=[q_proj,v_proj]]") == {
        "use_rslora": True, "r": 16, "target_modules": ["q_proj", "v_proj"],
    }  # fmt: skip


@pytest.mark.parametrize(("adapter", "library", "extra"), [("seq_bn", "adapters", "madx"), ("peft:lora", "peft", "peft")])
def test_a_library_that_is_not_installed_is_named_with_the_command(recipe, adapter, library, extra, monkeypatch):
    from fishlens.training import assembly

    monkeypatch.setattr(assembly, "find_spec", lambda name: None)
    monkeypatch.delitem(assembly.sys.modules, library, raising=False)
    resolved = load_recipe({**recipe, "adapter": adapter, "language_adapters": None})
    with pytest.raises(InputError, match=rf"needs the library {library}.*pip install 'fishlens\[{extra}\]'"):
        assemble(resolved, prepare_task(resolved))


def test_who_asks_for_xnli_without_the_extra_is_told_what_to_install_before_anything_else(monkeypatch, tmp_path):
    from fishlens.training import assembly

    monkeypatch.chdir(tmp_path)  # no data here either
    monkeypatch.setattr(assembly, "find_spec", lambda name: None)
    monkeypatch.delitem(assembly.sys.modules, "adapters", raising=False)
    with pytest.raises(InputError) as told:
        train("xnli")
    assert str(told.value) == (
        "recipe 'xnli' needs the library adapters, which is not installed: pip install 'fishlens[madx]'"
    )
    assert not list(tmp_path.iterdir())
