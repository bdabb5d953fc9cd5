"""matplotlib without the `matplotlibrc` of the working directory.

matplotlib takes its settings from the folder that it is first imported in: a stranger's could have it run LaTeX on what
the stranger wrote, or wait for a pipe. On the command line it is imported from its own folder; the user's settings
(`MATPLOTLIBRC`, the configuration folder) count as always.
"""

import importlib.abc
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType


def ignore_those_of_the_working_directory() -> None:
    """From here on; nothing is imported yet."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "matplotlib" or path is not None:
            return None
        found = PathFinder.find_spec(name)
        if found is not None and found.loader is not None and found.origin is not None:
            found.loader = _Loader(found.loader, Path(found.origin).parent)
        return found


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, folder: Path):
        self._loader, self._folder = loader, folder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        here = os.open(".", os.O_RDONLY)  # a name would not do: the folder may be renamed or gone
        try:
            os.chdir(self._folder)
            self._loader.exec_module(module)
        finally:
            os.fchdir(here)
            os.close(here)
