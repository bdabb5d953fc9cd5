"""Answer normalisation of MLQA (Lewis et al. 2020), by the language of the context."""

import re
import string
import sys
import unicodedata
from functools import cache

from fishlens.errors import InputError
from fishlens.training.metrics.answers import Normalise

ARTICLES = {
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "vi": r"\b(của|là|cái|chiếc|những)\b",
    "ar": "ال",  # the article is written together with its word; the official script drops it anywhere
    "hi": None,
    "zh": None,
}
CHINESE = re.compile(r"[\u4e00-\u9fa5]")


@cache
def punctuation() -> dict[int, None]:
    """ASCII punctuation and every Unicode character of a category P*, to be deleted."""
    ascii_marks = {ord(mark): None for mark in string.punctuation}
    return ascii_marks | {
        code: None for code in range(sys.maxunicode) if unicodedata.category(chr(code)).startswith("P")
    }


@cache
def mlqa_normalise(language: str) -> Normalise:
    """The normalisation for contexts in this language: lower case, no punctuation, no articles, tokens between spaces.

    In Chinese every character of U+4E00-9FA5 is a token of its own.

    Raises:
        InputError: MLQA has no rules for the language.
    """
    if language not in ARTICLES:
        raise InputError(f"MLQA has no rules for language {language!r}: it has {', '.join(ARTICLES)}")
    pattern = ARTICLES[language]
    articles = re.compile(pattern) if pattern else None

    def normalise(text: str) -> str:
        text = text.lower().translate(punctuation())
        if articles:
            text = articles.sub(" ", text)
        if language == "zh":
            text = CHINESE.sub(r" \g<0> ", text)
        return " ".join(text.split())

    return normalise
