"""A number is written so that a reader can use it."""

import math

import numpy as np
import pytest
from fishlens.analysis.report.cells import (
    cell_text,
    is_number,
    methods_words,
    not_enough_words,
    p_text,
    reasons,
    reconciled,
    text_of,
    with_interval,
)
from fishlens.analysis.report.parts import Column


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (63.456, 2, "63.46"),
        (-0.5, 2, "−0.50"),
        (1234567.0, 1, "1,234,567.0"),
        (0.00001234, 2, "1.23e−05"),
        (12345678.0, 2, "1.23e+07"),
        (0.0, 2, "0.00"),
        (500, None, "500"),
        (0.25, None, "0.25"),
        (np.int64(3), None, "3"),
        (math.nan, 2, "–"),
        (None, None, "–"),
        (math.inf, 2, "∞"),
        (-math.inf, 2, "−∞"),
        (True, None, "yes"),
        (np.bool_(False), None, "no"),
        ("<b>", None, "<b>"),
    ],
)
def test_values_as_text(value, digits, text):
    assert text_of(value, digits) == text


def test_a_spread_is_written_to_the_place_of_its_value():
    column = Column("m", "m", 2, plus_minus="sd")
    assert cell_text(column, {"m": 55.4, "sd": 0.94}) == "55.40 ± 0.94"
    assert cell_text(column, {"m": 55.4, "sd": 3e-14}) == "55.40 ± 0.00"
    assert cell_text(column, {"m": 55.4, "sd": math.nan}) == "55.4"  # one run has no spread
    assert cell_text(column, {"sd": 0.94}) == "–"


def test_an_interval_stands_behind_its_estimate_or_not_at_all():
    column = Column("r", "r", 2, interval=("low", "high"))
    assert cell_text(column, {"r": 0.5, "low": -0.1, "high": 0.8}) == "0.50 [−0.10, 0.80]"
    assert cell_text(column, {"r": 0.5, "low": math.nan, "high": 0.8}) == "0.50"


def test_a_p_value_is_never_zero():
    assert p_text(0.0) == p_text(0.0005) == "< 0.001"
    assert p_text(0.0496) == "0.050"
    assert p_text(math.nan) == "–"


def test_a_column_of_numbers_is_one_even_with_gaps_and_one_of_flags_is_none():
    column = Column("x", "x")
    assert is_number(column, [{"x": 1.0}, {"x": None}, {}])
    assert not is_number(column, [{"x": True}])
    assert not is_number(column, [{"x": "1"}])
    assert not is_number(column, [{}])


def test_what_is_missing_is_called_by_its_name():
    assert not_enough_words("2 seeds, at least 3 are needed").startswith("not enough runs for this: 2 seeds")
    assert not_enough_words("a column is constant").startswith("no number: ")


def test_a_coefficient_is_never_written_in_powers_of_ten():
    column = Column("rho", "ρ", 2, interval=("low", "high"), bounded=True)
    assert cell_text(column, {"rho": 4.5e-16, "low": -0.8, "high": 0.8}) == "0.00 [−0.80, 0.80]"
    assert cell_text(column, {"rho": -0.0024, "low": -0.2, "high": 0.19}) == "0.00 [−0.20, 0.19]"
    assert cell_text(column, {"rho": None}) == "–"


@pytest.mark.parametrize(
    ("mean", "sd", "text"),
    [
        (73.4412, 0.2418, "73.44 ± 0.24"),
        (56.2345, 1.1678, "56.2 ± 1.2"),
        (47.4321, 12.06, "47 ± 12"),
        (612.7, 133.2, "610 ± 130"),
        (24249.1, 2622.4, "24,200 ± 2,600"),
        (3.2, 133.2, "0 ± 130"),
    ],
)
def test_a_number_has_the_digits_that_its_error_supports(mean, sd, text):
    assert cell_text(Column("m", "m", 2, plus_minus="sd"), {"m": mean, "sd": sd}) == text


def test_a_number_whose_error_nobody_knows_has_four_figures():
    column = Column("m", "m", 3, plus_minus="sd")
    written = [cell_text(column, {"m": value}) for value in (1160.18, 83.2178, 1.23456, 0.00123456)]
    assert written == ["1,160", "83.22", "1.23", "1.23e−03"]


def test_an_error_that_is_not_shown_supports_the_decimals_too():
    column = Column("m", "m", 2, bounded=True, error="se")
    assert cell_text(column, {"m": 6.2345, "se": 2.8}) == "6.2"
    assert cell_text(column, {"m": 6.2345, "se": 0.04}) == "6.23"
    assert cell_text(column, {"m": 6.2345}) == "6.2"


def test_a_mean_over_fewer_runs_than_its_row_says_how_many():
    column = Column("m", "m", 1, plus_minus="sd", count="m_n", of="runs")
    assert cell_text(column, {"m": 45.0, "sd": 2.8, "m_n": 5, "runs": 12}) == "45.0 ± 2.8 (5)"
    assert cell_text(column, {"m": 45.0, "sd": 2.8, "m_n": 12, "runs": 12}) == "45.0 ± 2.8"
    assert column.keys == ("m", "sd", "m_n")  # and a file has the number


def test_text_and_tables_write_an_interval_alike():
    assert with_interval(0.71, -0.03, 1.45, 2) == "0.71 [−0.03, 1.45]"
    assert with_interval(6.23, -5.9, 18.4, 2, sign=True) == "+6 [−6, 18]"
    assert with_interval(-0.9, float("nan"), float("nan"), 2, sign=True) == "−0.90"


def test_an_interval_that_is_wide_has_few_digits():
    column = Column("d", "d", 2, interval=("low", "high"), bounded=True)
    assert cell_text(column, {"d": 6.2345, "low": -5.9432, "high": 18.4123}) == "6 [−6, 18]"
    assert cell_text(column, {"d": 1.2345, "low": 0.4321, "high": 2.0369}) == "1.23 [0.43, 2.04]"


def test_where_interval_and_p_disagree_the_row_says_why():
    row = {"low": 0.1, "high": 3.0, "p": 0.25, "level": 0.95}
    assert "interval and p disagree" in reconciled(row)
    assert reconciled({**row, "p": 0.01}) == "" == reconciled({**row, "low": -0.1})
    assert reconciled({**row, "low": math.nan}) == ""


def test_why_several_numbers_are_not_there_is_said_once():
    few = [f"{count} run{'s' * (count > 1)}, at least 6 are needed" for count in (1, 4, 3)]
    assert reasons([*few, "", "one of the two does not vary", few[0]]) == (
        "4 runs, at least 6 are needed; one of the two does not vary"
    )


def test_methods_that_differ_in_arrangements_are_one():
    methods = ["t interval; sign-flip p, all 64", "t interval; sign-flip p, all 4096", ""]
    assert methods_words(methods) == "T interval; sign-flip p, all 64 or all 4096"
