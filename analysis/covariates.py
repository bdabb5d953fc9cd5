"""What transfer is regressed on elsewhere, one number per language: distance from the source, and how the tokenizer
cuts its text. Fisher information is judged beside these."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fishlens.errors import InputError

DISTANCES = ("genetic", "geographic", "syntactic", "phonological", "inventory", "script")
Tokenize = Callable[[str], Sequence[Any]]
# two letters -> ISO 639-3, which URIEL+ knows languages by
ISO3 = {
    "am": "amh", "ar": "arb", "bg": "bul", "bn": "ben", "cs": "ces", "da": "dan", "de": "deu", "el": "ell", "en": "eng",
    "es": "spa", "et": "ekk", "eu": "eus", "fa": "pes", "fi": "fin", "fr": "fra", "he": "heb", "hi": "hin", "ht": "hat",
    "hu": "hun", "id": "ind", "it": "ita", "ja": "jpn", "ka": "kat", "ko": "kor", "nl": "nld", "pl": "pol", "pt": "por",
    "qu": "quy", "ro": "ron", "ru": "rus", "sv": "swe", "sw": "swh", "ta": "tam", "te": "tel", "th": "tha", "tr": "tur",
    "uk": "ukr", "ur": "urd", "vi": "vie", "yo": "yor", "zh": "cmn",
}  # fmt: skip


def language_distances(source: str, targets: Iterable[str], kinds: Sequence[str] = DISTANCES) -> pd.DataFrame:
    """URIEL+'s distances of each target from the source, 0 (same) … 1: language and one column per kind.

    Languages by two letters or ISO 639-3. A pair for which URIEL+ has no feature in common (phonology and inventory of
    many languages) has an empty cell, NaN, and a `UserWarning` names it. Raises `InputError` without the package
    urielplus, for an unknown language, or a kind of distance that there is not.
    """
    for kind in kinds:
        if kind not in DISTANCES:
            raise InputError(f"there is no distance {kind!r}; expected one of {', '.join(DISTANCES)}")
    try:
        from urielplus import urielplus
    except ImportError:
        raise InputError(
            "language distances need the package urielplus: pip install 'fishlens[languages]'"
        ) from None
    known = urielplus.URIELPlus()
    rows = []
    for target in targets:
        pair = [_iso3(source), _iso3(target)]
        rows.append([target, *(_distance(known, kind, pair) for kind in kinds)])
    return pd.DataFrame(rows, columns=["language", *kinds])


def _distance(known: Any, kind: str, pair: list[str]) -> float:
    try:
        return float(known.new_distance(kind, pair))
    except (SystemExit, Exception) as why:
        if not str(why).startswith("No shared"):
            raise InputError(f"urielplus has no distance between {pair[0]} and {pair[1]}: {why}") from None
    warnings.warn(
        f"URIEL+ knows no {kind} feature of both {pair[0]} and {pair[1]}: that cell is left empty",
        stacklevel=3,
    )
    return float("nan")


def read_covariates(path: str | Path) -> pd.DataFrame:
    """A CSV file with a column `language` and one number a language in every other: `build_report(covariates=…)`.

    Raises `InputError` for a file that is not so.
    """
    try:
        table = pd.read_csv(path, dtype={"language": str}, keep_default_na=False, na_values=[""])
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as why:
        raise InputError(f"{path} cannot be read as CSV: {why}") from None
    return checked_covariates(table, str(path))


def checked_covariates(table: pd.DataFrame, where: str = "covariates") -> pd.DataFrame:
    """`table` with numbers in all columns but `language`, each language once. Raises `InputError` where it is not."""
    if "language" not in table or len(table.columns) < 2:
        there = ", ".join(map(str, table.columns)) or "none"
        raise InputError(
            f"{where} has the columns {there}; expected language, and at least one more of numbers"
        )
    twice = table["language"][table["language"].duplicated()].tolist()
    if twice:
        raise InputError(f"{where} has the language {twice[0]!r} twice; expected one row a language")
    numbers = table.drop(columns="language")
    for name in numbers:
        found = pd.to_numeric(numbers[name], errors="coerce")
        bad = numbers[name][found.isna() & numbers[name].notna()]
        if len(bad):
            raise InputError(
                f"{where} has {bad.iloc[0]!r} in its column {name}; expected a number, or nothing"
            )
        numbers[name] = found.astype(float)
    return pd.concat([table["language"].astype(str), numbers], axis=1)


def _iso3(language: str) -> str:
    code = ISO3.get(language, language)
    if len(code) != 3:
        raise InputError(f"the language {language!r} has no ISO 639-3 code here: give the three letters")
    return code


def tokens_per_word(texts: Iterable[str], tokenize: Tokenize) -> float:
    """The tokenizer's pieces per word between spaces ("fertility"). `tokenize` is the run's own tokenizer's, without
    special tokens. Raises `InputError` for texts without a word."""
    listed = list(texts)
    words = sum(len(text.split()) for text in listed)
    if not words:
        raise InputError("the texts have no word; expected some text of the language")
    return sum(len(tokenize(text)) for text in listed) / words


def token_overlap(source: Iterable[str], target: Iterable[str], tokenize: Tokenize) -> float:
    """The share of the target's pieces, counted as often as they occur, that occur in the source's text."""
    seen = {piece for text in source for piece in tokenize(text)}
    pieces = [piece for text in target for piece in tokenize(text)]
    if not pieces:
        raise InputError("the target's texts have no token; expected some text of the language")
    return sum(piece in seen for piece in pieces) / len(pieces)
