"""Messages and docstrings are in one voice: "…; expected …", and "is not a", not "is no"."""

import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for part in ("fishlens", "analysis") for path in (ROOT / part).rglob("*.py"))
# a place may be followed by a colon: "file.tsv, line 3: expected …"
COMMA = re.compile(r", expected\b(?! (value|share|information))")
COLON = re.compile(r"(?<!where\})(?<!line 1): expected\b")
IS_NO = re.compile(
    r"(?<![Tt]here) (?:is|are) no (?!longer|more|fewer|less|wider|different|one\b|other\b|two\b)[a-z]+"
)


def texts(path: Path):
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type in (tokenize.STRING, tokenize.COMMENT):
                yield token.start[0], token.string


@pytest.mark.parametrize("pattern", [COMMA, COLON, IS_NO], ids=["comma", "colon", "is no"])
def test_no_text_is_in_another_voice(pattern):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text:.120}"
        for path in FILES
        for line, text in texts(path)
        if pattern.search(text)
    ]
    assert not found


def test_such_a_text_would_be_found():
    assert (
        COMMA.search("is 3, expected 4")
        and COLON.search("is 3: expected 4")
        and IS_NO.search("it is no file")
    )
    assert not COLON.search("{where}: expected an object") and not IS_NO.search("there is no file")
