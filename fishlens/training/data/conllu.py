"""CoNLL-U (Universal Dependencies): sentences with their words, tags and spacing."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fishlens.errors import InputError
from fishlens.training.data.lines import at, numbered_lines

ID = re.compile(r"(?P<word>[1-9][0-9]*)|(?P<first>[1-9][0-9]*)-(?P<last>[1-9][0-9]*)|[0-9]+\.[1-9][0-9]*")


@dataclass(frozen=True)
class Word:
    """A syntactic word. space_after: does a space follow it in the text that `words` of the sentence spell?"""

    line: int
    form: str
    upos: str
    space_after: bool


@dataclass(frozen=True)
class Sentence:
    """line: where it begins in the file. id: its `sent_id`, or the line."""

    line: int
    id: str
    words: tuple[Word, ...]


@dataclass(frozen=True)
class _Range:
    """A multiword token `first-last` (don't = do + n't), with the spacing after the whole of it."""

    line: int
    form: str
    first: int
    last: int
    space_after: bool


def read_conllu(path: Path) -> Iterator[Sentence]:
    """The sentences of a file.

    Words are the lines with a plain number; empty nodes (`5.1`) are skipped. A multiword range is not a word, but
    decides spacing: no space between its words where their forms spell its form (do + n't), else spaces, as the words
    then stand nowhere in the text (zu + dem for zum).

    Raises:
        InputError: a line has not ten columns, an id is none or out of order, a range ends beyond its sentence.
    """
    lines: list[tuple[int, str]] = []
    for number, line in numbered_lines(path):
        if line.strip():
            lines.append((number, line))
        elif lines:
            yield _sentence(path, lines)
            lines = []
    if lines:
        yield _sentence(path, lines)


def _sentence(path: Path, lines: list[tuple[int, str]]) -> Sentence:
    name = str(lines[0][0])
    words: list[Word] = []
    ranges: list[_Range] = []
    for number, line in lines:
        if line.startswith("#"):
            key, _, value = line[1:].partition("=")
            name = value.strip() if key.strip() == "sent_id" else name
            continue
        fields = line.split("\t")
        if len(fields) != 10:
            raise InputError(
                f"{at(path, number)}: {len(fields)} tab-separated columns instead of CoNLL-U's 10"
            )
        match = ID.fullmatch(fields[0])
        if not match:
            raise InputError(
                f"{at(path, number)}: id {fields[0]!r} is neither a number, a range (3-4) nor an empty node (5.1)"
            )
        space = "SpaceAfter=No" not in fields[9].split("|")
        if match["word"]:
            if int(match["word"]) != len(words) + 1:
                raise InputError(f"{at(path, number)}: word id {fields[0]}; expected {len(words) + 1}")
            words.append(Word(number, fields[1], fields[3], space))
        elif match["first"]:
            ranges.append(_Range(number, fields[1], int(match["first"]), int(match["last"]), space))
    if not words:
        raise InputError(f"{at(path, lines[0][0])}: a sentence without words")
    return Sentence(lines[0][0], name, tuple(_spaced(path, words, ranges)))


def _spaced(path: Path, words: list[Word], ranges: list[_Range]) -> list[Word]:
    """The words with the spacing that the ranges say."""
    spaced = list(words)
    for token in ranges:
        if not token.first < token.last <= len(words):
            raise InputError(
                f"{at(path, token.line)}: range {token.first}-{token.last} in a sentence of {len(words)} words"
            )
        inside = range(token.first - 1, token.last)
        apart = "".join(words[i].form for i in inside) != token.form
        for i in inside:
            after = token.space_after if i == token.last - 1 else apart
            spaced[i] = Word(words[i].line, words[i].form, words[i].upos, after)
    return spaced
