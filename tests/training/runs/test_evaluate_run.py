"""A training that is over is tested again; what was known stays, and nothing is trained."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from fishlens.cli import app
from fishlens.errors import InputError
from fishlens.journal import load_runs, read_run
from fishlens.recipe.loading import load_recipe
from fishlens.training.checkpoint import list_checkpoints
from fishlens.training.evaluate_run import evaluate_run
from fishlens.training.run import train


@pytest.fixture
def finished(recipe, tmp_path):
    """A run that was tested in English and German."""
    recipe["data"]["targets"] = ["de"]
    recipe["train"]["steps"] = 4
    train(recipe, tmp_path / "run")
    return tmp_path / "run"


def test_a_new_language_is_added_to_the_results_and_nothing_else_changes(finished):
    before = load_runs(finished)
    weights = {p: p.read_bytes() for p in (finished / "checkpoints").rglob("*.safetensors")}
    old = json.loads((finished / "results.json").read_text())["test"]
    result = evaluate_run(finished, ["data.targets=[es]", "data.test_source=false"])
    assert set(result.test) == {"en", "de", "es"} and {k: result.test[k] for k in old} == old
    after = load_runs(finished)
    for frame in ("training", "fisher", "unfreezing"):
        assert getattr(after, frame).equals(getattr(before, frame)), frame
    test = after.evaluation[after.evaluation.split == "test"]
    assert sorted(test.language) == ["de", "en", "es"]
    assert after.runs.status.tolist() == ["finished"] and after.runs.attempts.tolist() == [2]
    assert {p: p.read_bytes() for p in weights} == weights
    assert (finished / "predictions" / "es.jsonl").is_file()
    assert train(finished / "recipe.yaml", finished).test == result.test  # still the same finished run


def test_a_language_tested_again_has_the_new_score_and_the_old_predictions_stay(finished, tmp_path):
    predictions = (finished / "predictions" / "de.jsonl").read_text()
    other = tmp_path / "other.tsv"
    other.write_text("index_id\tcategory\ttext\n1\ttravel\tabctravel\n")
    result = evaluate_run(finished, [f"data.test={{de: {other}}}", "data.test_source=false"])
    again = read_run(finished).records
    (score,) = [r for r in again if r["kind"] == "eval" and r["split"] == "test" and r["language"] == "de"]
    assert score["examples"] == 1 and score["value"] == result.test["de"]["accuracy"]
    assert (finished / "predictions" / "de.jsonl").read_text() == predictions
    assert len((finished / "predictions/attempt-2/de.jsonl").read_text().splitlines()) == 1
    assert any("tested again: 'de' on" in r["text"] for r in again if r["kind"] == "note")


def test_the_journal_says_through_which_language_adapter_a_language_was_tested(finished, tmp_path):
    other = load_recipe(finished / "recipe.yaml").language_adapter("en")
    evaluate_run(finished, [f"language_adapters={{en: {other}, de: {other}}}", "data.test_source=false"])
    (note,) = [r["text"] for r in read_run(finished).records if r["kind"] == "note" and "again" in r["text"]]
    assert f"through the language adapter {other}, where accuracy was" in note


def test_a_training_whose_test_failed_is_finished_by_it(recipe, tmp_path, monkeypatch):
    recipe["data"]["targets"] = ["de"]
    recipe["train"]["steps"] = 4
    with monkeypatch.context() as patch:
        patch.setattr("fishlens.training.run.score_language", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(recipe, tmp_path / "run")
    assert read_run(tmp_path / "run").status == "failed"
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run"), "--json"], catch_exceptions=False)
    assert result.exit_code == 0 and set(json.loads(result.output)["test"]) == {"en", "de"}
    assert read_run(tmp_path / "run").status == "finished" and (tmp_path / "run" / "adapter").is_dir()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.learning_rate=1", r"train.learning_rate is 1.0, and .* was trained with 0.01: a test changes only"),
        ("task.name=nli", r"task.name is 'nli', and .* was trained with 'topic'"),
        ("data.source=de", r"data.source is 'de'"),
        ("data.targets=[fr]", r"the language adapter for .fr. .* does not exist"),
        ("data.test=nowhere/{language}.tsv", r"no test data for language 'en'; expected .*nowhere/en.tsv"),
    ],
)
def test_what_cannot_be_tested_is_refused_and_nothing_is_written(finished, override, message):
    there = sorted(finished.rglob("*"))
    with pytest.raises(InputError, match=message):
        evaluate_run(finished, [override])
    assert sorted(finished.rglob("*")) == there


def test_a_training_that_is_not_over_is_sent_back_to_track(recipe, tmp_path):
    recipe["evaluate"]["every"] = 2

    def stop(step):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run", on_step=stop)
    assert list_checkpoints(tmp_path / "run" / "checkpoints")
    with pytest.raises(InputError, match=r"is trained until step 2 of 8: `fishlens track .*run` goes on"):
        evaluate_run(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(InputError, match="has no checkpoint: there are no weights to test"):
        evaluate_run(tmp_path / "run")
    with pytest.raises(InputError, match="holds no run by a recipe"):
        evaluate_run(tmp_path)
