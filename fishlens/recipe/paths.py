"""Paths in recipes: ordinary ones, hub ids, and `package://module/path` for what is shipped inside a package."""

from importlib.resources import files
from pathlib import Path

from fishlens.errors import InputError

SCHEME = "package://"


def resolve_path(text: str) -> str:
    """The place on disk that `text` names; what names nothing on disk (a hub id) is returned as it is.

    Raises `InputError` if a `package://` path does not exist.
    """
    if not text.startswith(SCHEME):
        path = Path(text).expanduser()
        return str(path.resolve()) if path.exists() else text
    package, _, inside = text.removeprefix(SCHEME).partition("/")
    try:
        root = Path(str(files(package)))
    except (ModuleNotFoundError, TypeError) as error:
        raise InputError(f"{text}: there is no package {package!r} here") from error
    path = root / inside
    if not path.exists():
        raise InputError(f"{text}: the package {package!r} has no {inside!r}")
    return str(path)
