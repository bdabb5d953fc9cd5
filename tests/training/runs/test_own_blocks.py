"""Blocks of one's own, the noise scale and validation data, told in a recipe."""

import re

import pytest
import torch

from fishlens.errors import InputError
from fishlens.fisher import Block, estimate_fisher
from fishlens.journal import read_run
from fishlens.training.model import assemble
from fishlens.training.preparation import load_split, prepare_task
from fishlens.training.run import train


@pytest.fixture
def measured(recipe):
    recipe["adapter"] = "double_seq_bn"
    recipe["train"]["steps"] = 2
    recipe["schedule"] = {"name": "standard"}
    blocks = {"attention": "*.attention.output.adapters.*", "top": ["*layer.2.output*", "*layer.3.output*"]}
    recipe["tracking"] = {"every": 2, "examples": 14, "labels": "empirical", "blocks": blocks}
    return recipe


def test_attention_and_the_top_layers_are_measured_as_plain_python_measures_them(measured, tmp_path):
    """The first probe is of the weights that the seed drew: measured again by hand, on the validation split."""
    measured["tracking"] |= {"split": "validation", "noise_scale": True}
    train(measured, tmp_path / "run")
    run = read_run(tmp_path / "run")
    first = next(r for r in run.records if r["kind"] == "fisher")
    assert list(first["trace"]) == ["attention", "top"] == run.blocks
    assert all(first["noise_scale"].values()) and len([r for r in run.records if r["kind"] == "unfreeze"]) == 1

    from fishlens.recipe.loading import load_recipe

    recipe = load_recipe(measured)
    task = prepare_task(recipe)
    assembly = assemble(recipe, task)
    split = load_split(recipe, task, "validation", "en")
    batch = task.collate(task.encode(split, assembly.tokenizer, train=True), assembly.tokenizer)
    named = dict(assembly.model.named_parameters())
    mine = {n: p for n, p in named.items() if ".attention.output.adapters.topic" in n}
    found = estimate_fisher(assembly.model.eval(), batch, blocks=[Block("attention", mine)], labels="empirical")
    assert first["trace"]["attention"] == pytest.approx(found.trace["attention"], rel=1e-4)
    assert torch.is_tensor(batch["input_ids"]) and first["examples"] == len(split) == 14


def test_the_example_of_the_documentation_tells_attention_from_mlp(measured):
    """`*.output.*` alone matches the attention's output too: ! leaves it out, and check shows these very blocks."""
    from fishlens.recipe.loading import describe_fields, load_recipe
    from fishlens.training.check import check_recipe

    shown = re.search(r"attention: '(.*?)', mlp: \['(.*?)', '(.*?)'\]", next(d for f, _, _, d in describe_fields() if f == "tracking.blocks"))
    measured["tracking"]["blocks"] = {"attention": shown[1], "mlp": [shown[2], shown[3]]}
    found = check_recipe(load_recipe(measured)).check
    names = {block: [row.parameter for row in found.coverage if row.block == block] for block in ("attention", "mlp")}
    assert [one.block for one in found.self_checks] == ["attention", "mlp"] and found.passed
    assert all(".attention.output." in name for name in names["attention"]) and len(names["attention"]) == 4 * 4
    assert all(".attention." not in name for name in names["mlp"]) and len(names["mlp"]) == 4 * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": {"a": "*nowhere*"}}, r"tracking.blocks: 'a' matches no parameter that can train"),
        ({"blocks": {"a": "*adapters*", "b": "*layer.0*adapters*"}}, r"'a' and 'b' both match .*layer.0.*begins with !"),
        ({"split": "test"}, "tracking.split is 'test'"),
    ],
)
def test_blocks_that_cannot_be_measured_are_refused(measured, tmp_path, changes, message):
    measured["tracking"] |= changes
    with pytest.raises(InputError, match=message):
        train(measured, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_schedule_that_chooses_by_its_own_blocks_is_not_given_others(measured, tmp_path):
    measured["schedule"] = {"name": "fun", "every": 1}
    with pytest.raises(InputError, match="cannot be measured while the schedule 'fun' chooses"):
        train(measured, tmp_path / "run")
