"""A tracker of several languages: one probe each, a budget over all of them together, labels that nobody looks at."""

import time
from contextlib import contextmanager

import pytest
import torch

from fishlens import InputError, Tracker, estimate_fisher, load_runs
from fishlens.fisher import comparison
from fishlens.journal import read_run


@pytest.fixture
def model(make_model):
    return make_model(layers=2)


def test_every_language_has_its_own_numbers(tmp_path, model, batches):
    data = {"en": batches[:2], "de": batches[2:4], "sw": batches[4]}
    with Tracker(model, data, run=tmp_path / "run", factors={"task": "toy"}) as tracker:
        tracker.step(0)
    runs = load_runs(tmp_path / "run")
    assert runs.runs[["source", "targets", "task"]].iloc[0].tolist() == ["en", "de,sw", "toy"]
    for language, inputs in (("de", batches[2:4]), ("sw", batches[4:5])):
        rows = runs.fisher_series[runs.fisher_series["language"] == language].set_index("block")
        assert rows["trace"].to_dict() == estimate_fisher(model, inputs, diagonal=True).trace
    assert (
        runs.fisher.set_index("block")["trace"].to_dict()
        == estimate_fisher(model, batches[:2], diagonal=True).trace
    )


def test_the_labels_of_a_target_do_not_matter(model, batches):
    found = []
    for change in (0, 1):
        other = {**batches[1], "labels": (batches[1]["labels"] + change) % 3}
        tracker = Tracker(model, {"en": batches[0], "de": other}, labels="mc")
        tracker._destinations.probe = lambda step, fields: found.append(fields["trace"])
        tracker.step(0)
    assert found[1] == found[3] != found[0]


def test_what_is_said_of_the_diagonals_is_of_the_languages_and_steps_it_names(tmp_path, model, batches):
    with Tracker(model, {"en": batches[:2], "de": batches[2:4]}, run=tmp_path / "run", every=1) as tracker:
        estimates = []
        for step in range(2):
            tracker.step(step)
            estimates.append(
                [estimate_fisher(model, data, diagonal=True) for data in (batches[:2], batches[2:4])]
            )
            with torch.no_grad():
                for parameter in estimates[0][0].parameters["layer.0"]:
                    model.get_parameter(parameter).mul_(3)
    runs = load_runs(tmp_path / "run")
    (first, _), (source, target) = estimates
    german = runs.fisher_series[runs.fisher_series["step"] == 1].set_index("block")
    english = runs.fisher[runs.fisher["step"] == 1].set_index("block")
    blocks = source.parameters
    assert german["overlap"].to_dict() == comparison.overlap(source.diagonal, target.diagonal, blocks)
    assert german["rank_overlap"].to_dict() == comparison.rank_overlap(
        source.diagonal, target.diagonal, blocks
    )
    histograms = [comparison.log_histograms(each.diagonal, blocks) for each in (first, source)]
    assert english["drift"].to_dict() == comparison.drift(*histograms)
    assert runs.fisher[runs.fisher["step"] == 0]["drift"].isna().all()  # there was no probe before
    probes = runs.probes.set_index(["step", "language"])
    assert probes.loc[(1, "de"), "entropy"] == pytest.approx(float(target.entropy.mean()))
    assert probes.loc[(1, "de"), "confidence"] == pytest.approx(float(target.confidence.mean()))


def test_a_block_that_is_frozen_is_said_to_be_frozen_in_every_language(tmp_path, model, batches):
    for name, parameter in model.named_parameters():
        if "layer.0." in name:
            parameter.requires_grad_(False)
    with Tracker(model, {"en": batches[0], "de": batches[1]}, run=tmp_path / "run") as tracker:
        tracker.step(0)
    runs = load_runs(tmp_path / "run")
    for frame in (runs.fisher, runs.fisher_series):
        assert frame.set_index("block")["trainable"].to_dict() == {
            "layer.0": False,
            "layer.1": True,
            "head": True,
        }


@pytest.mark.parametrize("labels", ["empirical", "mode"])
def test_labels_that_are_not_the_model_s_own_are_refused_for_targets(model, batches, labels):
    with pytest.raises(InputError, match=rf"labels='{labels}' cannot be measured in target languages \(de\)"):
        Tracker(model, {"en": batches[0], "de": batches[1]}, labels=labels)


@pytest.mark.parametrize(
    "data, message",
    [
        ({"en": [], "de": []}, "the probe set has no batches"),
        ({"en": "first", "de": []}, "language 'de': the probe set has no batches"),
        ({}, "data is a mapping of nothing; expected a batch with tensors, or"),
        ({1: "first"}, "data is a mapping of 1; expected a batch with tensors, or"),
    ],
)
def test_data_that_is_no_batch_and_of_no_language_is_refused(model, batches, data, message):
    data = {language: batches[0] if value == "first" else value for language, value in data.items()}
    with pytest.raises(InputError, match=message):
        Tracker(model, data)


def test_a_language_whose_batch_the_model_cannot_take_is_named_before_the_first_step(model, batches):
    with pytest.raises(InputError, match="language 'de': "):
        Tracker(model, {"en": batches[0], "de": {"input_ids": torch.zeros(0, 6, dtype=torch.long)}})


def test_k_languages_cost_k_probes(model, batches, monkeypatch):
    # (of a LoRA whose B is still zero, a finite difference says whether its zeros are true: more forward passes)
    pytest.importorskip("adapters", reason="needs an adapter without gradients that are zero")
    from fishlens.tracking import instrument as module

    passes = []

    def counting(model, data, **options):
        before = model.passes
        estimate = estimate_fisher(model, data, **options)
        passes.append(model.passes - before)
        return estimate

    real = model.forward

    def forward(*args, **kwargs):
        model.passes += 1
        return real(*args, **kwargs)

    model.passes, model.forward = 0, forward
    tracker = Tracker(model, {"en": batches[:2], "de": batches[2:4], "sw": batches[4:6]})
    monkeypatch.setattr(module, "estimate_fisher", counting)
    model.passes = 0  # those of the trial do not count
    tracker.step(0)
    assert passes == [passes[0]] * 3 and model.passes == sum(passes)


def test_a_budget_is_kept_over_all_languages_together(tmp_path, model, batches, monkeypatch):
    """By a clock of the test's own: a probe takes one second in each language, a step of training ten."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    @contextmanager
    def one_second(language):
        yield
        now[0] += 1.0

    data = {"en": batches[0], **dict.fromkeys("abc", batches[1])}
    trained = [0.0]
    tracker = Tracker(
        model,
        data,
        run=tmp_path / "run",
        every="3%",
        in_language=one_second,
        training_seconds=lambda: trained[0],
    )
    for step in range(100):
        tracker.step(step)
        trained[0] += 10.0
    tracker.close()
    records = [r for r in read_run(tmp_path / "run").records if r["kind"] == "fisher"]
    languages = [r.get("language") for r in records]
    assert languages == [None, *"abc"] * (len(records) // 4)  # never a part of a probe
    spent = sum(r["seconds"] for r in records)
    assert 0.02 * trained[0] < spent <= 0.03 * trained[0]  # nine probes of three seconds in a thousand
    assert len(records) == 4 * 9
