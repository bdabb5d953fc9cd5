"""Fingerprints of what a recipe's paths lead to: by them a moved file is the same, and a changed one is noticed.

A run keeps the fingerprints of its model, its language adapters and its data files in its journal. Where a recipe names
other places later (another machine, a moved study), the content found there decides whether it is the same run.
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from fishlens.own_code import CODE, source_file
from fishlens.recipe.paths import resolve_path
from fishlens.recipe.recipe import Recipe

_WHOLE = 16 * 2**20  # bytes: a longer file is told by its length and by blocks of it, spread evenly
_BLOCKS, _BLOCK = 64, 64 * 2**10
PLACES = ("model", "language_adapters", "data.root", "data.train", "data.validation", "data.test")


def is_place(field: str) -> bool:
    """Whether a field of a recipe says where something lies, for all languages or for one (`data.train.de`)."""
    return field in PLACES or field.startswith(tuple(f"{place}." for place in PLACES))


def fingerprints(recipe: Recipe, data_files: Iterable[Path]) -> dict[str, str]:
    """{what: fingerprint} of a recipe's model, language adapters and data files, as far as they lie on this disk.

    Data files are called by their path below the data's root, so that they are found again when the root has moved.
    """
    root = Path(recipe.data.folder)
    places = {"model": Path(resolve_path(recipe.model))}
    for language in recipe.languages:
        place = recipe.language_adapter(language)
        if place is not None:
            places[f"language_adapters.{language}"] = Path(resolve_path(place))
    for file in data_files:
        inside = file.resolve().is_relative_to(root.resolve())
        name = file.resolve().relative_to(root.resolve()).as_posix() if inside else str(file)
        places[f"data {name}"] = file
    found = {what: fingerprint(place) for what, place in places.items()}
    return {**{what: told for what, told in found.items() if told is not None}, **code_fingerprints(recipe)}


def code_fingerprints(recipe: Recipe) -> dict[str, str]:
    """{"code task.name (module:Class)": fingerprint} of the file that each `module:Class` of the recipe stands in."""
    files = {f"{CODE}{field} ({name})": source_file(name, field) for field, name in recipe.own_code.items()}
    found = {what: fingerprint(place) for what, place in files.items() if place is not None}
    return {what: told for what, told in found.items() if told is not None}


def changed(recipe: Recipe, recorded: Mapping[str, str]) -> str | None:
    """The first of a run's model, adapters and data files that is there and is not what it was, or None."""
    root = Path(recipe.data.folder)
    for what, told in recorded.items():
        if what.startswith(CODE):
            continue  # said, and no reason to refuse (`journal.provenance.otherwise`)
        if what == "model":
            place: str | None = recipe.model
        elif what.startswith("language_adapters."):
            place = recipe.language_adapter(what.partition(".")[2])
        else:
            place = str(root / what.removeprefix("data "))
        now = fingerprint(Path(resolve_path(place))) if place is not None else None
        if now is not None and now != told:
            return f"{what} ({place}) is not what it was when the run began"
    return None


def fingerprint(place: Path) -> str | None:
    """Of a file, or of the files directly in a folder (hidden ones and Markdown left out); None where nothing is."""
    try:
        if place.is_dir():
            files = [path for path in sorted(place.iterdir()) if path.is_file() and not _is_aside(path)]
            joined = "".join(f"{path.name} {_of_file(path)}\n" for path in files)
            return hashlib.sha256(joined.encode("utf-8", "backslashreplace")).hexdigest()[:24]
        return _of_file(place) if place.is_file() else None
    except OSError:
        return None


def _is_aside(path: Path) -> bool:
    return path.name.startswith(".") or path.suffix.lower() == ".md"


def _of_file(path: Path) -> str:
    there = path.stat()
    return _read(str(path.resolve()), there.st_size, there.st_mtime_ns)


@lru_cache(maxsize=4096)
def _read(path: str, size: int, _changed: int) -> str:
    told = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:  # noqa: PTH123
        if size <= _WHOLE:
            told.update(file.read())
        else:
            for block in range(_BLOCKS):
                file.seek(block * (size - _BLOCK) // (_BLOCKS - 1))
                told.update(file.read(_BLOCK))
    return told.hexdigest()[:24]
