"""A run directory kept in an object store while it grows.

Journals only grow and every other file is written once, so a push sends what is new or longer. A checkpoint is
a folder and an object store renames nothing, so a marker follows a checkpoint's last file: a fetch leaves out
the folders without one, and resuming never sees half a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fishlens.errors import InputError

MARKER = ".complete"


@dataclass
class Mirror:
    """`local` run directory ↔ `remote` fsspec URL."""

    local: Path
    remote: str
    pause: float = 20.0  # seconds between two pushes
    _sent: dict[PurePosixPath, tuple[int, int]] = field(default_factory=dict)

    def push(self) -> None:
        """Sends what is new since the last push; a checkpoint removed here is removed there."""
        import fsspec

        system, root = fsspec.core.url_to_fs(self.remote)
        present = self._files()
        for path in sorted(present):
            source = self.local / path
            try:
                seen = (source.stat().st_size, source.stat().st_mtime_ns)
                if self._sent.get(path) == seen:
                    continue
                system.makedirs(f"{root}/{path.parent}", exist_ok=True)
                system.put_file(str(source), f"{root}/{path}")
            except FileNotFoundError:
                continue  # an old checkpoint that was removed under our eyes
            self._sent[path] = seen
        for folder in {path.parent for path in present if _is_checkpoint(path)}:
            if folder / MARKER not in self._sent:
                system.pipe_file(f"{root}/{folder}/{MARKER}", b"")
                self._sent[folder / MARKER] = (0, 0)
        for gone in {path.parent for path in self._sent if _is_checkpoint(path)} - {
            path.parent for path in present
        }:
            system.rm(f"{root}/{gone}", recursive=True)
            self._sent = {path: seen for path, seen in self._sent.items() if path.parent != gone}

    def fetch(self) -> None:
        """Brings the store's files here, whole checkpoints only; nothing happens where the store has none.

        Raises `InputError` for a file whose name leads out of the run's directory.
        """
        import fsspec

        system, root = fsspec.core.url_to_fs(self.remote)
        if not system.exists(root):
            return
        prefix = str(system._strip_protocol(root)).rstrip("/") + "/"
        paths = [PurePosixPath(str(found).removeprefix(prefix)) for found in system.find(root)]
        whole = {path.parent for path in paths if path.name == MARKER}
        for path in paths:
            if path.is_absolute() or ".." in path.parts:
                raise InputError(
                    f"{self.remote} has a file {path}, which would be written outside {self.local}"
                )
            if path.name == MARKER or (_is_checkpoint(path) and path.parent not in whole):
                continue
            (self.local / path).parent.mkdir(parents=True, exist_ok=True)
            system.get_file(f"{prefix}{path}", str(self.local / path))

    def _files(self) -> set[PurePosixPath]:
        """Files to send, by their path in the run directory; those still being written are left out."""
        found = (
            path.relative_to(self.local)
            for path in self.local.rglob("*")
            if path.is_file() and path.suffix != ".writing"
        )
        paths = {PurePosixPath(path.as_posix()) for path in found}
        return {path for path in paths if not _is_checkpoint(path) or path.parts[1].startswith("step-")}


def _is_checkpoint(path: PurePosixPath) -> bool:
    return len(path.parts) > 2 and path.parts[0] == "checkpoints"
