"""A finished run is measured again: with its own settings the same bits, otherwise a series that no curve meets."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from fishlens.cli import app
from fishlens.errors import InputError
from fishlens.journal import load_runs, read_run
from fishlens.recipe.loading import load_recipe
from fishlens.training.measure_run import measure_run
from fishlens.training.run import train

NUMBERS = (
    "trace", "stderr", "weight_norm", "effective_dimension", "noise_scale", "entropy", "confidence",
    "critical_sharpness", "overlap", "rank_overlap", "examples", "language",
)  # fmt: skip


_trained = []


@pytest.fixture
def finished(recipe, tmp_path, tmp_path_factory):
    """A run that followed English and German, with the checkpoints of its steps 2 and 4: trained once, then copied."""
    if not _trained:
        _trained.append(_train(recipe, tmp_path_factory.mktemp("trained") / "run"))
    shutil.copytree(_trained[0], tmp_path / "run")
    return tmp_path / "run"


def _train(recipe, place):
    recipe["data"]["targets"] = ["de"]
    recipe["train"]["steps"] = 4
    recipe["tracking"] = {
        "every": 2, "examples": 8, "labels": "mc", "noise_scale": True, "critical_sharpness": True, "languages": ["de"],
    }  # fmt: skip
    recipe["evaluate"]["every"] = 2
    recipe["checkpoint"] = {"every": 2, "keep": 9}
    train(recipe, place)
    return place


def probes(run, step, **fields):
    records = [r for r in read_run(run).records if r["kind"] == "fisher" and r["step"] == step]
    return [r for r in records if all(r.get(name) == value for name, value in fields.items())]


def test_with_the_same_settings_every_number_is_what_tracking_recorded(finished):
    before = load_runs(finished, tables=["fisher", "training", "evaluation"])
    for step in (2, 4):
        tracked = probes(finished, step, series=None)
        found = measure_run(finished, step=step, series=f"again-{step}")
        again = probes(finished, step, series=found.series)
        assert [r.get("language") for r in again] == [None, "de"]
        for one, other in zip(tracked, again, strict=True):
            assert {n: one.get(n) for n in NUMBERS} == {n: other.get(n) for n in NUMBERS}
            assert other["trace"] and other["purpose"] == "measure"
    after = load_runs(finished, tables=["fisher", "training", "evaluation"])
    for frame in ("fisher", "training", "evaluation"):
        assert getattr(after, frame).equals(getattr(before, frame)), frame
    assert after.runs.status.tolist() == ["finished"] and after.runs.attempts.tolist() == [3]
    assert train(finished / "recipe.yaml", finished).step == 4  # still the same finished run
    with pytest.raises(InputError, match="has a series 'again-4' at step 4 already; choose another name"):
        measure_run(finished, step=4, series="again-4")


def test_a_series_goes_over_several_steps_and_is_measured_in_one_way(finished):
    """Another estimator's curve: one call a checkpoint, under one name."""
    for step in (2, 4):
        measure_run(finished, ["tracking.labels=exact"], step=step, series="exact")
    frame = load_runs(finished).fisher_series.query("series == 'exact'")
    assert sorted(frame["step"].unique()) == [2, 4]
    measure_run(finished, ["tracking.labels=exact"], step=2, series="other")
    for overrides in (["tracking.labels=mc"], ["tracking.labels=exact", "tracking.examples=4"]):
        with pytest.raises(InputError, match=r"has a series 'other' that was measured otherwise: its .* is .*, now"):
            measure_run(finished, overrides, step=4, series="other")
    assert not probes(finished, 4, series="other")


def test_another_language_adapter_is_named_and_makes_another_series(finished):
    own = load_recipe(finished / "recipe.yaml")
    english = own.language_adapter("en")
    changed = [f"language_adapters={{en: {english}, de: {english}}}"]
    notes = measure_run(finished, changed, step=2, series="through English").notes
    source, german = probes(finished, 2, series="through English")
    assert german["estimator"]["language_adapter"] == english and "language_adapter" not in source["estimator"]
    said = f"'de' was measured through the language adapter {english}; the run's is {own.language_adapter('de')}"
    assert said in notes
    with pytest.raises(InputError, match="measured otherwise: its de language_adapter is"):
        measure_run(finished, step=4, series="through English")


def test_the_journal_says_once_which_examples_were_measured_and_they_are_those(finished, data_root):
    tracked = [r for r in probes(finished, 0) + probes(finished, 2) + probes(finished, 4) if "examples_ids" in r]
    assert [(r["step"], r.get("language")) for r in tracked] == [(0, None), (0, "de")]
    ids = tracked[0]["examples_ids"]
    lines = (data_root / "sib200" / "eng_Latn" / "train.tsv").read_text().splitlines()
    by_id = {line.split("\t")[0]: line for line in lines}
    assert len(set(ids)) == 8 and set(ids) <= set(by_id)
    # of these lines alone, in this order, the weights have the same Fisher information
    few = finished.parent / "few.tsv"
    few.write_text("\n".join([lines[0], *(by_id[i] for i in ids)]) + "\n")
    overrides = [f"data.train={few}", "tracking.languages=[]", "tracking.labels=exact"]
    alone = measure_run(finished, overrides, write=False).records[0]
    whole = measure_run(finished, ["tracking.languages=[]", "tracking.labels=exact"], write=False).records[0]
    assert sorted(alone["examples_ids"]) == sorted(ids)
    assert alone["trace"] == pytest.approx(whole["trace"], rel=1e-4)


def test_another_estimator_and_other_blocks_are_a_series_of_their_own(finished):
    command = ["measure", str(finished), "--step", "2", "--labels", "exact", "--examples", "4", "--split", "validation"]
    command += ["--blocks", "low=*layer.0.*", "--blocks", "low=*layer.1.*", "--series", "low", "--json"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0 and json.loads(result.stdout)["series"] == "low"
    (source, german) = probes(finished, 2, series="low")
    assert list(source["trace"]) == ["low"] and source["examples"] == german["examples"] == 4
    assert source["estimator"]["labels"] == "exact" and german["language"] == "de"
    frame = load_runs(finished).fisher_series
    assert frame[frame.series == "low"].block.tolist() == ["low", "low"]
    printed = CliRunner().invoke(app, ["measure", str(finished), "--table"], catch_exceptions=False)
    assert "block (de)" in printed.stdout and read_run(finished).attempts == 2  # nothing more was written


@pytest.mark.parametrize(
    ("overrides", "options", "message"),
    [
        (["train.learning_rate=1"], {}, r"a measurement changes only tracking"),
        ([], {"step": 3}, r"has no step-3: its weights are not there \(there are: 2, 4\)"),
        ([], {"step": 2, "checkpoint": "x"}, r"a step and a checkpoint were given"),
        (["tracking.labels=nonsense"], {}, r"tracking.labels"),
        (["tracking.blocks={a: 'nothing*'}"], {}, r"tracking.blocks: 'a' matches no parameter"),
        (["tracking.languages=[fr]"], {}, r"the language adapter for 'fr'"),
    ],
)
def test_what_cannot_be_measured_is_refused_and_nothing_is_written(finished, overrides, options, message):
    there = sorted(finished.rglob("*"))
    with pytest.raises(InputError, match=message):
        measure_run(finished, overrides, **options)
    assert sorted(finished.rglob("*")) == there
