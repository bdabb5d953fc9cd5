"""CoNLL-style columns for named entities: a word and its tag a line, a blank line after each sentence."""

from collections.abc import Iterator
from pathlib import Path

from fishlens.errors import InputError
from fishlens.training.data.lines import at, numbered_lines

TaggedWord = tuple[int, str, str]
"""line number, word, tag"""


def read_conll(path: Path) -> Iterator[list[TaggedWord]]:
    """The sentences of a file: the first column is the word, the last its tag.

    Columns are separated by a tab where the line has one, else by spaces. `-DOCSTART-` lines are not sentences.

    Raises:
        InputError: a line has fewer than two columns.
    """
    sentence: list[TaggedWord] = []
    for number, line in numbered_lines(path):
        if not line.strip() or line.startswith("-DOCSTART-"):
            if sentence:
                yield sentence
                sentence = []
            continue
        fields = line.split("\t") if "\t" in line else line.split(" ")
        fields = [field for field in (field.strip(" ") for field in fields) if field]
        if len(fields) < 2:
            raise InputError(
                f"{at(path, number)}: one column ({line.strip()!r}); expected a word and its tag"
            )
        sentence.append((number, fields[0], fields[-1]))
    if sentence:
        yield sentence
