"""The bundled recipes of newer models, each on a tiny random model of its architecture, from the first row to the test."""

import json
import random

import pytest
import torch
import transformers

from fishlens import estimate_fisher
from fishlens.errors import InputError
from fishlens.fisher.coverage import AGAIN, ONE_AT_A_TIME
from fishlens.journal import load_runs
from fishlens.recipe import load_recipe
from fishlens.recipe.loading import recipe_text
from fishlens.training.check import check_recipe
from fishlens.training.model import assemble
from fishlens.training.preparation import load_split, prepare_task
from fishlens.training.run import train

SIZES = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 200, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
MODERNBERT = {"global_attn_every_n_layers": 3, "local_attention": 16, "cls_token_id": 0, "sep_token_id": 2}
MODELS = {  # recipe -> class of the configuration, class of the checkpoint, what it says
    "xnli-mdeberta": ("DebertaV2Config", "AutoModel", {
        "relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0}),
    "xnli-mmbert": ("ModernBertConfig", "AutoModelForMaskedLM", MODERNBERT),
    "xnli-modernbert": ("ModernBertConfig", "AutoModelForMaskedLM", MODERNBERT),
    "xnli-eurobert": ("EuroBertConfig", "AutoModelForMaskedLM", {"num_key_value_heads": 1}),
    "xnli-qwen3": ("Qwen3Config", "AutoModelForCausalLM", {
        "num_key_value_heads": 1, "head_dim": 8, "tie_word_embeddings": True}),
}  # fmt: skip
WORDS = ("sun", "rain", "tree", "road", "bird", "snow")


@pytest.fixture(scope="session")
def nli_root(tmp_path_factory):
    """MultiNLI's and XNLI's layout with made-up pairs."""
    root = tmp_path_factory.mktemp("nli")
    draw = random.Random(0)
    for name, rows in (("mnli/train-en", 24), ("xnli/dev-en", 9), ("xnli/test-en", 9), ("xnli/test-de", 9)):
        lines = []
        for i in range(rows):
            label = ("entailment", "neutral", "contradiction")[i % 3]
            lines.append(f"{draw.choice(WORDS)} {draw.choice(WORDS)}\tno {draw.choice(WORDS)}\t{label}\n")
        path = root / f"{name}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
    return root


@pytest.fixture
def bundled(nli_root, tokenizer, tmp_path):
    """(name, overrides) -> the bundled recipe on a tiny random model, four updates long."""

    def make(name, *overrides):
        config, loader, sizes = MODELS[name]
        if not hasattr(transformers, config):
            pytest.skip(f"transformers {transformers.__version__} has no {config}")
        torch.manual_seed(0)
        config = getattr(transformers, config)(**SIZES, **sizes)
        place = tmp_path / "model"
        getattr(transformers, loader).from_config(config).save_pretrained(place)
        tokenizer.save_pretrained(place)
        settings = [
            f"model={place}", f"data.root={nli_root}", "data.targets=[de]", "train.steps=7", "train.batch_size=4",
            "train.log_every=1", "train.learning_rate=1e-2", "schedule.every=2", "tracking.every=2",
            "tracking.examples=4", "evaluate.every=7",
        ]  # fmt: skip
        if name == "xnli-mdeberta":
            settings.append(f"language_adapters={language_adapters(place, tmp_path)}")
        return load_recipe(name, overrides=[*settings, *overrides])

    return make


def language_adapters(place, tmp_path):
    adapters = pytest.importorskip("adapters", reason="needs the library adapters (pip install 'fishlens[madx]')")
    model = adapters.AutoAdapterModel.from_pretrained(place)
    (tmp_path / "languages").mkdir()
    for language in ("en", "de"):
        model.add_adapter(language, config="seq_bn_inv")
        model.save_adapter(str(tmp_path / "languages" / language), language, with_head=False, use_safetensors=True)
    return str(tmp_path / "languages") + "/{language}"


@pytest.mark.parametrize("name", MODELS)
def test_it_thaws_top_down_measures_every_block_and_is_scored_in_every_language(name, bundled, watched, tmp_path):
    recipe = bundled(name)
    result = train(recipe, tmp_path / "run")
    assert set(result.test) == {"en", "de"}
    head = set() if name == "xnli-qwen3" else {"head"}
    layers = ["layer.2", "layer.1", "layer.0"]
    for step, seen in enumerate(watched):
        thawed = set(layers[: min(step // 2 + 1, 3)]) | head
        assert seen["moved"] == seen["gradient"] == thawed, f"update {step}"
    fisher = load_runs(tmp_path / "run").fisher
    assert set(fisher.block) == {*layers, *head}
    assert fisher.trace.gt(0).all()


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_that_trains_has_a_rule_and_every_block_agrees_with_autograd(name, bundled):
    found = check_recipe(bundled(name)).check
    assert found.passed and len(found.self_checks) == (3 if name == "xnli-qwen3" else 4)
    assert not {row.rule for row in found.coverage} & {ONE_AT_A_TIME, AGAIN}


def test_check_all_checks_every_parameter_for_itself_on_every_example(bundled, tmp_path):
    from typer.testing import CliRunner

    from fishlens.cli import app

    recipe = bundled("xnli-qwen3")
    (tmp_path / "recipe.yaml").write_text(recipe_text(recipe), encoding="utf-8")
    said = CliRunner().invoke(app, ["check", str(tmp_path / "recipe.yaml"), "--all", "--json"])
    checks = json.loads(said.stdout)["self_checks"]
    assert said.exit_code == 0 and all(one["passed"] for one in checks)
    assert {one["block"]: one["examples"] for one in checks} == {f"layer.{i}": 16 for i in range(3)}


@pytest.mark.parametrize("schedule", ["fun", "standard", "random", "gu-reverse", "auto-rgn"])
def test_the_decoder_trains_by_every_schedule_that_thaws_a_block_at_once(schedule, bundled, tmp_path):
    recipe = bundled("xnli-qwen3", f"schedule.name={schedule}")
    assert train(recipe, tmp_path / "run").status == "finished"
    from peft import PeftModel

    base = transformers.AutoModelForCausalLM.from_pretrained(recipe.model)
    PeftModel.from_pretrained(base, tmp_path / "run" / "adapter")


def test_without_a_head_a_schedule_that_begins_with_it_alone_is_refused(bundled, tmp_path):
    with pytest.raises(InputError, match="'lpft' thaws no block at step 0 and this model has no head"):
        train(bundled("xnli-qwen3", "schedule.name=lpft"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_label_is_as_likely_as_its_answer_after_the_prompt(bundled):
    """Row by row, unpadded, token by token: Σ log p; cutting and padding change nothing of it."""
    recipe = bundled("xnli-qwen3", "task.prompt='{text}? {second}:'")
    task = prepare_task(recipe)
    made = assemble(recipe, task)
    model, tokenizer = made.model.double().eval(), made.tokenizer
    split = load_split(recipe, task, "test", "de")
    features = task.encode(split, tokenizer, train=False)
    batch = task.collate(features, tokenizer)
    with torch.no_grad():
        found = model(**batch).logits
        for n, example in enumerate(split):
            for c, answer in enumerate(("True", "Neither", "False")):
                prompt = f"{example.first}? {example.second}:"
                ids = tokenizer(f"{prompt} {answer}")["input_ids"][:-1]  # one token a character, less </s>
                log_p = model.lm(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
                places = range(len(ids) - len(answer) - 1, len(ids))
                expected = sum(log_p[t - 1, ids[t]] for t in places)
                assert torch.isclose(found[n, c], expected, rtol=1e-6)  # Qwen's norms are float32


def test_too_long_a_prompt_loses_its_beginning_before_every_answer_alike(bundled):
    recipe = bundled("xnli-qwen3")
    task = prepare_task(recipe)
    tokenizer = assemble(recipe, task).tokenizer
    features = task.encode(load_split(recipe, task, "test", "de"), tokenizer, max_length=30, train=False)
    for feature in features:
        prompts = {tuple(row["input_ids"][: len(row["input_ids"]) - row["answer"]]) for row in feature["choices"]}
        assert len(prompts) == 1 and len(prompts.pop()) == 30 - len(" Neither")
        assert [tokenizer.decode(row["input_ids"][-1:]) for row in feature["choices"]] == ["e", "r", "e"]
    with pytest.raises(InputError, match="an answer of 8 tokens and a prompt"):
        task.encode(load_split(recipe, task, "test", "de"), tokenizer, max_length=9, train=False)


def test_the_fisher_information_of_the_answers_is_that_of_plain_autograd(bundled):
    recipe = bundled("xnli-qwen3")
    task = prepare_task(recipe)
    made = assemble(recipe, task)
    model = made.model.double().eval()
    with torch.no_grad():
        for parameter in made.parameters().values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    split = load_split(recipe, task, "test", "de")
    batch = task.collate(task.encode(split, made.tokenizer, train=False)[:4], made.tokenizer)
    found = estimate_fisher(model, batch, blocks=made.blocks, labels="exact", output=task.output).per_example
    for n in range(4):
        alone = {key: value[n : n + 1] for key, value in batch.items()}
        log_p = model(**alone).logits[0].log_softmax(-1)
        for block in made.blocks:
            expected = sum(
                log_p[c].exp().detach()
                * sum(
                    g.square().sum()
                    for g in torch.autograd.grad(log_p[c], [*block.parameters.values()], retain_graph=True)
                )
                for c in range(3)
            )
            assert torch.isclose(found[block.name][n], expected.to(found[block.name]), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.prompt='Is it so?'", r"prompt is 'Is it so\?'; expected text with \{text\}"),
        ("task.prompt='{text} {third}'", "prompt is '{text} {third}'"),
        ("task.prompt='{text'", "prompt is '{text'"),
        ("task.answers={entailment: Yes}", "expected a text for each of entailment, neutral, contradiction"),
        ("task.answers={entailment: a, neutral: a, contradiction: b}", "two labels have the same answer"),
        ("adapter=seq_bn", "set adapter=peft:lora"),
    ],
)
def test_prompts_and_answers_that_do_not_fit_are_named(override, message, bundled, tmp_path):
    if override == "adapter=seq_bn":
        pytest.importorskip("adapters")
    with pytest.raises(InputError, match=message):
        train(bundled("xnli-qwen3", override), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_encoder_is_not_asked_for_the_likelihood_of_answers(bundled, tokenizer, tmp_path):
    config = transformers.XLMRobertaConfig(**SIZES)
    transformers.XLMRobertaForMaskedLM(config).save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    with pytest.raises(InputError, match="a xlm-roberta in which a token sees those after it"):
        train(bundled("xnli-qwen3", f"model={tmp_path / 'encoder'}", "adapter=peft:lora"), tmp_path / "run")


def test_an_architecture_that_this_transformers_lacks_is_named_with_the_version(bundled, tmp_path):
    recipe = bundled("xnli-mmbert")
    path = tmp_path / "model" / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "model_type": "tomorrow", "auto_map": {"AutoModel": "code.Model"}}))
    with pytest.raises(InputError, match=f"is a tomorrow, which transformers {transformers.__version__} does not have"):
        train(recipe, tmp_path / "run")
