"""How a number is written: the same in every format that people read."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from .parts import Column

NOTHING = "–"


def text_of(value: Any, digits: int | None) -> str:
    """A value as text with `digits` decimals; in powers of ten where those would show nothing of it."""
    if is_nothing(value):
        return NOTHING
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if not isinstance(value, Real):
        return str(value)
    number = float(value)
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    return _written(number, digits, tiny=_is_tiny(number, digits))


def is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, Real) and math.isnan(value))


def _is_tiny(number: float, digits: int | None) -> bool:
    """Whether `digits` decimals would show nothing of a number, or only digits that nobody reads."""
    return digits is not None and number != 0 and (abs(number) < 0.5 * 10**-digits or abs(number) >= 1e7)


def _written(number: float, digits: int | None, *, tiny: bool) -> str:
    if tiny:
        text = f"{number:.2e}"
    elif digits is not None:
        text = f"{number:,.{digits}f}"
    else:
        text = f"{number:,.0f}" if number == round(number) and abs(number) < 1e15 else f"{number:.4g}"
    return text.replace("-", "−")


def plain_text(value: Any, digits: int) -> str:
    """A number with `digits` decimals, whatever they show of it."""
    return (
        NOTHING
        if is_nothing(value)
        else _written(_no_negative_zero(float(value), digits), digits, tiny=False)
    )


def not_enough_words(reason: str) -> str:
    """Why a number is not there, for the row in which it would stand."""
    short = any(unit in reason for unit in ("runs", "seeds", "schedules", "rows", "probes"))
    return f"not enough runs for this: {reason}" if short else f"no number: {reason}"


def p_text(value: Any) -> str:
    """A p-value with three decimals, never as zero."""
    if is_nothing(value):
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def cell_text(column: Column, row: Mapping[str, Any]) -> str:
    """What stands in one cell: the value, and its spread or interval written to the same place."""
    value = row.get(column.key)
    if column.p_value:
        return p_text(value)
    beside, numbers = _beside(column, row)
    digits = printed_digits(column, row)
    if column.bounded and isinstance(value, Real) and not math.isinf(float(value)) and not is_nothing(value):
        text = _written(_no_negative_zero(float(value), digits), digits, tiny=False)
    else:
        text = text_of(value, digits)
    if value is None or is_nothing(value) or not beside or len(numbers) < len(beside):
        return text
    tiny = _is_tiny(float(value), digits) and not column.bounded
    written = [_written(n, digits, tiny=tiny and n != 0) for n in numbers]
    return f"{text} ± {written[0]}" if column.plus_minus else f"{text} [{', '.join(written)}]"


def _beside(column: Column, row: Mapping[str, Any]) -> tuple[list[str], list[float]]:
    """The keys of what stands beside a value, and those of their numbers that there are."""
    beside = [column.plus_minus] if column.plus_minus else list(column.interval or ())
    return beside, [float(row[key]) for key in beside if not is_nothing(row.get(key))]


def printed_digits(column: Column, row: Mapping[str, Any]) -> int | None:
    """The decimals that a cell is written with."""
    beside, numbers = _beside(column, row)
    return _supported(column, numbers if len(numbers) == len(beside) else [])


def _supported(column: Column, beside: Sequence[float]) -> int | None:
    """The decimals that the error supports: two figures of a spread or of half an interval; one less without any."""
    if column.digits is None or not (column.plus_minus or column.interval):
        return column.digits
    error = math.nan if not beside else beside[0] if len(beside) == 1 else abs(beside[1] - beside[0]) / 2
    if not math.isfinite(error):
        return max(column.digits - 1, 0) if column.plus_minus else column.digits
    if error == 0:
        return column.digits
    return min(column.digits, max(0, 1 - math.floor(math.log10(error))))


def reconciled(row: Mapping[str, Any]) -> str:
    """Why an interval and a p say different things, where they do."""
    low, high, p = (float(row[key]) for key in ("low", "high", "p"))
    if any(map(math.isnan, (low, high, p))) or (low > 0 or high < 0) == (p < 1 - float(row["level"])):
        return ""
    return (
        "interval and p disagree: the interval takes errors as roughly normal, the p only counts arrangements of the "
        "runs there are"
    )


def _no_negative_zero(number: float, digits: int | None) -> float:
    return round(number, digits) + 0.0 if digits is not None else number


def is_number(column: Column, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a column holds numbers (set to the right, sorted by value)."""
    values = [row.get(column.key) for row in rows]
    known = [value for value in values if not is_nothing(value)]
    return bool(known) and all(isinstance(v, Real) and not isinstance(v, bool | np.bool_) for v in known)
