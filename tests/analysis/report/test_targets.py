"""The section of target languages: what it says when they were followed, and when they were not."""

import pytest
from fishlens.analysis.report import build_report, to_html

from fishlens.journal import JournalWriter, load_runs


@pytest.fixture
def followed(tmp_path):
    """Six seeds of two probed steps in six languages; the trace tells the score, entropy tells nothing."""
    for seed in range(6):
        start = {
            "run": f"s{seed}",
            "factors": {"schedule": "gu", "seed": seed, "source": "en"},
            "blocks": {"a": 1},
        }
        writer = JournalWriter.open(tmp_path / f"s{seed}", start=start)
        for step in (0, 10, 20):
            common = {"examples": 8, "purpose": "track", "trainable": {"a": True}}
            writer.write("fisher", step, trace={"a": 2.0}, **common)
            writer.write(
                "eval", step, split="validation", language="en", metric="m", value=80.0 + step, headline=True
            )
            for place, language in enumerate("abcdef"):
                size = 1.0 + place + 0.4 * ((7 * seed + 3 * place + step) % 5)
                entropy = ((5 * place + 3 * seed + step) % 7) / 7
                writer.write("fisher", step, trace={"a": size}, language=language, entropy=entropy, **common)
                writer.write(
                    "eval", step, split="targets", language=language, metric="m", value=40.0 + 3 * place + step,
                    headline=True,
                )  # fmt: skip
        for language in ("en", *"abcdef"):
            writer.write(
                "eval", 20, split="test", language=language, metric="m", value=60.0 + seed, headline=True
            )
        writer.close("finished")
    return load_runs(tmp_path)


def section_of(runs):
    (group,) = build_report(runs).groups
    return next(section for section in group.sections if section.name == "targets")


def test_it_says_what_tells_the_languages_apart_beside_the_rival(followed):
    apart, choice = section_of(followed).items
    rows = {row["feature"]: row for row in apart.rows}
    assert rows["tr(F) of the language"]["low"] > 0.5 and rows["tr(F) of the language"]["seeds"] == 6
    assert rows["tr(F) of the language"]["given_low"] > 0.5
    assert "given_estimate" not in rows["entropy of the predictions"]
    regrets = {row["criterion"]: row["estimate"] for row in choice.rows}
    assert regrets["source validation"] == 0 and regrets["any of them"] > 0
    assert "What tells the languages of a run apart" in to_html(build_report(followed))


def test_runs_without_target_languages_say_how_to_follow_them(followed, tmp_path):
    start = {"run": "plain", "factors": {"schedule": "gu", "seed": 0, "source": "en"}, "blocks": {"a": 1}}
    writer = JournalWriter.open(tmp_path / "other" / "plain", start=start)
    writer.write("fisher", 0, trace={"a": 2.0}, examples=8, purpose="track", trainable={"a": True})
    writer.close("finished")
    (missing,) = section_of(load_runs(tmp_path / "other")).items
    assert "set tracking.languages and evaluate.targets" in missing.reason
