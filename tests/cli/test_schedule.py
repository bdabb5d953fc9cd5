"""`fishlens schedule` prints what the schedule would do."""

import pytest
from typer.testing import CliRunner

from fishlens.cli import app
from fishlens.errors import InputError


def run(*words):
    return CliRunner().invoke(app, ["schedule", *words], catch_exceptions=False)


def rows(*words):
    lines = run(*words).stdout.splitlines()[2:]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def test_gradual_unfreezing_is_printed_top_down():
    table = rows("gu", "--layers", "4", "--every", "50")
    assert [step for step, _ in table] == ["0", "50", "100", "150"]
    assert [rest.split()[0] for _, rest in table] == ["3", "2", "1", "0"]
    assert [rest.split()[1:] for _, rest in table] == [[str(n), "of", "4"] for n in (1, 2, 3, 4)]


def test_a_choice_by_scores_is_printed_as_one():
    table = rows("fun", "--layers", "3", "--every", "10")
    assert [step for step, _ in table] == ["0", "10", "20"]
    assert table[0][1].startswith("2 ")
    assert all(rest.startswith("largest tr(F)") for _, rest in table[1:])


def test_linear_probing_shows_that_nothing_is_thawed_at_first():
    assert [" ".join(rest.split()) for _, rest in rows("lpft", "--layers", "3", "-k", "10")] == [
        "none 0 of 3",
        "0 1 2 3 of 3",
    ]


def test_options_are_set_as_in_a_recipe():
    assert [rest.split()[0] for _, rest in rows("fixed", "-L", "3", "-s", "order=[1, 2, 0]")] == [
        "1",
        "2",
        "0",
    ]


def test_a_run_that_is_too_short_gets_a_warning():
    result = run("gu", "--layers", "12", "--every", "50", "--steps", "300")
    assert "at step 550, but training ends after 300 steps" in result.stderr


def test_an_unknown_schedule_is_one_sentence():
    with pytest.raises(InputError, match="expected one of standard"):
        run("gradually")
