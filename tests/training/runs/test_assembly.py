"""MAD-X assembly: what is stacked, what trains, what is swapped, and what does not fit."""

import contextlib
import gc
import math
import shutil
from pathlib import Path

import pytest
import torch
from adapters import AutoAdapterModel
from adapters.composition import Stack
from transformers import AutoConfig

from fishlens.errors import InputError
from fishlens.journal import read_run
from fishlens.tracking.texts import longest_row
from fishlens.training import madx
from fishlens.training.model import assemble
from fishlens.training.madx import stacked
from fishlens.recipe.loading import load_recipe
from fishlens.training.preparation import prepare_task
from fishlens.training.run import train


def assembled(recipe: dict):
    resolved = load_recipe(recipe)
    return assemble(resolved, prepare_task(resolved))


def trainable(model) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_exactly_the_task_adapter_and_its_head_can_train(recipe):
    made = assembled(recipe)
    assert stacked(made.model.active_adapters) == ["en", "topic"]
    assert made.thawable == ["layer.0", "layer.1", "layer.2", "layer.3"]
    names = trainable(made.model)
    assert names == set(made.parameters())
    assert all(".adapters.topic." in n or n.startswith("heads.topic.") for n in names)
    made.activate_language("de")
    frozen = [n for n, p in made.model.named_parameters() if not p.requires_grad]
    for part in (".adapters.en.", ".adapters.de.", "invertible"):
        assert any(part in name for name in frozen)


def test_two_language_adapters_are_held_at_a_time_and_reading_one_disturbs_nothing(recipe):
    """Of three languages: the source's and the last one's; the numbers are the same whenever one is read again."""
    made = assembled({**recipe, "data": {**recipe["data"], "targets": ["de", "es"]}})
    ids = torch.tensor([[0, 40, 41, 42, 2]])
    held, logits, state = set(), {}, torch.get_rng_state()
    made.model.eval()
    for language in ["de", "es", "de", "en", "es", "es"]:
        with made.in_language(language), torch.no_grad():
            found = made.model(ids).logits
            assert torch.equal(logits.setdefault(language, found), found)
            held.add(tuple(sorted(made.model.adapters_config.adapters)))
        assert stacked(made.model.active_adapters) == ["en", "topic"]
        assert not any(module.training for module in made.model.modules())
    assert not torch.equal(logits["de"], logits["es"]) and not torch.equal(logits["de"], logits["en"])
    assert held == {("de", "en", "topic"), ("en", "es", "topic")}
    assert torch.equal(torch.get_rng_state(), state)
    assert trainable(made.model) == set(made.parameters())


def bytes_alive() -> int:
    """Of all tensors that anything holds on to (a compiler keeps some that have no data)."""
    gc.collect()
    held = {}
    for one in gc.get_objects():
        with contextlib.suppress(ReferenceError, RuntimeError):
            if isinstance(one, torch.Tensor):
                held[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
    return sum(held.values())


def test_a_hundred_language_adapters_take_the_memory_of_two(recipe, language_adapters, data_root, tmp_path):
    codes = [f"l{number}" for number in range(99)]
    data = tmp_path / "data" / "sib200"
    data.mkdir(parents=True)
    for code, like, folder in [("en", "en", "eng_Latn"), *((code, "de", "deu_Latn") for code in codes)]:
        (tmp_path / code).symlink_to(language_adapters / like)
        (data / (folder if code == "en" else code)).symlink_to(data_root / "sib200" / folder)
    one = sum(file.stat().st_size for file in (language_adapters / "de").glob("*.safetensors"))
    told = {"root": str(tmp_path / "data"), "source": "en", "targets": codes}
    made = assembled({**recipe, "language_adapters": f"{tmp_path}/{{language}}", "data": told})
    for code in codes[:2]:
        made.activate_language(code)
    made.activate_language("en")
    two = bytes_alive()
    for code in codes:
        made.activate_language(code)
    made.activate_language("en")
    assert bytes_alive() - two < one / 2, "of a hundred as of two"


def test_swapping_the_language_changes_the_output_and_swapping_back_restores_it(recipe):
    made = assembled(recipe)
    made.model.eval()
    ids = torch.tensor([[0, 40, 41, 42, 2]])
    with torch.no_grad():
        english = made.model(ids).logits
        made.activate_language("de")
        made.check("de", made.thawable)
        german = made.model(ids).logits
        made.activate_language("en")
        again = made.model(ids).logits
    assert not torch.equal(english, german)
    assert torch.equal(english, again)
    assert trainable(made.model) == set(made.parameters())


def test_a_wrong_set_up_is_noticed(recipe):
    made = assembled(recipe)
    made.check("en", made.thawable)
    made.activate_language("de")
    with pytest.raises(RuntimeError, match="the active adapters are"):
        made.check("en", made.thawable)
    made.model.set_active_adapters(Stack("topic", "en"))  # upside down
    with pytest.raises(RuntimeError, match="the active adapters are"):
        made.check("en", made.thawable)
    made.activate_language("en")
    for parameter in made.model.get_adapter("en")[0]["output_adapter"].parameters():
        parameter.requires_grad_(True)  # what train_adapter(Stack(...)) would have done
    with pytest.raises(RuntimeError, match="too many"):
        made.check("en", made.thawable)


def test_training_is_through_the_source_adapter_and_testing_through_each_targets(
    recipe, tmp_path, monkeypatch
):
    seen = []
    real = madx.load_encoder

    def load_encoder(name):
        model, tokenizer = real(name)
        model.register_forward_pre_hook(
            lambda m, *_: seen.append((m.training, tuple(stacked(m.active_adapters))))
        )
        return model, tokenizer

    monkeypatch.setattr(madx, "load_encoder", load_encoder)
    train({**recipe, "tracking": {"every": 2, "examples": 4}}, tmp_path / "run")
    assert {setup for training, setup in seen if training} == {("en", "topic")}
    last = [setup for training, setup in seen if not training][-3:]
    assert last == [("en", "topic"), ("de", "topic"), ("es", "topic")]


def test_the_published_qa_set_up_trains_without_the_language_adapter_and_evaluates_with_it(
    recipe, tmp_path, monkeypatch
):
    seen = []
    from fishlens.training import loop

    real = loop.update

    def update(job):
        seen.append(stacked(job.assembly.model.active_adapters))
        return real(job)

    monkeypatch.setattr(loop, "update", update)
    recipe["data"]["train_language_adapter"] = False
    train(recipe, tmp_path / "run")
    assert seen == [["topic"]] * 8


def test_without_language_adapters_the_task_adapter_stands_alone(recipe):
    made = assembled({**recipe, "language_adapters": None})
    assert stacked(made.model.active_adapters) == ["topic"]
    made.activate_language("de")
    made.check("de", made.thawable)


@pytest.mark.parametrize(
    "adapter", ["double_seq_bn", "lora[r=2]", "seq_bn[reduction_factor=4]", "seq_bn_inv"]
)
def test_any_adapter_configuration_has_one_block_per_layer(recipe, adapter):
    made = assembled({**recipe, "adapter": adapter})
    assert [b for b in made.thawable if b != "outside"] == ["layer.0", "layer.1", "layer.2", "layer.3"]
    assert ("outside" in made.thawable) == (adapter == "seq_bn_inv")
    assert trainable(made.model) == set(made.parameters())


def test_full_fine_tuning_trains_the_models_own_weights(recipe):
    made = assembled(
        {**recipe, "adapter": None, "language_adapters": None, "schedule": {"name": "full", "every": 2}}
    )
    assert made.thawable == ["embeddings", "layer.0", "layer.1", "layer.2", "layer.3"]
    made.check("en", made.thawable)


def test_the_same_seed_gives_the_same_new_weights_and_another_seed_others(recipe):
    one, same = assembled(recipe).parameters(), assembled(recipe).parameters()
    other = assembled({**recipe, "seed": 6}).parameters()
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert not all(torch.equal(one[n], other[n]) for n in one)


def test_a_language_without_an_adapter_is_named_before_anything_is_loaded(recipe, language_adapters):
    recipe["language_adapters"] = {"en": str(language_adapters / "en"), "de": str(language_adapters / "de")}
    with pytest.raises(InputError, match=r"language_adapters has none for 'es' \(it has en, de\)"):
        assembled({**recipe, "model": "nowhere/at-all"})


def test_a_language_adapter_that_is_not_there_is_named(recipe, monkeypatch):
    def offline(*_, **__):
        raise OSError("no connection")

    monkeypatch.setattr("adapters.utils.pull_from_hf_model_hub", offline)
    monkeypatch.setattr("adapters.utils.pull_from_hub", offline)
    recipe["language_adapters"] = "nowhere/adapter-{language}"
    with pytest.raises(InputError, match="'nowhere/adapter-en' for 'en' cannot be loaded .neither a folder"):
        assembled(recipe)


def test_a_legacy_hub_id_is_looked_up_under_the_models_bare_name(recipe, language_adapters, monkeypatch):
    asked = []

    def pull_from_hub(specifier, model_name):
        asked.append((specifier, model_name))
        return str(language_adapters / specifier.partition("/")[0])

    monkeypatch.setattr(madx, "pull_from_hub", pull_from_hub)
    made = assembled({**recipe, "language_adapters": "{language}/wiki@ukp"})
    bare = recipe["model"].rpartition("/")[2]
    assert asked == [(f"{language}/wiki@ukp", bare) for language in ("en", "de", "es")]
    assert made.languages == {"en", "de", "es"}


@pytest.mark.parametrize("other", ["encoder_12", "encoder_narrow"])
def test_an_adapter_of_another_depth_or_width_does_not_fit(recipe, other, request, tmp_path):
    model = AutoAdapterModel.from_pretrained(request.getfixturevalue(other))
    model.add_adapter("en", config="seq_bn_inv")
    model.save_adapter(str(tmp_path / "en"), "en", with_head=False, use_safetensors=True)
    recipe["data"]["targets"] = []
    with pytest.raises(InputError, match="/en' for 'en' does not fit the model") as caught:
        assembled({**recipe, "language_adapters": str(tmp_path) + "/{language}"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "/no/such/folder"}, "model '/no/such/folder' cannot be loaded"),
        ({"adapter": "pfeifer"}, "adapter 'pfeifer' is not an adapter configuration"),
        ({"adapter": "lora[r=many]"}, "is not an adapter configuration"),
    ],
)
def test_what_cannot_be_loaded_is_named(recipe, change, message):
    with pytest.raises(InputError, match=message.replace("[", r"\[")) as caught:
        assembled({**recipe, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("adapter", ["seq_bn", "peft:lora"])
def test_a_folder_with_weights_and_without_a_tokenizer_is_one_sentence(recipe, adapter, tmp_path):
    """transformers raises of every kind there, an AttributeError for XLM-R."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(Path(recipe["model"]) / name, tmp_path / name)
    change = {"model": str(tmp_path), "adapter": adapter, "language_adapters": None}
    with pytest.raises(InputError, match=r"has no tokenizer that can be loaded: .*; expected its files beside") as caught:
        assembled({**recipe, **change})
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_some_weights_is_refused_instead_of_filled_with_random_ones(recipe, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(recipe["model"], tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    gone = [n for n in weights if "layer.2.output.dense.weight" in n]
    save_file(
        {n: w for n, w in weights.items() if n not in gone}, tmp_path / "model" / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(InputError, match="lacks 1 weights of its encoder, .*layer.2.output.dense.weight"):
        assembled({**recipe, "model": str(tmp_path / "model")})


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "distilbert"])
def test_other_encoders_train_too(kind, recipe, tokenizer, tmp_path):
    sizes = {
        "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "max_position_embeddings": 64, "pad_token_id": 1,
    }  # fmt: skip
    if kind == "distilbert":
        sizes |= {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    AutoAdapterModel.from_config(AutoConfig.for_model(kind, **sizes)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    settings = {
        **recipe,
        "model": str(tmp_path / "model"),
        "language_adapters": None,
        "data": {**recipe["data"], "targets": ["de"]},
        "train": {"steps": 3, "batch_size": 8, "learning_rate": 1e-2},
        "schedule": {"name": "fun", "every": 1, "first": "select"},
    }
    result = train(settings, tmp_path / "run")
    assert set(result.test) == {"en", "de"}


def test_a_damaged_adapter_is_refused(recipe, language_adapters, tmp_path):
    shutil.copytree(language_adapters, tmp_path / "adapters")
    (tmp_path / "adapters" / "de" / "adapter.safetensors").write_bytes(b"\x01\x02")
    with pytest.raises(InputError, match="for 'de' cannot be loaded"):
        assembled({**recipe, "language_adapters": str(tmp_path / "adapters") + "/{language}"})


def test_rows_are_cut_at_the_positions_that_the_model_has(recipe):
    made = assembled(recipe)
    assert longest_row(made.model) == 64  # 66 positions, of which RoBERTa's padding takes two
    made.tokenizer.model_max_length = math.inf
    assert made.model(torch.full((1, 64), 40)).logits.shape == (1, 7)


def test_nothing_is_written_for_a_recipe_that_cannot_run(recipe, tmp_path):
    for change in ({"model": "/no/such/folder"}, {"task": {"name": "topics"}}):
        with pytest.raises(InputError):
            train({**recipe, **change}, tmp_path / "run")
    recipe["data"]["targets"] = ["de", "fr"]
    with pytest.raises(InputError, match="fra_Latn/test.tsv"):  # missed hours later otherwise
        train({**recipe, "language_adapters": None}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_parallel_adapters_train_and_are_measured(recipe, tmp_path):
    """`par_bn` beside the feed-forward network instead of after it: a factor of a study like any other adapter."""
    settings = {**recipe, "adapter": "par_bn[reduction_factor=4]", "tracking": {"every": 8, "examples": 8}}
    train(settings, tmp_path / "run")
    traces = [r["trace"] for r in read_run(tmp_path / "run").records if r["kind"] == "fisher"]
    assert list(traces[-1]) == ["layer.0", "layer.1", "layer.2", "layer.3", "head"]
    assert all(value > 0 for value in traces[-1].values())
    weights = [c for c in (tmp_path / "run" / "adapter").iterdir() if c.suffix == ".safetensors"]
    assert weights
