"""Probes and scores of target languages: the right numbers, without labels, and training never notices."""

import re
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from fishlens.errors import InputError
from fishlens.fisher.reference import reference_fisher
from fishlens.journal import load_runs, read_run
from fishlens.recipe.loading import load_recipe
from fishlens.training.model import assemble
from fishlens.training.checkpoint import list_checkpoints
from fishlens.training.preparation import prepare_task
from fishlens.training.run import train
from fishlens.training.targets import target_inputs

TRACKED = {"every": 4, "examples": 6, "languages": ["de", "es"]}


def last_weights(place) -> dict[str, torch.Tensor]:
    there = list_checkpoints(place / "checkpoints")
    return load_file(there[max(there)] / "weights.safetensors")


def assert_same_bits(one, other) -> None:
    one, other = last_weights(one), last_weights(other)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def watched(tmp_path_factory, encoder, data_root, language_adapters):
    """A run with target probes and target scores, beside the same run without: dropout is on in both."""
    recipe = {
        "name": "toy", "seed": 5, "model": str(encoder), "adapter": "seq_bn",
        "language_adapters": f"{language_adapters}/{{language}}", "task": {"name": "topic"},
        "data": {"root": str(data_root), "source": "en", "targets": ["de", "es"]},
        "train": {"steps": 8, "batch_size": 16, "learning_rate": 1e-2, "log_every": 1},
        "schedule": {"name": "gu", "every": 2}, "tracking": {"every": None}, "evaluate": {"every": 4},
    }  # fmt: skip
    place = tmp_path_factory.mktemp("watched")
    train(recipe, place / "without")
    scores = {**recipe["evaluate"], "targets": {"every": 3, "examples": 10}}
    train({**recipe, "tracking": TRACKED, "evaluate": scores}, place / "with")
    return place


def test_a_run_with_target_probes_and_scores_ends_in_the_same_bits_as_one_without(watched):
    assert_same_bits(watched / "with", watched / "without")
    one, other = (read_run(watched / name).end["best_step"] for name in ("with", "without"))
    assert one == other


def test_every_probe_measures_every_language_and_readers_keep_them_apart(watched):
    runs = load_runs(watched / "with")
    measured = runs.fisher_series.groupby(["step", "language"], observed=True).size()
    assert measured.index.tolist() == [(step, language) for step in (0, 4, 8) for language in ("de", "es")]
    assert (measured == 5).all() and (runs.fisher_series["examples"] == 6).all()
    assert runs.fisher.groupby("step").size().tolist() == [5, 5, 5]  # of the source alone
    assert (runs.fisher_series["trace"] > 0).all()


def test_languages_can_be_measured_less_often_than_the_source(watched, recipe, tmp_path):
    seldom = recipe | {"tracking": TRACKED | {"every": 2, "languages_every": 4}}
    train(seldom, tmp_path / "seldom")
    runs, often = load_runs(tmp_path / "seldom"), load_runs(watched / "with")
    steps = sorted(runs.fisher["step"].unique())
    assert steps == list(range(0, steps[-1] + 1, 2))
    assert sorted(runs.fisher_series["step"].unique()) == [step for step in steps if step % 4 == 0]
    assert often.fisher_series["language"].nunique() == runs.fisher_series["language"].nunique()


def test_the_labels_are_never_the_data_s(watched):
    records = [r for r in read_run(watched / "with").records if r["kind"] == "fisher" and r.get("language")]
    start = read_run(watched / "with").start["estimator"]
    assert {r.get("estimator", start)["labels"] for r in records} <= {"exact", "mc"}


def test_target_scores_over_training_are_of_the_same_rows_and_the_run_says_that_they_choose_nothing(watched):
    rows = load_runs(watched / "with").evaluation
    over_training = rows[rows["split"] == "targets"]
    assert over_training["step"].unique().tolist() == [0, 3, 6, 8]
    assert set(over_training["language"]) == {"de", "es"} and (over_training["examples"] == 10).all()
    assert not over_training["best"].any()
    final = rows[rows["split"] == "test"].groupby("language", observed=True).size()
    assert (final == 1).all()  # the final test is what it was
    notes = load_runs(watched / "with").notes["text"]
    assert notes.str.contains("de, es are scored every 3 steps: these scores choose nothing").any()


def of_double_precision(recipe, language: str):
    """(model, blocks, batch) of a recipe at its first step, in float64."""
    recipe = load_recipe(recipe)
    task = prepare_task(recipe)
    assembly = assemble(recipe, task)
    assembly.model.double().eval()
    rows = target_inputs(recipe, task, assembly.tokenizer, language, recipe.tracking.examples).rows
    return task, assembly, task.collate(rows, assembly.tokenizer)


@pytest.mark.parametrize("labels", ["exact", "mc"])
def test_the_numbers_of_a_language_are_the_reference_s_through_its_own_adapter(recipe, labels):
    from fishlens.tracking.tracker import Tracker

    settings = {**recipe, "tracking": {**TRACKED, "labels": labels}}
    task, assembly, batch = of_double_precision(settings, "de")
    spanish = of_double_precision(settings, "es")[2]
    tracker = Tracker(
        assembly.model,
        {"en": task.unlabelled(batch), "de": task.unlabelled(batch), "es": task.unlabelled(spanish)},
        blocks=assembly.blocks, labels=labels, in_language=assembly.in_language,
    )  # fmt: skip
    written = {}
    tracker._destinations.probe = lambda step, fields: written.update({fields.get("language"): fields})
    tracker.step(0)
    assert assembly.model.active_adapters == assembly.setup("en")
    for language, inputs in (("de", batch), ("es", spanish)):
        assembly.activate_language(language)
        expected = reference_fisher(assembly.model, inputs, blocks=assembly.blocks, labels=labels)
        for block, trace in expected.trace.items():
            assert written[language]["trace"][block] == pytest.approx(trace, rel=1e-9)
    assert written["de"]["trace"] != written[None]["trace"]  # the same rows through the source's adapter


def test_an_exception_in_a_target_probe_loses_that_probe_alone_and_restores_everything(
    recipe, tmp_path, monkeypatch
, capsys):
    from fishlens.training.madx import MadX as Assembly

    real = Assembly.in_language

    @contextmanager
    def failing(self, language):
        with real(self, language):
            yield
            if language == "de" and failing.armed:
                torch.manual_seed(99)  # what a probe must never do
                raise RuntimeError("out of luck")

    failing.armed = False
    monkeypatch.setattr(Assembly, "in_language", failing)
    settings = {**recipe, "tracking": TRACKED}
    train({**recipe, "tracking": {"every": None}}, tmp_path / "without")

    def arm(step):
        failing.armed = step < 7

    train(settings, tmp_path / "with", on_step=arm)
    said = capsys.readouterr().err
    assert "the probe at step 4 in 'de' is lost, training goes on: RuntimeError: out of luck" in said
    lost = [r for r in read_run(tmp_path / "with").records if r["kind"] == "fisher" and r["lost"]]
    assert [(r["step"], r["language"]) for r in lost] == [(4, "de")]
    assert_same_bits(tmp_path / "with", tmp_path / "without")


def test_the_set_up_is_restored_also_after_an_exception(recipe):
    recipe = load_recipe(recipe)
    assembly = assemble(recipe, prepare_task(recipe))
    before = assembly.model.active_adapters
    with pytest.raises(RuntimeError, match="in between"), assembly.in_language("de"):
        assert assembly.model.active_adapters == assembly.setup("de") != before
        raise RuntimeError("in between")
    assert assembly.model.active_adapters == before


def test_raw_text_is_measured_as_the_inputs_it_makes(recipe, tmp_path):
    for language, text in {"de": "eins zwei\n\ndrei\n", "es": "uno dos tres\ncuatro\n"}.items():
        (tmp_path / f"{language}.txt").write_text(text, encoding="utf-8")
    settings = {**recipe, "tracking": {**TRACKED, "text": str(tmp_path / "{language}.txt")}}
    train(settings, tmp_path / "run")
    runs = load_runs(tmp_path / "run")
    assert (runs.fisher_series["examples"] == 2).all()
    assert runs.notes["text"].str.contains(f"'de': .* measured on {tmp_path / 'de.txt'}, without labels").any()


@pytest.mark.parametrize(
    "tracking, message",
    [
        ({"languages": ["de", "fr"]}, "the language adapter for 'fr' .* does not exist"),
        ({"languages": "target"}, "tracking.languages is 'target'; expected a list of languages, or 'targets'"),
        ({"languages": ["en"]}, "tracking.languages names the source 'en', which is measured in any case"),
        ({"languages": ["de"], "labels": "empirical"}, "labels='empirical' cannot be measured in a target language"),
        ({"languages": ["de"], "preset": "published"}, "preset='published' cannot be measured in a target language"),
        ({"languages": ["de"], "every": None}, "tracking.every is null: nothing is measured"),
        ({"languages": ["de"], "text": "de.txt"}, "tracking.text is 'de.txt': put {language} where"),
        ({"languages": [], "text": "{language}.txt"}, "tracking.languages names no language"),
        ({"languages": ["de"], "text": "nowhere/{language}.txt"}, "'de' of tracking.languages has no text: .* file"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_said_before_anything_is_written(recipe, tmp_path, tracking, message):
    settings = {**recipe, "tracking": {"every": 4, **tracking}}
    with pytest.raises(InputError, match=message if "*" in message else re.escape(message)):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_language_without_inputs_is_named(recipe, tmp_path):
    settings = {**recipe, "language_adapters": None, "tracking": {"every": 4, "languages": ["fr"]}}
    with pytest.raises(InputError, match=r"language 'fr' of tracking.languages has no text: no test data .*sib200"):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_source_s_own_file_is_not_text_of_a_target_language(recipe, tmp_path, data_root):
    """data.validation is one file: its examples are the source's, and the language's own test inputs are taken."""
    english = next(data_root.glob("sib200/eng_Latn/dev.tsv"))
    data = {**recipe["data"], "validation": str(english)}
    settings = load_recipe({**recipe, "data": data, "tracking": {"every": 4, "languages": ["de"]}})
    task = prepare_task(settings)
    tokenizer = assemble(settings, task).tokenizer
    assert "deu_Latn/test.tsv" in target_inputs(settings, task, tokenizer, "de", 4).source

    only = {**data, "targets": ["de"], "test": {"en": str(english), "de": str(english)}}
    alike = load_recipe({**recipe, "data": only, "tracking": {"every": 4, "languages": ["de"]}})
    with pytest.raises(InputError, match=r"'de' .* has no text: data.test is .*dev.tsv, whose examples are those of"):
        target_inputs(alike, prepare_task(alike), tokenizer, "de", 4)


def test_text_that_the_tokenizer_does_not_know_is_refused_with_its_share(recipe, tmp_path):
    (tmp_path / "de.txt").write_text("ぬぬぬa\n", encoding="utf-8")
    settings = {**recipe, "tracking": {"every": 4, "languages": ["de"], "text": str(tmp_path / "{language}.txt")}}
    with pytest.raises(InputError, match=r"'de': the tokenizer makes 75% of .*de.txt <unk>; expected at most 50%"):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()
