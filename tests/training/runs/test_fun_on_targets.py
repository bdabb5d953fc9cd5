"""FUN on targets: the order of thawing is what tr(F) on the targets' unlabelled examples says."""

import pytest

from fishlens.errors import InputError
from fishlens.journal import read_run
from fishlens.training.run import train


@pytest.fixture
def settings(recipe):
    schedule = {"name": "fun", "every": 2, "first": "select", "scores": "targets"}
    return {**recipe, "schedule": schedule, "tracking": {"every": 4, "examples": 6, "languages": "targets"}}


def test_each_event_thaws_the_frozen_block_of_largest_trace_over_all_targets_together(settings, tmp_path):
    train(settings, tmp_path / "run")
    records = read_run(tmp_path / "run").records
    events = [r for r in records if r["kind"] == "unfreeze"]
    thawed = []
    for event in events:
        measured = [r["trace"] for r in records if r["kind"] == "fisher" and r.get("language") and r["step"] == event["step"]]
        assert len(measured) == 2  # tracked or selected, never both
        mean = {block: (measured[0][block] + measured[1][block]) / 2 for block in measured[0] if block != "head"}
        assert {b: event["scores"][b] for b in mean} == pytest.approx(mean, rel=1e-9)
        frozen = [block for block in mean if block not in thawed]
        assert event["chosen"] == [max(frozen, key=mean.__getitem__)] and event["examples"] == 12
        thawed += event["chosen"]
    assert len(thawed) == 4


def test_it_needs_no_tracking_but_languages(settings, tmp_path):
    settings["tracking"]["every"] = None
    train(settings, tmp_path / "run")
    probes = [r for r in read_run(tmp_path / "run").records if r["kind"] == "fisher"]
    assert {r["purpose"] for r in probes} == {"select"} and all(r["language"] for r in probes)
    settings["tracking"] = {"every": 4}
    with pytest.raises(InputError, match="schedule.scores is 'targets', but tracking.languages names no language"):
        train(settings, tmp_path / "other")
    settings["schedule"]["scores"] = "everybody"
    with pytest.raises(InputError, match="schedule.scores is 'everybody'; expected 'source' or 'targets'"):
        train(settings, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_plateau_of_the_targets_trace_ends_the_intervention_also_after_an_interruption(settings, tmp_path):
    schedule = {"name": "gu", "every": 2, "until": "plateau", "patience": 1, "tolerance": 0.99}
    settings |= {"schedule": schedule | {"scores": "targets"}, "checkpoint": {"every": 1}}
    train(settings, tmp_path / "run")
    events = [r for r in read_run(tmp_path / "run").records if r["kind"] == "unfreeze"]
    assert [len(event["chosen"]) for event in events] == [1, 3]
    assert events[1]["ended"] == "plateau of tr(F), targets: 1 changes of at most 0.99"
    assert events[0]["examples"] == 12 and events[0].get("ended") is None

    def stop(step: int) -> None:
        if step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "again", on_step=stop)
    train(settings, tmp_path / "again")
    again = [r for r in read_run(tmp_path / "again").records if r["kind"] == "unfreeze"]
    assert [(e["step"], e["chosen"], e["scores"]) for e in again] == [(e["step"], e["chosen"], e["scores"]) for e in events]
