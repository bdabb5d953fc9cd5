"""Letters of all scripts: which installed fonts stand in where the first one lacks a letter."""

import functools
from collections.abc import Sequence
from contextvars import ContextVar

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

# families that cover what DejaVu Sans does not, those of free systems first
_FALLBACKS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans CJK TC", "Source Han Sans SC",
    "Source Han Sans", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "IPAexGothic", "TakaoPGothic",
    "NanumGothic", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Telugu",
    "Noto Sans Hebrew", "Noto Sans Arabic", "Noto Sans Ethiopic", "Noto Sans Georgian", "Noto Sans Armenian", "Unifont",
    "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Arial Unicode MS", "Microsoft YaHei", "Yu Gothic",
    "Malgun Gothic", "Nirmala UI", "Leelawadee UI", "DejaVu Sans",
)  # fmt: skip
# whether letters that no font has are left to whoever shows the figure: a browser has fonts of its own
SHOWN_ELSEWHERE = ContextVar("letters are drawn elsewhere", default=False)


def with_fallbacks(families: str | Sequence[str]) -> list[str]:
    """The families wanted, and after them the installed ones that have other letters."""
    wanted = [families] if isinstance(families, str) else list(families)
    return wanted + [name for name in _installed() if name not in wanted]


def missing(text: str) -> set[str]:
    """The letters of `text` that no font used here has."""
    return {
        letter for letter in text if not letter.isspace() and not letter.isascii() and not _drawable(letter)
    }


def readable(text: str) -> str:
    """`text` with letters that would be drawn as empty boxes as their numbers, `U+4E2D`."""
    if SHOWN_ELSEWHERE.get():
        return text
    gaps = missing(text)
    return (
        "".join(f"U+{ord(letter):04X} " if letter in gaps else letter for letter in text).strip()
        if gaps
        else text
    )


@functools.cache
def _installed() -> tuple[str, ...]:
    there = {font.name for font in font_manager.fontManager.ttflist}
    return tuple(name for name in _FALLBACKS if name in there)


@functools.cache
def _drawable(letter: str) -> bool:
    return any(ord(letter) in _letters(name) for name in ("DejaVu Sans", *_installed()))


@functools.cache
def _letters(family: str) -> frozenset[int]:
    path = font_manager.findfont(family, fallback_to_default=True)
    return frozenset(FT2Font(path).get_charmap())
