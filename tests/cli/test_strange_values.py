"""Runs as strange as they come: shown as they are, or refused in one sentence."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from fishlens.cli import app
from fishlens.errors import InputError
from fishlens.journal import JournalWriter

BLOCKS = ("layer.0", "layer.1", "head")


def write_run(place, schedule, seed, metric="accuracy", trace=1.0):
    factors = {
        "task": "topic",
        "schedule": schedule,
        "seed": seed,
        "source": "en",
        "model": "m",
        "adapter": "a",
    }
    start = {"factors": factors, "blocks": dict.fromkeys(BLOCKS, 5)}
    with JournalWriter.open(place, start) as journal:
        for step in range(0, 30, 10):
            values = dict.fromkeys(BLOCKS, trace * (1 + step / 100))
            journal.write(
                "fisher",
                step,
                trace=values,
                stderr=values,
                trainable=dict.fromkeys(BLOCKS, True),
                purpose="track",
            )
            journal.write("train", step, loss=1.0)
        for split, language, value in (
            ("validation", "en", 70.0),
            ("test", "de", 50.0),
            ("test", "sw", 40.0),
        ):
            journal.write(
                "eval", 30, split=split, language=language, metric=metric, value=value, headline=True
            )
        journal.close("finished", step=30)


def typed(*words):
    """What a command does: its output, or the one sentence it ends with."""
    result = CliRunner().invoke(app, [os.fspath(word) for word in words])
    if isinstance(result.exception, InputError):
        assert "\n" not in str(result.exception)
        return str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result.output


STUDIES = {
    "numbers for schedules": {"schedules": (1, 2.5, True), "seeds": (0, 1)},
    "words for seeds": {"schedules": ("gu", "fun"), "seeds": ("seed-1", "seed-2")},
    "seeds of two kinds": {"schedules": ("gu", "fun"), "seeds": (1, "seed-1")},
    "a metric that is half a formula": {
        "schedules": ("gu $x", "fun^{"),
        "seeds": (0, 1),
        "metric": "acc$_{\\frac",
    },
    "traces at the end of float64": {"schedules": ("gu", "fun"), "seeds": (0, 1), "trace": 1e308},
}


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_of_strange_values_has_its_report(tmp_path, study):
    values = dict(STUDIES[study])
    for schedule in values.pop("schedules"):
        for seed in STUDIES[study]["seeds"]:
            values.pop("seeds", None)
            write_run(tmp_path / "runs" / f"{schedule}-{seed}".replace("$", ""), schedule, seed, **values)
    page = tmp_path / "page.html"
    said = typed("report", tmp_path / "runs", "-o", page)
    assert page.is_file() and page.stat().st_size > 10_000, said
    assert "finished" in typed("runs", tmp_path / "runs")


def test_folders_with_names_in_another_encoding_are_shown(tmp_path):
    place = os.fsencode(tmp_path) + b"/caf\xe9"
    write_run(os.fsdecode(place), "gu", 0)
    assert "caf\\udce9" in typed("runs", tmp_path)
    assert "rows" in typed("export", tmp_path, "-o", tmp_path / "data")
    assert "finished" in typed("watch", os.fsdecode(place), "--once")


def test_a_working_directory_that_was_removed_is_one_sentence(tmp_path):
    gone = tmp_path / "gone"
    code = (
        "import os, sys; os.mkdir(sys.argv[1]); os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]); "
        "sys.argv = ['fishlens', 'runs']; from fishlens.cli import main; main()"
    )
    ended = subprocess.run([sys.executable, "-c", code, gone], capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr
    assert "Traceback" not in ended.stderr
