"""Paths in recipes: ordinary ones, hub ids, and `package://module/path` for what is shipped inside a package."""

import sys
from importlib.machinery import ModuleSpec
from importlib.resources import files
from pathlib import Path

from fishlens.errors import InputError

SCHEME = "package://"


def resolve_path(text: str) -> str:
    """The place on disk that `text` names; what names nothing on disk (a hub id) is returned as it is.

    A package is found where Python would find it and is not imported. Raises `InputError` if a `package://` path does
    not exist.
    """
    if not text.startswith(SCHEME):
        path = Path(text).expanduser()
        return str(path.resolve()) if path.exists() else text
    package, _, inside = text.removeprefix(SCHEME).partition("/")
    for folder in _folders(package):
        path = (folder / inside).resolve()
        if path.exists() and path.is_relative_to(folder.resolve()):
            return str(path)
    raise InputError(f"{text}: the package {package!r} has no {inside!r}")


def _folders(package: str) -> list[Path]:
    """Where a package's files lie, found without running anything of it (importing a parent would)."""
    top, *below = package.split(".")
    if top == "fishlens":
        try:
            return [Path(str(files(package)))]
        except (ModuleNotFoundError, TypeError):
            raise InputError(f"{SCHEME}{package}: there is no package {package!r} here") from None
    found = _spec(top)
    places = [Path(place, *below) for place in (found.submodule_search_locations if found else None) or ()]
    there = [place for place in places if place.is_dir()]
    if not there:
        raise InputError(f"{SCHEME}{package}: there is no package {package!r} here")
    return there


def _spec(name: str) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = find(name, None) if find is not None and name.isidentifier() else None
        if spec is not None:
            return spec  # type: ignore[no-any-return]
    return None
