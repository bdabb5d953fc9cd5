"""A disk that refuses one operation: what the tests of trainer and tracker share."""

import builtins
import contextlib
import errno
import io
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest


class Disk:
    """Counts the operations below `folder`, and refuses the one of number `refused` with the error `number`.

    `native`: (module, name, position of the path) of functions that read or write without Python.
    """

    def __init__(
        self,
        folder: Path,
        refused: int | None = None,
        number: int = errno.ENOSPC,
        native: Sequence[tuple[Any, str, int]] = (),
    ):
        self.folder, self.refused, self.number, self.native = str(folder), refused, number, native
        self.done: list[str] = []

    def asked(self, operation: str, path) -> None:
        path = os.fspath(path) if not isinstance(path, int) else self._of(path)
        if not isinstance(path, str) or not path.startswith(self.folder):
            return
        self.done.append(f"{operation} {path.removeprefix(self.folder)}")
        if len(self.done) - 1 == self.refused:
            raise OSError(self.number, os.strerror(self.number), path)

    def _of(self, descriptor: int) -> str:
        try:
            return str(Path(f"/proc/self/fd/{descriptor}").readlink())
        except OSError:
            return ""

    @contextlib.contextmanager
    def watched(self):
        with pytest.MonkeyPatch.context() as patch:
            for name in ("open", "write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir"):
                patch.setattr(os, name, self._asking(name, getattr(os, name)))
            for module in (io, builtins):
                patch.setattr(module, "open", self._opening(io.open))
            for module, name, which in self.native:
                patch.setattr(module, name, self._asking(name, getattr(module, name), which))
            yield

    def _asking(self, name, real, which=0):
        def operation(*arguments, **options):
            self.asked(name, arguments[which])
            return real(*arguments, **options)

        return operation

    def _opening(self, real):
        def opened(path, *arguments, **options):
            if isinstance(path, int):
                return real(path, *arguments, **options)
            self.asked("open", path)
            file = real(path, *arguments, **options)
            if str(path).startswith(self.folder):
                for name in ("read", "write"):
                    file_operation = getattr(file, name)
                    with contextlib.suppress(AttributeError):
                        setattr(file, name, self._file_asking(name, path, file_operation))
            return file

        return opened

    def _file_asking(self, name, path, real):
        def operation(*arguments):
            self.asked(name, path)
            return real(*arguments)

        return operation


def chosen(operations: Sequence[str], some: int) -> list[int]:
    """So many of the operations, evenly spread; all of them with FISHLENS_FAULTS=all."""
    if os.environ.get("FISHLENS_FAULTS") == "all":
        return list(range(len(operations)))
    generator, width = random.Random(0), len(operations) / some
    return sorted({int(width * (i + generator.random())) for i in range(some)})
