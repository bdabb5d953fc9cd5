"""Opening and writing files and folders: whole or not at all, and never over what somebody else made.

- A file is written beside its place and moved there when it is whole. It gets the mode that the umask gives, or keeps
  the one it had. What is not a regular file (a device, a pipe) is written to and never replaced.
- A link that the user names as an output is followed; inside a folder of ours, which may be a stranger's, none is.
- A folder of ours carries `MARKER`. Only such a folder is ever removed or replaced.
"""

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from fishlens.errors import InputError

MARKER = ".made-by-fishlens"
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A file opened for reading. Raises `OSError` for a pipe, a device or a folder, which could wait for ever."""
    return _regular(os.open(path, os.O_RDONLY | _NONBLOCK), path, "rb")


def open_to_append(path: str | os.PathLike[str]) -> BinaryIO:
    """A file of ours, made if there is none, opened to write at its end.

    Raises `OSError` for a link of either kind, and for what is not a regular file.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _NOFOLLOW | _NONBLOCK
    file = _regular(os.open(path, flags, 0o666), path, "ab")
    if os.fstat(file.fileno()).st_nlink > 1:
        file.close()
        raise OSError(errno.EMLINK, "has another name too (a hard link)", os.fspath(path))
    return file


def _regular(descriptor: int, path: str | os.PathLike[str], mode: str) -> BinaryIO:
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return cast(BinaryIO, os.fdopen(descriptor, mode, 2**20))


def write_file(
    path: str | os.PathLike[str], content: str | bytes, *, follow: bool = False, sync: bool = False
) -> None:
    """The whole content or nothing. `follow`: a link at `path` stays, and what it points to is written.

    Raises `OSError`, or `InputError` where `path` is a folder or, without `follow`, a link.
    """
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    path = Path(path)
    if follow and path.is_symlink():
        path = path.resolve()
    if _is_special(path):
        with path.open("wb") as file:
            file.write(data)
        return
    with writing(path) as beside, beside.open("wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def write_files(contents: Mapping[Path, str | bytes]) -> None:
    """All of them or none. Raises as `write_file`."""
    with writing_all(list(contents)) as beside:
        for path, content in contents.items():
            data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
            beside[path].write_bytes(data)


@contextlib.contextmanager
def writing_all(paths: Sequence[Path]) -> Iterator[dict[Path, Path]]:
    """As `writing`, for several files: all take their places when the block ends well, or none does."""
    with contextlib.ExitStack() as stack:
        made = {path: stack.enter_context(_new_beside(path)) for path in paths}
        beside = {path: new for path, (new, _) in made.items()}
        yield beside
        for new, mode in made.values():
            new.chmod(mode)
        kept = [(path, _keep(path, new)) for path, new in beside.items()]
        placed: list[Path] = []
        try:
            for path, new in beside.items():
                new.replace(path)
                placed.append(path)
        except BaseException:
            for path, old in kept:
                if path in placed:
                    with contextlib.suppress(OSError):
                        path.unlink() if old is None else old.replace(path)
            raise
        finally:
            for _, old in kept:
                if old is not None:
                    _discard(old)


def _keep(path: Path, new: Path) -> Path | None:
    """The file that is at `path` under a second name, beside the new one; None where there is none."""
    if not path.exists():
        return None
    old = new.with_suffix(".old")
    try:
        os.link(path, old)
    except OSError:  # a file system without links
        shutil.copy2(path, old)
    return old


def _discard(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A new, empty file beside `path` to write into; it takes `path`'s place when the block ends well.

    Whatever the block did to the file (libraries make their own, with modes of their own), its mode is the one the file
    had, or by the umask. Raises `InputError` where `path` is a link or no regular file.
    """
    with _new_beside(path) as (beside, mode):
        yield beside
        beside.chmod(mode)
        beside.replace(path)


@contextlib.contextmanager
def _new_beside(path: Path) -> Iterator[tuple[Path, int]]:
    """A new file and the mode that it is to have; removed if it has not taken `path`'s place when the block ends."""
    mode = _refuse_irregular(path)
    beside = path.with_name(f".{uuid.uuid4().hex[:12]}.writing")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o666)
    usual = stat.S_IMODE(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    try:
        yield beside, usual if mode is None else mode
    finally:
        _discard(beside)


def _is_special(path: Path) -> bool:
    """A device, a pipe or a socket: something to write to, not to replace."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _refuse_irregular(path: Path) -> int | None:
    """The mode of the file that is there, None where there is none."""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(there.st_mode):
        raise InputError(f"{path} is a link; expected a file of this folder: remove the link first")
    if stat.S_ISDIR(there.st_mode):
        raise InputError(f"{path} is a folder; expected a file")
    if not stat.S_ISREG(there.st_mode):
        raise InputError(f"{path} is not a regular file: it is not replaced")
    if not os.access(path, os.W_OK):
        raise PermissionError(13, os.strerror(13), str(path))
    return stat.S_IMODE(there.st_mode)


@contextlib.contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` to write into; it takes `path`'s place, marked as ours, when the block ends well.

    Files get the modes that the umask gives, whatever a library gave them.
    Raises `InputError` where `path` is something that is not ours.
    """
    refuse_foreign(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{uuid.uuid4().hex[:12]}.writing")
    beside.mkdir()
    old = beside.with_suffix(".old")
    try:
        mark(beside)
        usual = stat.S_IMODE((beside / MARKER).stat().st_mode)
        yield beside
        for file in beside.rglob("*"):
            if file.is_file() and not file.is_symlink():
                file.chmod(usual)
        _take_place(beside, path, old)
        if old.exists():
            for left in old.iterdir():  # what somebody else put into the folder stays in it
                if not (path / left.name).exists():
                    left.rename(path / left.name)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _take_place(new: Path, path: Path, old: Path) -> None:
    """`new` becomes `path`, and what was there `old`; where that fails, what was there is there."""
    there = path.exists()
    if there:
        path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        if there:
            old.rename(path)
        raise


def own_folder(path: Path) -> Path:
    """A folder of ours at `path`, made if there is none. Raises `InputError` where something else is there."""
    refuse_foreign(path)
    path.mkdir(parents=True, exist_ok=True)
    mark(path)
    return path


def mark(folder: Path) -> None:
    """Say in a folder that fishlens made it."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(folder / MARKER, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o666))


def is_own(folder: Path) -> bool:
    """Did fishlens make this folder? A link to one is not ours."""
    return not folder.is_symlink() and (folder / MARKER).is_file()


def refuse_foreign(path: Path) -> None:
    """Raises `InputError` unless `path` is free, an empty folder, or a folder of ours."""
    if path.is_symlink():
        raise InputError(f"{path} is a link; expected a folder of this run: remove the link first")
    if not path.exists() or is_own(path):
        return
    if not path.is_dir():
        raise InputError(f"{path} is a file; expected a folder")
    if any(path.iterdir()):
        raise InputError(
            f"{path} holds files that fishlens did not make: it is left as it is, give another folder"
        )


def remove_own(folder: Path) -> None:
    """Remove a folder of ours with all that is in it; anything else stays."""
    if is_own(folder):
        shutil.rmtree(folder, ignore_errors=True)
