"""Where the file of a split and language lies: patterns below a root, in the layout of the official releases."""

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fishlens.errors import InputError

SPLITS = ("train", "validation", "test")
LANGUAGE = "{language}"


@dataclass(frozen=True)
class Place:
    """One place where the files of a split may lie.

    pattern: path below the root; ``{language}`` stands for the language, ``*`` for anything within a name.
    languages: the languages that a pattern without ``{language}`` holds; None where whoever names the file vouches for
        its language.
    codes: what stands for a language in the file names, where that is not the language itself (``de``: ``deu_Latn``).
    """

    pattern: str
    languages: tuple[str, ...] | None = None
    codes: Mapping[str, str] = field(default_factory=dict)

    def find(self, root: Path, language: str) -> list[Path]:
        """The files of this language here: none, one, or several if ``*`` matches several."""
        if self.languages is not None and language not in self.languages:
            return []
        base, pieces = self._pieces(root)
        return sorted(base.glob(glob.escape(self._code(language)).join(pieces)))

    def path(self, root: Path, language: str) -> Path:
        """Where the file of this language is expected."""
        return root / self.pattern.replace(LANGUAGE, self._code(language))

    def languages_there(self, root: Path) -> set[str]:
        """The languages for which a file is there."""
        base, pieces = self._pieces(root)
        files = list(base.glob("*".join(pieces)))
        if len(pieces) == 1:
            return set(self.languages or ()) if files else set()
        named = re.compile(_path_naming_a_language(self.pattern))
        matches = (named.fullmatch(file.as_posix()) for file in files)
        language = {code: language for language, code in self.codes.items()}
        return {language.get(match["code"], match["code"]) for match in matches if match}

    def _code(self, language: str) -> str:
        return self.codes.get(language, language)

    def _pieces(self, root: Path) -> tuple[Path, list[str]]:
        """The folder to search and what stands around ``{language}``, as globs in which only ``*`` is special."""
        path = Path(self.pattern)
        base = Path(path.anchor) if path.anchor else root
        pattern = str(path.relative_to(path.anchor))
        return base, [glob.escape(piece).replace("[*]", "*") for piece in pattern.split(LANGUAGE)]


def _path_naming_a_language(pattern: str) -> str:
    """A regular expression for whole paths that end like the pattern; its group `code` is what names the language."""
    first, *rest = (re.escape(piece).replace(r"\*", "[^/]*") for piece in pattern.split(LANGUAGE))
    return f"(?:.*/)?{first}(?P<code>[^/]+?){'(?P=code)'.join(rest)}"


@dataclass(frozen=True)
class Layout:
    """The places of each split; the first that has a file wins."""

    places: Mapping[str, Sequence[Place]]

    def file(self, root: Path, split: str, language: str) -> Path:
        """The file that holds this split in this language.

        Raises:
            InputError: there is no such split, the root is not there, no file is there, or ``*`` matches several.
        """
        if not root.is_dir():
            raise InputError(f"data root {root} is not a folder")
        for place in self.of(split):
            found = place.find(root, language)
            if len(found) > 1:
                raise InputError(
                    f"{split} data for language {language!r}: {place.pattern} matches several files below {root}"
                    f" ({', '.join(p.name for p in found)}): say which one with data.{split}"
                )
            if found:
                return found[0]
        expected = " or ".join(str(place.path(root, language)) for place in self.of(split))
        there = ", ".join(self.languages(root, split)) or "none"
        raise InputError(
            f"no {split} data for language {language!r}; expected {expected} (languages that are there: {there})"
        )

    def languages(self, root: Path, split: str) -> list[str]:
        """The languages for which a file of this split is there, sorted."""
        return sorted(set().union(*(place.languages_there(root) for place in self.of(split))))

    def of(self, split: str) -> Sequence[Place]:
        """The places of a split; InputError if there is no such split."""
        if split not in self.places:
            raise InputError(f"unknown split {split!r}; expected {', '.join(SPLITS)}")
        return self.places[split]


def overridden(layout: Layout, files: Mapping[str, str | Mapping[str, str]]) -> Layout:
    """The layout with the places of some splits replaced.

    A value is a pattern with ``{language}``, a plain path (train and validation: the source language's file), or a
    mapping from language to path. Relative paths are below the root.

    Raises:
        InputError: a key is not a split, or a plain path is given for the test split, where it could not be told which
            language it holds.
    """
    places = dict(layout.places)
    for split, value in files.items():
        layout.of(split)  # refuses an unknown split
        if not isinstance(value, str):
            places[split] = [Place(str(path), (language,)) for language, path in value.items()]
        elif split == "test" and LANGUAGE not in value:
            raise InputError(
                f"data.test is {value!r}: put {LANGUAGE} where the language stands, or give one file per language"
                " ({de: path, …})"
            )
        else:
            places[split] = [Place(value)]
    return Layout(places)
