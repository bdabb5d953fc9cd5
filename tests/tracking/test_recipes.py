"""Our own trainer under the tracker, and the commands that take a recipe."""

import json
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from fishlens import load_runs
from fishlens.cli import app
from fishlens.fisher import find_blocks
from fishlens.tracking.check import check


@pytest.fixture
def recipe_file(recipe, tmp_path):
    recipe["train"] |= {"steps": 6, "accumulate": 2}
    recipe["data"]["targets"] = ["de"]
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def fishlens(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_our_trainer_ends_in_the_same_bits_tracked_or_not(recipe_file, tmp_path):
    """Dropout, accumulation, unfreezing, evaluation: weights, optimizer, random states and every score."""
    folders = [tmp_path / name for name in ("untracked", "tracked")]
    for folder, every in zip(folders, ("null", "2"), strict=True):
        options = ("-s", f"tracking.every={every}", "-s", "tracking.diagonal_at=[2]", "--run", folder)
        assert "finished" in fishlens("track", recipe_file, *options)
    for name in ("weights", "optimizer", "random-0"):
        one, other = (
            load_file(folder / "checkpoints" / "step-6" / f"{name}.safetensors") for folder in folders
        )
        assert one.keys() == other.keys() and len(one) > 0
        for key, value in one.items():
            assert torch.equal(value, other[key]), (name, key)
    untracked, tracked = (load_runs(folder) for folder in folders)
    assert untracked.evaluation.value.tolist() == tracked.evaluation.value.tolist()
    assert untracked.training.loss.tolist() == tracked.training.loss.tolist()
    assert untracked.fisher.empty and sorted(set(tracked.fisher.step)) == [0, 2, 4, 6]
    assert (folders[1] / "diagonals" / "step-2.safetensors").is_file()


def test_check_names_every_parameter_agrees_with_autograd_and_forecasts_the_cost(recipe_file):
    found = json.loads(fishlens("check", recipe_file, "--json"))
    assert found["passed"] and {one["block"] for one in found["self_checks"]} == {
        "layer.0", "layer.1", "layer.2", "layer.3", "head",
    }  # fmt: skip
    assert all(one["error"] <= one["tolerance"] for one in found["self_checks"])
    assert len({row["parameter"] for row in found["coverage"]}) == len(found["coverage"]) > 16
    cost = found["forecast"]
    assert cost["probe_seconds"] > 0 and cost["update_seconds"] > 0 and cost["examples"] == 8
    said = fishlens("check", recipe_file, "-s", "tracking.every=50")
    assert "head: " in said and "agrees with plain autograd" in said and "with a probe every 50 steps" in said


def test_check_says_which_block_is_measured_wrongly(make_model, batches, monkeypatch):
    module = sys.modules["fishlens.fisher.coverage"]
    real = module.estimate_fisher

    def wrong(model, data, *, blocks, **options):
        estimate = real(model, data, blocks=blocks, **options)
        if blocks[0].name == "layer.1":
            estimate.per_example["layer.1"].mul_(1.01)
        return estimate

    monkeypatch.setattr(module, "estimate_fisher", wrong)
    model = make_model()
    found = check(model, batches[:2], batches[0], find_blocks(model))
    assert not found.passed and [one.block for one in found.self_checks if not one.passed] == ["layer.1"]
