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
from fishlens.errors import InputError
from fishlens.fisher import find_blocks
from fishlens.tracking.check import check
from fishlens.tracking.memory import peak_of


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
        options = ("-s", f"tracking.every={every}", "-s", "tracking.diagonals=[2]", "--run", folder)
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
    found = json.loads(fishlens("check", recipe_file, "-s", "tracking.every=4", "--json"))
    assert found["passed"] and {one["block"] for one in found["self_checks"]} == {
        "layer.0", "layer.1", "layer.2", "layer.3", "head",
    }  # fmt: skip
    assert all(one["error"] <= one["tolerance"] for one in found["self_checks"])
    assert len({row["parameter"] for row in found["coverage"]}) == len(found["coverage"]) > 16
    cost = found["forecast"]
    assert cost["probe_seconds"] > 0 and cost["update_seconds"] > 0 and cost["examples"] == 8
    assert cost["memory"] is None or cost["memory"] >= 0
    said = fishlens("check", recipe_file, "-s", "tracking.every=50")
    assert "head: " in said and "agrees with plain autograd" in said and "with a probe every 50 steps" in said
    assert "nothing is tracked: tracking.every is null" in fishlens("check", recipe_file)


def test_check_reads_every_split_in_every_language_and_says_what_the_model_is_given(recipe_file):
    rows = json.loads(fishlens("check", recipe_file, "--json"))["splits"]
    assert [(row["split"], row["language"], row["examples"]) for row in rows] == [
        ("train", "en", 40), ("validation", "en", 14), ("test", "en", 14), ("test", "de", 14),
    ]  # fmt: skip
    # one token per character, spaces included; the longest text has 22
    assert all(row["tokens_per_word"] > 4 and row["unknown"] == 0 and row["cut"] == 0 for row in rows)
    short = json.loads(fishlens("check", recipe_file, "-s", "train.max_length=5", "--json"))["splits"]
    assert all(row["cut"] == 1 for row in short)
    shown = fishlens("check", recipe_file).splitlines()
    assert shown[0].split() == [
        "language",
        "split",
        "examples",
        "tokens",
        "per",
        "word",
        "<unk>",
        "cut",
        "rows",
        "file",
    ]
    assert "de" in shown[4] and "deu_Latn/test.tsv" in shown[4]


def test_check_prices_what_will_be_run(recipe_file, recipe, data_root):
    """The preset's 41 batches, not tracking.examples; and every language that a probe measures."""
    preset = ("-s", "tracking.every=2", "-s", "tracking.preset=published", "-s", "train.batch_size=1")
    lines = (data_root / "sib200" / "eng_Latn" / "train.tsv").read_text().splitlines()
    longer = recipe_file.parent / "longer.tsv"
    longer.write_text(
        "\n".join([*lines, *(f"{100 + i}{line[line.index(chr(9)) :]}" for i, line in enumerate(lines[1:]))])
    )
    found = json.loads(fishlens("check", recipe_file, *preset, "-s", f"data.train={longer}", "--json"))
    assert found["forecast"]["examples"] == 41
    targets = ("-s", "tracking.every=2", "-s", "tracking.languages=targets")
    assert json.loads(fishlens("check", recipe_file, *targets, "--json"))["forecast"]["examples"] == 16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["tracking.preset=published", "tracking.labels=mc"], "measures with labels='mode', not 'mc'"),
        (["schedule.order=[1]"], "schedule"),
        (["task.types=[X]"], "task 'topic' has no option 'types'"),
        (["data.test={de: nowhere.tsv}"], "no test data"),
        (["language_adapters=/nowhere/{language}"], "does not exist"),
        (["train.examples=41"], "41 examples were asked for"),
    ],
)
def test_check_refuses_what_track_refuses_in_the_same_words(recipe_file, tmp_path, settings, message):
    said = []
    for command in (["check"], ["track", "--run", str(tmp_path / "run")]):
        options = [word for setting in ["tracking.every=2", *settings] for word in ("-s", setting)]
        result = CliRunner().invoke(app, [*command, str(recipe_file), *options])
        assert isinstance(result.exception, InputError), result.output
        said.append(str(result.exception))
    assert said[0] == said[1] and message in said[0]
    assert not (tmp_path / "run").exists()


def test_check_runs_a_metric_of_ones_own_only_where_it_is_trusted(recipe_file, monkeypatch):
    monkeypatch.setattr("fishlens.own_code._trusted", set())
    result = CliRunner().invoke(app, ["check", str(recipe_file), "-s", "task.metrics=[my_metrics:score]"])
    assert "task.metrics[0] is my_metrics:score: that is code, and nothing of it was run" in str(
        result.exception
    )


def test_memory_is_what_an_action_takes_on_top():
    peak = peak_of(lambda: torch.ones(2**23).sum(), torch.device("cpu"))
    assert peak is None or 2**24 < peak < 2**28  # 32 MiB


def test_check_says_which_block_is_measured_wrongly(make_model, batches, monkeypatch):
    module = sys.modules["fishlens.fisher.coverage"]
    real = module.estimate_fisher

    def wrong(model, data, *, blocks, **options):
        estimate = real(model, data, blocks=blocks, **options)
        estimate.per_example["layer.1"].mul_(1.01)
        return estimate

    monkeypatch.setattr(module, "estimate_fisher", wrong)
    model = make_model()
    found = check(model, batches[:2], batches[0], find_blocks(model))
    assert not found.passed and [one.block for one in found.self_checks if not one.passed] == ["layer.1"]
