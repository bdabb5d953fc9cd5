"""The first moment of a journal: it appears with its start record in it, or not at all.

It is written under another name and then linked to its own, which the file system lets only one process do. So nobody
ever finds a journal of which it cannot be told whose it is, and a disk that is full leaves nothing.
"""

import contextlib
import errno
import os
import uuid
from pathlib import Path

# O_RDWR, because what a replaced file lacks is read back from the old one
FLAGS = os.O_RDWR | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK}


def create(path: Path, line: bytes) -> int:
    """A descriptor of the new file at `path`, which begins with `line`.

    Where a file system has no links the file is made under its own name, and is empty for a moment.
    Raises `FileExistsError` where somebody else was first, and `OSError` where the file system refuses.
    """
    beside = path.with_name(f".{uuid.uuid4().hex[:12]}.writing")
    written = _write_new(beside, line)
    try:
        os.link(beside, path)
    except FileExistsError:
        if os.fstat(written).st_nlink < 2:  # else it was our own link: a file server whose answer was lost
            raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _write_new(path, line)
    finally:
        os.close(written)
        _remove(beside)
    return os.open(path, FLAGS)


def _remove(path: Path) -> None:
    """Twice, if need be: what stays would be a second name of the journal."""
    for _ in range(2):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            return


def _write_new(path: Path, line: bytes) -> int:
    """A new file with this line; nothing where it cannot be written whole."""
    descriptor = os.open(path, FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
    left = memoryview(line)
    try:
        while left:
            left = left[os.write(descriptor, left) :]
    except BaseException:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return descriptor
