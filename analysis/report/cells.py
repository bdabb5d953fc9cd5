"""How a number is written: the same in every format that people read."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from .parts import Column

NOTHING = "–"
_ARRANGEMENTS = re.compile(r"\b(?:all|random) \d+")


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
    return digits is not None and number != 0 and (abs(number) < 0.5 * 10.0**-digits or abs(number) >= 1e7)


def _written(number: float, digits: int | None, *, tiny: bool) -> str:
    if tiny:
        text = f"{number:.2e}"
    elif digits is not None:
        text = f"{round(number, digits):,.{max(digits, 0)}f}"
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
    return f"not enough runs for this: {reason}" if "needed" in reason else f"no number: {reason}"


def reasons(notes: Iterable[str]) -> str:
    """Why several numbers are not there, each kind of reason once: of those that differ in numbers only, the one with
    the largest first."""
    kinds: dict[str, tuple[float, str]] = {}
    for note in filter(None, notes):
        numbers = re.findall(r"\d+", note)
        kind, first = re.sub(r"\d+ (\w+?)s?\b", r"# \1", note), float(numbers[0]) if numbers else 0.0
        kind = re.sub(r"\([^()]*\)", "", kind).strip()
        if kind not in kinds or first > kinds[kind][0]:
            kinds[kind] = (first, note)
    return "; ".join(note for _, note in kinds.values())


def methods_words(methods: Iterable[str]) -> str:
    """How numbers were got: methods that differ in how many arrangements there were are one."""
    counts: dict[str, dict[str, None]] = {}
    for method in filter(None, methods):
        counts.setdefault(_ARRANGEMENTS.sub("#", method), {}).update(
            dict.fromkeys(_ARRANGEMENTS.findall(method))
        )
    said = [kind.replace("#", " or ".join(own)) for kind, own in counts.items()]
    words = "; ".join(said)
    return words[:1].upper() + words[1:]


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
    if is_nothing(value):
        return text_of(value, None)
    return _with_beside(column, row) + _counted(column, row)


def _with_beside(column: Column, row: Mapping[str, Any]) -> str:
    value = row[column.key]
    beside, numbers = _beside(column, row)
    digits = printed_digits(column, row)
    if digits is None or not isinstance(value, Real) or math.isinf(float(value)):
        return text_of(value, digits)
    known = bool(beside) and len(numbers) == len(beside)
    tiny = _is_tiny(float(value), column.digits if known else digits) and not column.bounded
    text = _written(_no_negative_zero(float(value), None if tiny else digits), digits, tiny=tiny)
    if not known:
        return text
    written = [
        _written(n if tiny else _no_negative_zero(n, digits), digits, tiny=tiny and n != 0) for n in numbers
    ]
    return f"{text} ± {written[0]}" if column.plus_minus else f"{text} [{', '.join(written)}]"


def _counted(column: Column, row: Mapping[str, Any]) -> str:
    """Of how many runs a mean is, where that is not what the row says."""
    if column.of is None or column.count is None:
        return ""
    count, whole = row.get(column.count), row.get(column.of)
    return "" if count is None or is_nothing(count) or count == whole else f" ({int(count)})"


def with_interval(value: float, low: float, high: float, digits: int, *, sign: bool = False) -> str:
    """A number of known size and its interval, with the decimals that it has in a table; `sign`: also of a plus."""
    column = Column("value", "", digits, interval=("low", "high"), bounded=True)
    text = cell_text(column, {"value": value, "low": low, "high": high})
    return f"+{text}" if sign and value > 0 and not text.startswith(("0 ", "0.0 ", "0.00 ")) else text


def _beside(column: Column, row: Mapping[str, Any]) -> tuple[list[str], list[float]]:
    """The keys of what stands beside a value, and those of their numbers that there are."""
    beside = [column.plus_minus] if column.plus_minus else list(column.interval or ())
    return beside, [float(row[key]) for key in beside if not is_nothing(row.get(key))]


def printed_digits(column: Column, row: Mapping[str, Any]) -> int | None:
    """The decimals that a cell is written with."""
    beside, numbers = _beside(column, row)
    if column.error is not None:
        numbers = [float(row[column.error])] if not is_nothing(row.get(column.error)) else []
    elif len(numbers) < len(beside):
        numbers = []
    return _supported(column, row.get(column.key), numbers)


def _supported(column: Column, value: Any, beside: Sequence[float]) -> int | None:
    """The decimals that the error supports: two figures of a spread or of half an interval (before the point too, but
    not of points or coefficients). Without any one decimal less, and no more than four figures."""
    if column.digits is None:
        return None
    error = math.nan if not beside else beside[0] if len(beside) == 1 else abs(beside[1] - beside[0]) / 2
    if not math.isfinite(error):
        digits = max(column.digits - 1, 0) if column.plus_minus or column.error else column.digits
        known = isinstance(value, Real) and math.isfinite(float(value)) and float(value) != 0
        if column.bounded or not known:
            return digits
        return min(digits, max(0, 3 - math.floor(math.log10(abs(float(value))))))
    if error == 0:
        return column.digits
    fewest = 0 if column.bounded else -9
    return min(column.digits, max(fewest, 1 - math.floor(math.log10(error))))


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
