"""Names out of files, fit to be shown and fit to become a file's name.

A name in a journal, a recipe or a folder may be anybody's. Shown, it can neither control the terminal nor turn the text
around it (`printable`); as part of a path, it stays in its folder on every file system (`check_file_name`).
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable

_LONGEST = 150  # bytes: every file system takes 255, and endings and numbers are still to come
# marks that change the order in which the text around them is shown
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_WINDOWS = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))]
)


def printable(text: object) -> str:
    """`text` as it may be shown: control characters, lone surrogates and marks that reorder the text as escapes.

    Line breaks and tabs stay.
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(c) if _is_unfit(c) else c for c in text)


def one_line(text: object) -> str:
    """As `printable`, and line breaks and tabs as escapes too: for a cell, a title, a list."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def counted(count: int, things: str) -> str:
    """A number and what was counted, `things` being the plural: "1 run", "3 runs", "1 seed that crosses"."""
    return f"{count:,} {_one(things) if count == 1 else things}"


def _one(things: str) -> str:
    """The singular: of the first word that ends in s, and of the verb of the clause that follows."""
    noun, clause, rest = re.sub(r"\b(\w+)s\b", r"\1", things, count=1).partition(" that ")
    return noun + clause + rest.replace("cross", "crosses", 1)


def _is_unfit(character: str) -> bool:
    if character in "\n\t":
        return False
    return character in _REORDERING or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


def check_file_name(name: str) -> str:
    """`name`, if it can be one file's or folder's name on every system. Raises `ValueError` in words."""
    expected = "expected a name that can be a folder's"
    if not name.strip(" ."):
        raise ValueError(f"is {name!r}, {expected}: not empty, and more than dots")
    for character in name:
        if character in '/\\:*?"<>|' or _is_unfit(character) or character in "\n\t":
            raise ValueError(f"is {name!r}, {expected}: without {character!r}")
    if name != name.strip() or name.endswith("."):
        raise ValueError(f"is {name!r}, {expected}: no space at its ends, no dot at its end")
    if name.partition(".")[0].lower() in _WINDOWS:
        raise ValueError(f"is {name!r}, {expected}: some systems keep that name for a device")
    if len(name.encode("utf-8")) > _LONGEST:
        raise ValueError(
            f"is {name[:30]!r}… of {len(name.encode())} bytes, {expected}: at most {_LONGEST} bytes"
        )
    return name


def shortened(name: str) -> str:
    """A name that is too long for a file system, cut, with a number made of all of it at its end."""
    if len(name.encode("utf-8")) <= _LONGEST:
        return name
    told = hashlib.sha256(name.encode()).hexdigest()[:10]
    return name.encode()[: _LONGEST - 11].decode("utf-8", "ignore") + "-" + told


def check_language(code: str) -> str:
    """`code`, if it can name a language's adapter, files and columns. Raises `ValueError` in words."""
    if not code or not all(character.isalnum() or character in "-_" for character in code):
        raise ValueError(
            f"is {code!r}; expected the code of a language: letters, digits, - and _ (de, zh-Hant, eng_Latn)"
        )
    return check_file_name(code)


def colliding(names: Iterable[str]) -> tuple[str, str] | None:
    """Two different names that are one file where case or the way accents are written do not count (macOS, Windows)."""
    seen: dict[str, str] = {}
    for name in names:
        folded = unicodedata.normalize("NFC", name).casefold()
        if seen.setdefault(folded, name) != name:
            return seen[folded], name
    return None
