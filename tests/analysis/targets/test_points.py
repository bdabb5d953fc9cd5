"""From journals to languages × steps: sums over blocks, the ratio to the source, the scores of the same step."""

import math

import pytest
from fishlens.analysis.targets import language_points

from fishlens.errors import InputError
from fishlens.journal import JournalWriter, load_runs


@pytest.fixture
def written(tmp_path):
    """A run with two probed steps of one source and two targets."""
    writer = JournalWriter.open(
        tmp_path / "run",
        start={"run": "run", "factors": {"schedule": "gu", "seed": 3}, "blocks": {"a": 1, "b": 1}},
    )

    def probe(step, trace, language=None, **fields):
        record = {
            "trace": trace,
            "examples": 8,
            "purpose": "track",
            "trainable": dict.fromkeys(trace, True),
            **fields,
        }
        writer.write("fisher", step, **record, **({"language": language} if language else {}))

    def score(step, language, value, split="targets", metric="accuracy", headline=True):
        writer.write(
            "eval", step, split=split, language=language, metric=metric, value=value, headline=headline
        )

    for step in (0, 10):
        probe(step, {"a": 1.0, "b": 3.0, "head": 50.0})
        for language, size in (("de", 1.0), ("sw", 2.0)):
            overlap = {"a": 0.2, "b": 0.6, "head": 1.0}
            trace = {"a": size, "b": size + step, "head": 9.0}
            probe(step, trace, language, overlap=overlap, entropy=0.5 * size, atc=70.0)
            score(step, language, 40.0 + step + size)
            score(step, language, 1.0, metric="f1", headline=False)
        score(step, "en", 80.0 + step, split="validation")
    score(20, "de", 99.0)  # scored where nothing was measured
    probe(30, {"a": 1.0, "b": "NaN"}, "de")
    score(30, "de", 77.0)
    writer.close("finished")
    return load_runs(tmp_path / "run")


def test_every_language_and_step_has_its_own_row_without_the_head(written):
    points = language_points(written, {"de": 0.1, "sw": 0.9}).set_index(["language", "step"])
    assert points.index.tolist() == [("de", 0), ("de", 10), ("de", 30), ("sw", 0), ("sw", 10)]
    row = points.loc[("sw", 10)]
    assert (row["trace"], row["ratio"], row["score"], row["source"]) == (14.0, 3.5, 52.0, 90.0)
    assert (row["entropy"], row["atc"], row["distance"]) == (1.0, 70.0, 0.9)
    assert row["overlap"] == pytest.approx(0.4) and math.isnan(row["drift"])
    assert (row["schedule"], row["seed"]) == ("gu", 3)


def test_a_block_that_is_lost_loses_the_sum(written):
    assert math.isnan(language_points(written).set_index(["language", "step"]).loc[("de", 30), "trace"])


def test_a_language_without_a_distance_is_named(written):
    with pytest.raises(InputError, match="there is no distance for sw: it has de"):
        language_points(written, {"de": 0.1})


def test_runs_without_target_probes_or_scores_are_refused(tmp_path):
    JournalWriter.open(tmp_path / "run", start={"run": "run"}).close("finished")
    with pytest.raises(InputError, match="no run has both scores and Fisher information of target languages"):
        language_points(load_runs(tmp_path / "run"))
