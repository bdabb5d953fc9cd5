"""A recipe becomes a run directory."""

import json
import re
import shutil

import pytest
from adapters import AutoAdapterModel

from fishlens.errors import InputError
from fishlens.journal import load_runs, read_run
from fishlens.recipe.loading import load_recipe
from fishlens.training.run import train


@pytest.fixture
def result(recipe, tmp_path):
    return train({**recipe, "tracking": {"every": 4, "examples": 8}}, tmp_path / "run")


def test_a_recipe_trains_evaluates_and_leaves_a_journal(result):
    assert result.status == "finished"
    assert (result.step, result.steps) == (8, 8)
    assert set(result.test) == {"en", "de", "es"}
    runs = load_runs(result.run_dir)
    assert runs.runs.status.tolist() == ["finished"]
    assert runs.training.step.tolist() == list(range(1, 9))
    assert runs.training.loss.iloc[-1] < runs.training.loss.iloc[0]
    assert runs.unfreezing[["step", "block"]].values.tolist() == [
        [0, "layer.3"],
        [2, "layer.2"],
        [4, "layer.1"],
        [6, "layer.0"],
    ]
    assert sorted(runs.fisher.step.unique()) == [0, 4, 8]
    assert runs.fisher.block.nunique() == 5  # four layers and the head, frozen or not
    validation = runs.evaluation[runs.evaluation.split == "validation"]
    assert validation.step.tolist() == [4, 8] and set(validation.language) == {"en"}
    test = runs.evaluation[runs.evaluation.split == "test"]
    assert set(test.step) == {result.best_step}


def test_predictions_are_written_and_give_the_reported_score(result):
    for language, scores in result.test.items():
        lines = (result.run_dir / "predictions" / f"{language}.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        right = sum(row["gold"] == row["predicted"] for row in rows)
        assert len(rows) == 14
        assert scores["accuracy"] == pytest.approx(100 * right / 14)


def test_the_exported_adapter_is_the_best_one_and_loads_elsewhere(result, encoder):
    from safetensors.torch import load_file

    model = AutoAdapterModel.from_pretrained(encoder)
    name = model.load_adapter(str(result.run_dir / "adapter"), use_safetensors=True)
    assert name == "topic" and "topic" in model.heads
    best = load_file(result.run_dir / "checkpoints" / f"step-{result.best_step}" / "weights.safetensors")
    here = dict(model.named_parameters())
    assert best and all((here[key] == value).all() for key, value in best.items())


def test_a_finished_run_is_not_run_again(recipe, result):
    again = train({**recipe, "tracking": {"every": 4, "examples": 8}}, result.run_dir)
    assert again == result
    assert read_run(result.run_dir).attempts == 1


def test_a_run_killed_between_its_results_and_its_last_record_is_ended_when_looked_at(recipe, result, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(result.run_dir, place)
    journal = place / "journal-1.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    assert '"kind":"end"' in lines[-1]
    without = [re.sub(r'"began":"[^"]*"', '"began":"gone"', lines[0]), *lines[1:-1]]
    journal.write_text("".join(without))
    again = train(load_recipe(result.run_dir / "recipe.yaml"), place)
    assert again.test == result.test and read_run(place).status == "finished"
    assert load_runs(place).fisher.equals(load_runs(result.run_dir).fisher.assign(run=load_runs(place).fisher.run))


@pytest.mark.parametrize("damage", ["{", "{}", "[]"])
def test_damaged_results_are_one_sentence(result, tmp_path, damage):
    place = tmp_path / "copy"
    shutil.copytree(result.run_dir, place)
    (place / "results.json").write_text(damage)
    with pytest.raises(InputError, match=r"results.json is damaged"):
        train(load_recipe(result.run_dir / "recipe.yaml"), place)
