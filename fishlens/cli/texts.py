"""`--languages` of `fishlens track`: which texts of which languages, read before the script begins."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fishlens.errors import InputError
from fishlens.names import check_language, colliding


def texts_of_languages(
    given: Sequence[str], columns: str, examples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """{language: the fields of its `Texts`}: those that a probe of so many examples measures.

    Raises `InputError` for a file that is not there or cannot be read, and a language without a name or with two files.
    """
    from fishlens.tracking.probe_set import probe_order
    from fishlens.training.data.texts import read_texts

    named = [column.strip() for column in columns.split(",")]
    if len(named) > 2 or not all(named):
        raise InputError(f"--columns is {columns!r:.60}; expected one column of texts, or two of pairs")
    found: dict[str, dict[str, Any]] = {}
    for language, path in _files(given):
        if language in found:
            raise InputError(
                f"--languages has {language!r} twice, {found[language]['source']} and {path}; expected one file"
            )
        read = read_texts(path, named if path.suffix != ".txt" else ("text",))
        rows = [read[i] for i in probe_order(len(read), seed)[:examples]]
        found[language] = {
            "texts": [texts[0] if len(texts) == 1 else texts for _, texts in rows],
            "names": [name for name, _ in rows],
            "source": str(path),
        }
    if pair := colliding(found):
        raise InputError(
            f"--languages has {pair[0]!r} and {pair[1]!r}, which would be one file on some systems"
        )
    return found


def _files(given: Sequence[str]) -> Iterator[tuple[str, Path]]:
    from fishlens.training.tasks.layout import LANGUAGE, Place

    for one in given:
        codes, equals, place = one.partition("=")
        if not equals:
            codes, place = "", one
        if equals and codes and place:
            named = [code.strip() for code in codes.split(",")]
            if len(named) > 1 and LANGUAGE not in place:
                raise InputError(
                    f"--languages is {one!r:.80}: several languages need a place with {LANGUAGE}"
                )
            for code in named:
                yield _checked(code), Path(place.replace(LANGUAGE, code))
        elif not equals and LANGUAGE in place:
            there = sorted(Place(place).languages_there(Path()))
            if not there:
                raise InputError(f"--languages is {place!r:.80}, and no such file is there")
            for code in there:
                yield _checked(code), Place(place).path(Path(), code)
        else:
            raise InputError(
                f"--languages is {one!r:.80}; expected CODE=FILE, as de=german.txt, or a place with {LANGUAGE}"
            )


def _checked(code: str) -> str:
    try:
        return check_language(code)
    except ValueError as error:
        raise InputError(f"a code of --languages {error}") from None
