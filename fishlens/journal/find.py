"""Which run directories there are, and what was passed over: nothing is left out in silence."""

import errno
import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fishlens.errors import InputError
from fishlens.journal.reader import attempts

EXPORT = "runs.parquet"  # the file that a folder of exported runs always has
_TABLES = {"fisher.parquet", "training.parquet", "evaluation.parquet"}  # that lie beside it
# folders of a run directory in which no other run lies
_INSIDE = {"checkpoints", "predictions", "diagonals", "adapter", "model"}


@dataclass(frozen=True)
class LeftOut:
    """A run, or a folder, that was asked for and is not among the loaded ones: where it lies, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Found:
    """Run directories and folders of exported runs, each once, and what was passed over."""

    runs: list[Path]
    left_out: list[LeftOut]
    exports: list[Path]


@dataclass(frozen=True)
class _Export:
    folder: Path


def look_for_runs(where: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Found:
    """Run directories and exports in or below a directory, matching a pattern, or of a list of either.

    Runs inside run directories and behind links are found too; a directory that is named or reached twice counts once.
    Raises `InputError` when something named does not exist.
    """
    places = [where] if isinstance(where, str | os.PathLike) else list(where)
    if not places:
        raise InputError("no run was named; expected at least one directory or pattern")
    seen: set[tuple[int, int]] = set()
    found = [one for place in places for one in _below(os.fspath(place), seen)]
    return Found(
        runs=sorted(one for one in found if isinstance(one, Path)),
        left_out=[one for one in found if isinstance(one, LeftOut)],
        exports=[one.folder for one in found if isinstance(one, _Export)],
    )


def find_runs(where: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The run directories of `look_for_runs`. Raises `InputError` when there is none."""
    found = look_for_runs(where)
    if not found.runs:
        raise no_runs(where, found)
    return found.runs


def no_runs(where: object, found: Found) -> InputError:
    passed = "; ".join(f"{one.path}: {one.reason}" for one in found.left_out[:3])
    return InputError(
        f"{where} holds no run; expected a journal-1.jsonl, or exported runs, in or below it"
        + (f" ({passed})" if passed else "")
    )


def _below(where: str, seen: set[tuple[int, int]]) -> Iterator[Path | LeftOut | _Export]:
    if os.path.isdir(where):  # noqa: PTH112
        yield from _walk(Path(where), seen)
        return
    matches = sorted(match for match in glob.glob(where, recursive=True) if Path(match).is_dir())  # noqa: PTH207
    if not matches:
        raise InputError(f"{where} is not a directory, and as a pattern matches none")
    for match in sorted(matches, key=os.path.islink):  # a folder is called by its own name, not by a link's
        yield from _walk(Path(match), seen)


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path | LeftOut | _Export]:
    """Depth first without recursion: a folder, then its folders, then what links lead to."""
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            there = here.stat()
            if (there.st_dev, there.st_ino) in seen:
                continue
            seen.add((there.st_dev, there.st_ino))
            with os.scandir(here) as entries:
                listed = sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name))
            is_run = bool(attempts(here))
        except InputError as error:
            yield LeftOut(here, str(error))
            continue
        except OSError as error:
            gone = error.errno in (errno.ENOENT, errno.ELOOP)
            yield LeftOut(here, "a link that leads nowhere" if gone else f"cannot be read: {error.strerror}")
            continue
        if is_run:
            yield here
        names = {entry.name for entry in listed}
        if EXPORT in names:
            yield _Export(here)
        elif len(_TABLES & names) > 1:
            yield LeftOut(
                here, f"tables of an export, without the {EXPORT} that `fishlens export` wrote beside them"
            )
        below = [here / entry.name for entry in listed if _may_hold_runs(entry, is_run)]
        waiting += reversed(below)


def _may_hold_runs(entry: "os.DirEntry[str]", in_run: bool) -> bool:
    if in_run and entry.name in _INSIDE:
        return False
    try:
        if entry.is_symlink():
            return entry.is_dir() or not Path(entry.path).exists()  # a broken link is named
        return entry.is_dir()
    except OSError:
        return True  # and is named as unreadable
